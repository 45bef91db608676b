"""How reliably an eval passes the calls of a scenario that ran several times: pass^k and pass@k. Pure.

pass^k is the chance that k calls of a scenario all pass (Yao et al. 2024, "tau-bench", arXiv:2406.12045), pass@k that
at least one of them does (Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv:2107.03374).
Where c of n calls passed, both are estimated without bias from all choices of k calls: C(c, k) / C(n, k), and 1 - C(n -
c, k) / C(n, k).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from math import comb, nan
from statistics import fmean

K = 3
"""How many calls all have to pass, where a scenario ran so often."""
_FEWEST_SCENARIOS, _FEWEST_CALLS = 10, 30


@dataclass(frozen=True, slots=True)
class Repeated:
    """What an eval says of the calls of one scenario, or of all scenarios together."""

    scenario: str
    """The id; empty for a scenario that is unknown, or for all together."""
    calls: int = 0
    """How many calls have an output of the eval."""
    passed: int = 0
    """How many of these passed."""
    pass_power_k: float | None = None
    """pass^k, a chance from 0 to 1; None with fewer than k calls. Of all scenarios: the mean of those that have it."""
    pass_at_k: float | None = None
    """pass@k, likewise."""

    @property
    def rate(self) -> float:
        """The share that passed; NaN without calls."""
        return self.passed / self.calls if self.calls else nan


@dataclass(frozen=True, slots=True)
class Repeats:
    """One eval on one side of a comparison."""

    k: int
    """How many calls have to pass, or one of them."""
    whole: Repeated
    """All scenarios together."""
    scenarios: Sequence[Repeated]
    """Each scenario, in the order of ids."""

    @property
    def is_telling(self) -> bool:
        """Whether the estimates of all scenarios together are more than chance."""
        return len(self.scenarios) >= _FEWEST_SCENARIOS and self.whole.calls >= _FEWEST_CALLS


def repeats_of(scenarios: Iterable[str], passed: Iterable[float], *, most: int = K) -> Repeats:
    """Of the calls that have an output: the scenario of each, and 1 if it passed, else 0.

    An unknown scenario, ``""``, has no estimates. ``k`` is ``most``, or less where no scenario ran so often.
    """
    scenarios = list(scenarios)
    calls, passes = Counter(scenarios), Counter(compress(scenarios, passed))
    k = min(most, max((count for scenario, count in calls.items() if scenario), default=most))
    repeated = [_repeated(scenario, calls[scenario], passes[scenario], k) for scenario in sorted(calls)]
    pass_power_k = _mean_of_known(each.pass_power_k for each in repeated)
    pass_at_k = _mean_of_known(each.pass_at_k for each in repeated)
    return Repeats(k, Repeated("", calls.total(), passes.total(), pass_power_k, pass_at_k), repeated)


def _mean_of_known(estimates: Iterable[float | None]) -> float | None:
    known = [estimate for estimate in estimates if estimate is not None]
    return fmean(known) if known else None


def _repeated(scenario: str, calls: int, passed: int, k: int) -> Repeated:
    if not scenario or calls < k:
        return Repeated(scenario, calls, passed)
    choices = comb(calls, k)
    return Repeated(scenario, calls, passed, comb(passed, k) / choices, 1 - comb(calls - passed, k) / choices)
