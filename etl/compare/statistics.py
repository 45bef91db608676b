"""What a comparison of two sets of calls says of a metric: verdict, limit, and what so many calls could show at all. Pure."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etl.model.metrics import Limit, Statistic
from etl.model.wording import Word

Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

LEVEL = 0.95
POWER = 0.9
FEWEST = {Statistic.MEDIAN: 20, Statistic.P95: 40, Statistic.MEAN: 20, Statistic.RATE: 20}
"""With fewer calls in a sample the interval is not to be trusted: a 95th percentile of 39 is hardly more than the largest one."""
FEWEST_EXECUTIONS = 5
"""From so many on, in samples that have several, they tell how alike the calls of one execution are."""
FEWEST_SCENARIOS = 10
"""From so many on, scenarios are a sample of what callers want; fewer are all that the agent is asked."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The values of a metric, finite, one for each call that has it; of a rate they are 0 and 1.

    ``executions`` and ``scenarios`` are for each value the numbers of its execution and its scenario, from 0 on, or -1. A scenario
    has the same number in both samples that are compared; without one a call is not compared.
    """

    values: Values
    executions: Numbers
    scenarios: Numbers

    @classmethod
    def of(cls, values: Values, executions: Numbers | None = None, scenarios: Numbers | None = None) -> "Sample":
        """Values of which the execution or the scenario is not known, or is the same for all."""
        same = np.zeros(len(values), dtype=np.int64)
        return cls(values, same if executions is None else executions, same if scenarios is None else scenarios)

    def __len__(self) -> int:
        return len(self.values)

    def only(self, chosen: npt.NDArray[np.bool_] | Numbers) -> "Sample":
        """These of the calls."""
        return Sample(self.values[chosen], self.executions[chosen], self.scenarios[chosen])


def bisect(is_below: Callable[[float], bool], low: float, high: float) -> float:
    """The number between these two up to which all are below what is looked for."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


class Verdict(Word):
    """What the calls say about a metric."""

    BETTER = "better", "the whole 95% interval of the difference is on the better side"
    WORSE = "worse", "the whole 95% interval of the difference is on the worse side"
    UNCLEAR = "no clear difference", "this number of calls cannot show a difference; there may still be one"
    TOO_FEW = (
        "too few calls",
        f"fewer than {FEWEST[Statistic.MEAN]} calls on a side, or {FEWEST[Statistic.P95]} for a 95th percentile",
    )


class Outcome(Word):
    """What the calls say about a limit."""

    KEPT = "kept", "the change is within the limit"
    IN_DOUBT = "in doubt", "the change exceeds the limit, but part of its interval does not"
    EXCEEDED = "exceeded", "the whole interval is beyond the limit: exit code 10"
    NOT_JUDGED = "not judged", "too few calls to find a change of twice the limit in 9 of 10 cases: exit code 3"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and between which bounds the truth lies 95 times out of 100. Infinite where it is a share of nothing."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A metric of two sets of calls.

    A value is None without calls. ``difference`` is in the metric's unit, ``change`` the same as a share of the baseline; both are
    None when there are too few calls. A change is found in 9 of 10 cases if it is ``reach`` beyond a limit: in the logarithm of the
    ratio if ``is_ratio``, else in the metric's unit. More calls of as many executions leave a share ``fixed`` of the variance.
    """

    baseline: float | None
    candidate: float | None
    baseline_calls: int
    candidate_calls: int
    is_higher_worse: bool
    difference: Interval | None = None
    change: Interval | None = None
    is_ratio: bool = False
    reach: float = math.inf
    fixed: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """Worse or better only when the whole interval says so."""
        if self.difference is None:
            return Verdict.TOO_FEW
        worse, better = self.difference.low > 0, self.difference.high < 0
        if not self.is_higher_worse:
            worse, better = better, worse
        return Verdict.WORSE if worse else Verdict.BETTER if better else Verdict.UNCLEAR

    def against(self, limit: Limit) -> Outcome:
        """Exceeded only when the whole interval is beyond the limit; kept only where a change of twice the limit would be found."""
        interval = self.change if limit.is_relative else self.difference
        if interval is None:
            return Outcome.NOT_JUDGED
        value, surely, possibly = interval.value, interval.low, interval.high
        if not self.is_higher_worse:
            value, surely, possibly = -value, -possibly, -surely
        if surely > limit.amount:
            return Outcome.EXCEEDED
        if not (possibly <= limit.amount or self.detects(limit) <= 2 * limit.amount):
            return Outcome.NOT_JUDGED
        return Outcome.IN_DOUBT if value > limit.amount else Outcome.KEPT

    def detects(self, limit: Limit) -> float:
        """The smallest change for the worse that would be called beyond the limit in 9 of 10 cases, in the limit's unit."""
        if self.is_ratio:
            sign = 1 if self.is_higher_worse else -1
            return float(sign * (1 + sign * limit.amount) * np.exp(sign * self.reach) - sign)
        base = abs(self.baseline or 0.0) if limit.is_relative else 1.0
        return limit.amount + self.reach / base if base else math.inf

    def calls_needed(self, limit: Limit) -> int | None:
        """How many calls on each side would find a change of twice the limit in 9 of 10 cases, if they vary as these do.

        None where no number would, or these cannot tell.
        """
        if self.difference is None:
            return None
        if self.is_ratio:
            sign = 1 if self.is_higher_worse else -1
            shares = 1 + 2 * sign * limit.amount, 1 + sign * limit.amount
            room = abs(math.log(shares[0] / shares[1])) if min(shares) > 0 else 0.0
        else:
            room = limit.amount * (abs(self.baseline or 0.0) if limit.is_relative else 1.0)
        worth = 2 / (1 / self.baseline_calls + 1 / self.candidate_calls)
        left = (room / self.reach) ** 2 - self.fixed if self.reach else 1.0
        needed = worth * (1 - self.fixed) / left if left > 0 else math.inf
        return math.ceil(needed) if math.isfinite(needed) else None
