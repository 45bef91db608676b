"""How reliably an eval passes the calls of a scenario that ran several times: pass^k and pass@k. Pure.

pass^k is the chance that k calls of a scenario all pass (Yao et al. 2024, "tau-bench", arXiv:2406.12045), pass@k that at least
one of them does (Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv:2107.03374). Where c of n calls
passed, both are estimated without bias from all choices of k calls: C(c, k) / C(n, k), and 1 - C(n - c, k) / C(n, k).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from math import comb, nan
from statistics import fmean

K = 3


@dataclass(frozen=True, slots=True)
class Repeated:
    """So many calls of a scenario with an output, and how many passed; the estimates are None with fewer than k calls.

    Of several scenarios: their sums, and the means of those that have estimates.
    """

    scenario: str
    calls: int = 0
    passed: int = 0
    pass_power_k: float | None = None
    pass_at_k: float | None = None

    @property
    def rate(self) -> float:
        """The share that passed."""
        return self.passed / self.calls if self.calls else nan


@dataclass(frozen=True, slots=True)
class Repeats:
    """One eval on one side, as a whole, and each scenario by its id."""

    k: int
    whole: Repeated
    scenarios: Sequence[Repeated]

    def named(self, names: Sequence[str]) -> "Repeats":
        """The same, where the ids are numbers of these names."""
        return replace(self, scenarios=[replace(each, scenario=names[int(each.scenario)]) for each in self.scenarios])


def repeats_of(scenarios: Iterable[str], passed: Iterable[float], *, most: int = K) -> Repeats:
    """From the scenario of each call with an output, and 1 if it passed, else 0. An unknown scenario, ``""``, has no estimate.

    ``k`` is ``most``, or less where no scenario ran so often.
    """
    scenarios = list(scenarios)
    calls, passes = Counter(scenarios), Counter(compress(scenarios, passed))
    k = min(most, max((count for scenario, count in calls.items() if scenario), default=most))
    found = [_repeated(scenario, calls[scenario], passes[scenario], k) for scenario in sorted(calls)]
    powers = [each.pass_power_k for each in found if each.pass_power_k is not None]
    ats = [each.pass_at_k for each in found if each.pass_at_k is not None]
    means = (fmean(each) if each else None for each in (powers, ats))
    return Repeats(k, Repeated("", calls.total(), passes.total(), *means), found)


def _repeated(scenario: str, calls: int, passed: int, k: int) -> Repeated:
    if not scenario or calls < k:
        return Repeated(scenario, calls, passed)
    choices = comb(calls, k)
    return Repeated(scenario, calls, passed, comb(passed, k) / choices, 1 - comb(calls - passed, k) / choices)
