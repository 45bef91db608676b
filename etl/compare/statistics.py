"""What a comparison says of one metric: the verdict, what became of a limit, and what so many calls can show at all.

Owns the values that are compared (``Sample``) and the result (``Difference``) with its two scales of words, ``Verdict``
and ``Outcome``. It estimates nothing: ``estimate`` makes a ``Difference`` of two samples. Pure.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etl.model.metrics import Limit, Statistic
from etl.model.wording import Word

Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

FEWEST = {Statistic.MEDIAN: 20, Statistic.P95: 40, Statistic.MEAN: 20, Statistic.RATE: 20}
"""A side with fewer calls gets no interval. A 95th percentile of 39 calls is hardly more than their largest value."""
FEWEST_EXECUTIONS = 5
"""Fewer executions, on all sides that have several, do not tell how alike the calls of one execution are."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The values of one metric on one side of a comparison: one for each call that has the metric."""

    values: Values
    """Finite, in the metric's unit; of a rate each is 1 (it failed, or passed) or 0."""
    executions: Numbers
    """For each value, the number of the execution, from 0 on. The nightly verdict puts the numbers of nights here."""
    scenarios: Numbers
    """For each value, the number of its scenario, the same on both sides; -1 for none: the call is not compared."""

    @classmethod
    def of(cls, values: Values, executions: Numbers | None = None, scenarios: Numbers | None = None) -> "Sample":
        """A sample of which the executions or scenarios are unknown, or do not matter: all calls count as of one."""
        same = np.zeros(len(values), dtype=np.int64)
        return cls(values, same if executions is None else executions, same if scenarios is None else scenarios)

    def __len__(self) -> int:
        return len(self.values)

    def only(self, chosen: npt.NDArray[np.bool_] | Numbers) -> "Sample":
        """The calls that a mask, or their places, choose."""
        return Sample(self.values[chosen], self.executions[chosen], self.scenarios[chosen])


def bisect(is_below: Callable[[float], bool], low: float, high: float) -> float:
    """The number between ``low`` and ``high`` up to which ``is_below`` is true, found by halving the range 60 times."""
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
    """An estimate and its 95% confidence interval. As a share of a baseline of zero, all three may be infinite."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How one metric of the candidate's calls differs from that of the baseline's, and what so many calls can show."""

    baseline: float | None
    """The baseline's figure, in the metric's unit, with scenarios weighted as on the other side; None without calls."""
    candidate: float | None
    """The candidate's figure, likewise."""
    baseline_calls: int
    """How many calls of the baseline are compared: they have the metric, and the candidate has their scenario."""
    candidate_calls: int
    """How many calls of the candidate are compared."""
    is_higher_worse: bool
    """Whether the metric gets worse by growing, as a latency does and a pass rate does not."""
    difference: Interval | None = None
    """By how much the candidate is higher, in the metric's unit; None when a side has fewer than ``FEWEST`` calls."""
    change: Interval | None = None
    """The same as a share of the baseline's absolute figure; of a mean, not quite what the two figures make."""
    is_ratio: bool = False
    """Whether the logarithm of candidate / baseline was estimated, and not the difference. Never of a rate."""
    reach: float = math.inf
    """How far beyond a limit a change is found in 9 of 10 cases: in the metric's unit, or the logarithm of a ratio."""
    fixed: float = 0.0
    """The share of the estimate's variance that executions add: more calls of the same executions cannot reduce it."""

    @property
    def verdict(self) -> Verdict:
        """Worse or better only when the whole interval says so."""
        worsening = self.worsening(is_relative=False)
        if worsening is None:
            return Verdict.TOO_FEW
        if worsening.low > 0:
            return Verdict.WORSE
        return Verdict.BETTER if worsening.high < 0 else Verdict.UNCLEAR

    def worsening(self, *, is_relative: bool) -> Interval | None:
        """``change`` if relative, else ``difference``, with the signs turned so that above zero is worse."""
        interval = self.change if is_relative else self.difference
        if interval is None or self.is_higher_worse:
            return interval
        return Interval(-interval.value, low=-interval.high, high=-interval.low)

    def against(self, limit: Limit) -> Outcome:
        """Exceeded if the whole interval is beyond the limit; kept or in doubt only where the calls could have told.

        They could if they would find a change of twice the limit, or if the whole interval is within it.
        """
        worsening = self.worsening(is_relative=limit.is_relative)
        if worsening is None:
            return Outcome.NOT_JUDGED
        if worsening.low > limit.amount:
            return Outcome.EXCEEDED
        if not (worsening.high <= limit.amount or self.detects(limit) <= 2 * limit.amount):
            return Outcome.NOT_JUDGED
        return Outcome.IN_DOUBT if worsening.value > limit.amount else Outcome.KEPT

    def detects(self, limit: Limit) -> float:
        """The smallest worsening that would be called beyond the limit in 9 of 10 cases, in the limit's unit.

        Infinite when no change would be: with too few calls, or a relative limit on a baseline of zero.
        """
        if self.is_ratio and self.is_higher_worse:
            return float(self._ratio(limit.amount) * np.exp(self.reach) - 1)
        if self.is_ratio:
            return float(1 - self._ratio(limit.amount) * np.exp(-self.reach))
        unit = self._unit_of(limit)
        return limit.amount + self.reach / unit if unit else math.inf

    def calls_needed(self, limit: Limit) -> int | None:
        """How many calls on each side would find a change of twice the limit in 9 of 10 cases, varying as these do.

        None where no number of calls would, since executions differ too much, or where these calls are too few to tell.
        """
        if self.difference is None:
            return None
        if self.is_ratio:
            at_limit, at_twice = self._ratio(limit.amount), self._ratio(2 * limit.amount)
            needed_reach = abs(math.log(at_twice / at_limit)) if min(at_limit, at_twice) > 0 else 0.0
        else:
            needed_reach = limit.amount * self._unit_of(limit)
        # The reach shrinks with the root of the variance. This share of the variance may be left to calls, and falls
        # with their number; the fixed share does not.
        share_of_calls = (needed_reach / self.reach) ** 2 - self.fixed if self.reach else 1.0
        calls = 2 / (1 / self.baseline_calls + 1 / self.candidate_calls)  # on each side, were both of one size
        needed_calls = calls * (1 - self.fixed) / share_of_calls if share_of_calls > 0 else math.inf
        return math.ceil(needed_calls) if math.isfinite(needed_calls) else None

    def _ratio(self, worsening: float) -> float:
        """Candidate / baseline when the metric got worse by this share of the baseline."""
        return 1 + worsening if self.is_higher_worse else 1 - worsening

    def _unit_of(self, limit: Limit) -> float:
        """What a limit of 1 amounts to in the metric's unit."""
        return abs(self.baseline or 0.0) if limit.is_relative else 1.0
