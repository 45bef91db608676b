"""What a comparison says of one metric: the verdict, what became of a limit, and what so many calls can show at all.

Owns the values that are compared (``Sample``) and the result (``Difference``) with its two scales of words, ``Verdict``
and ``Outcome``. It estimates nothing: ``estimate`` makes a ``Difference`` of two samples. Pure.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

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
CHANCE_OF_WORSE = 0.02
"""The chance that an unchanged metric is called worse, as decision 11 measures it."""
_TWO_SIDED = 0.975
"""How sure each bound of a 95% interval is."""
_SURE = 0.95
"""How sure the bound is that decides about a limit."""
_FALSE_FAILURES = 0.01
"""The chance that any limit of a comparison fails an unchanged agent, at most."""
_POWER = 0.9
"""How often enough calls decide about the limit of an unchanged agent."""
ROUNDING = 1e-12
"""A difference below this share of the values is only rounding: sums of the same doubles may differ by it."""
LARGEST_LOG = 700.0
"""A larger exponent overflows a double."""


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
    UNCLEAR = "no clear difference", "this number of calls shows no difference, although there may be one"
    TOO_FEW = (
        "too few calls",
        f"a side has under {FEWEST[Statistic.MEAN]} calls, or under {FEWEST[Statistic.P95]} for a 95th percentile",
    )


class Outcome(Word):
    """What the calls say about a limit."""

    KEPT = "kept", "the metric kept its limit and, with 95% certainty, did not get worse by twice the limit"
    EXCEEDED = "exceeded", "with 95% certainty, the metric got worse by more than the limit (exit code 10)"
    NOT_JUDGED = "not judged", "neither of these is certain, or there are too few calls to compare (exit code 3)"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its bounds. As a share of a baseline of zero, all three may be infinite."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """By how much the candidate differs, and how uncertain that is."""

    value: float
    """The logarithm of candidate / baseline if ``is_ratio``, else candidate minus baseline in the metric's unit."""
    is_ratio: bool
    is_rate: bool
    error: float
    """The standard error of the value."""
    freedom: float
    """Its degrees of freedom."""
    fixed: float
    """The share of the variance that executions add: more calls of the same executions cannot reduce it."""

    def difference(self, baseline: float, certainty: float) -> Interval:
        """The difference in the metric's unit; each of its bounds is on its side of the truth with this certainty."""
        half_width = self.error * _t_quantile(NormalDist().inv_cdf(certainty), self.freedom)
        bounds = np.array([self.value, self.value - half_width, self.value + half_width])
        # A bound that differs from zero only by rounding is zero.
        bounds[np.abs(bounds) <= ROUNDING * (1.0 if self.is_ratio else abs(baseline))] = 0.0
        if self.is_ratio:
            with np.errstate(over="ignore"):
                bounds = baseline * np.expm1(np.minimum(bounds, LARGEST_LOG))
        if self.is_rate:
            bounds = np.clip(bounds, -1.0, 1.0)
        return Interval(*map(float, bounds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How one metric of the candidate's calls differs from that of the baseline's."""

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
    estimate: Estimate | None = None
    """None when a side has fewer than ``FEWEST`` calls."""

    @property
    def calls(self) -> float:
        """As how many calls on each side they tell as much, were both sides of one size."""
        return 2 / (1 / self.baseline_calls + 1 / self.candidate_calls)

    @property
    def difference(self) -> Interval | None:
        """By how much the candidate is higher, with a 95% interval, in the metric's unit."""
        return self._interval(_TWO_SIDED, is_relative=False)

    @property
    def change(self) -> Interval | None:
        """The same as a share of the baseline's absolute figure; of a mean, not quite what the two figures make."""
        return self._interval(_TWO_SIDED, is_relative=True)

    @property
    def verdict(self) -> Verdict:
        """Worse or better only when the whole interval says so."""
        worsening = self.worsening(is_relative=False)
        if worsening is None:
            return Verdict.TOO_FEW
        if worsening.low > 0:
            return Verdict.WORSE
        return Verdict.BETTER if worsening.high < 0 else Verdict.UNCLEAR

    def worsening(self, *, is_relative: bool, certainty: float = _TWO_SIDED) -> Interval | None:
        """``change`` if relative, else ``difference``, with the signs turned so that above zero is worse."""
        interval = self._interval(certainty, is_relative=is_relative)
        if interval is None or self.is_higher_worse:
            return interval
        return Interval(-interval.value, low=-interval.high, high=-interval.low)

    def against(self, limit: Limit, *, limits: int = 1) -> Outcome:
        """What the calls say about a limit, which is one of so many.

        Exceeded only if it is also as good as certain that the metric got worse at all, the more certain the more
        limits there are: any of them fails an unchanged agent with a chance of ``_FALSE_FAILURES`` at most.
        """
        worsening = self.worsening(is_relative=limit.is_relative, certainty=_SURE)
        at_all = self.worsening(is_relative=limit.is_relative, certainty=1 - _FALSE_FAILURES / limits)
        if worsening is None or at_all is None:
            return Outcome.NOT_JUDGED
        if worsening.low > limit.amount and at_all.low > 0:
            return Outcome.EXCEEDED
        return Outcome.KEPT if worsening.high <= 2 * limit.amount else Outcome.NOT_JUDGED

    def calls_needed(self, limit: Limit) -> int | None:
        """With how many calls on each side, varying as these do, an unchanged agent keeps a limit in 9 of 10 cases.

        None where no number of calls would do, since executions differ too much, or where these calls are too few to
        tell.
        """
        if self.estimate is None:
            return None
        error = self.estimate.error
        reach = _t_quantile(NormalDist().inv_cdf(_SURE), self.estimate.freedom) + NormalDist().inv_cdf(_POWER)
        most = 2 * limit.amount * (abs(self.baseline or 0.0) if limit.is_relative else 1.0)
        if self.estimate.is_ratio:
            ratio = 1 + 2 * limit.amount if self.is_higher_worse else 1 - 2 * limit.amount
            most = abs(math.log(ratio)) if ratio > 0 else math.inf
        # The error shrinks with the root of the variance. This share of the variance may be left to calls, and falls
        # with their number; the fixed share does not.
        share_of_calls = (most / (error * reach)) ** 2 - self.estimate.fixed if error else 1.0
        needed_calls = self.calls * (1 - self.estimate.fixed) / share_of_calls if share_of_calls > 0 else math.inf
        return max(min(FEWEST.values()), math.ceil(needed_calls)) if math.isfinite(needed_calls) else None

    def _interval(self, certainty: float, *, is_relative: bool) -> Interval | None:
        if self.estimate is None or self.baseline is None:
            return None
        interval = self.estimate.difference(self.baseline, certainty)
        if not is_relative:
            return interval
        # With a baseline of zero, no difference is no change; 0 / 0 would be nan.
        bounds = np.array([interval.value, interval.low, interval.high])
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # near the largest that a double holds
            shares = np.where(bounds == 0, 0.0, bounds / np.abs(np.float64(self.baseline)))
        return Interval(*map(float, shares))


def _t_quantile(z: float, freedom: float) -> float:
    """Student's t quantile for as many degrees of freedom, from the normal quantile ``z`` (Cornish and Fisher)."""
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
