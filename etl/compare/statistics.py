"""Whether a metric of one set of calls differs from that of another, and how sure that is. Pure.

Knows arrays of values, one for each call, and no dataset. The interval is a bootstrap's: what the difference would have been, had
other calls of the same kind been made. It is seeded and the values are sorted first: the same values give the same words.

Calls of one execution may be alike: a slow day makes all of them slow. Where there are enough executions to tell how much, such
calls count for fewer. Where there are not, calls count as independent, and a slow day is a difference, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
import numpy.typing as npt

from etl.model.metrics import Limit, Statistic

Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

LEVEL = 0.95
RESAMPLES = 2000
FEWEST = {Statistic.MEDIAN: 20, Statistic.P95: 40, Statistic.MEAN: 20, Statistic.RATE: 20}
"""With fewer calls in a sample the interval is not to be trusted: a 95th percentile of 39 is hardly more than the largest one."""
FEWEST_EXECUTIONS = 10
"""From so many on, in samples that have several, they tell how alike the calls of one execution are."""
_SEED = 17
_MOST_DRAWN = 1000
_ROUNDING = 1e-12
_PERCENTILES = {Statistic.MEDIAN: 0.5, Statistic.P95: 0.95}
_TAIL = round(RESAMPLES * (1 - LEVEL) / 2)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The values of a metric, finite, one for each call that has it; of a rate they are 0 and 1.

    ``executions`` is for each value the number of its execution, from 0 on.
    """

    values: Values
    executions: Numbers

    @classmethod
    def of_one_execution(cls, values: Values) -> Self:
        """Values that come from one execution, or of which that is not known."""
        return cls(values, np.zeros(len(values), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.values)

    def in_order(self) -> "Sample":
        """The same, whatever the order of the rows was."""
        order = np.lexsort((self.executions, self.values))
        return Sample(self.values[order], self.executions[order])

    @property
    def sizes(self) -> Numbers:
        """How many values each execution has that has any."""
        counts = np.bincount(self.executions)
        return counts[counts > 0]

    @property
    def mean_size(self) -> float:
        """How many values the execution of a value has, on average."""
        return float((self.sizes.astype(np.float64) ** 2).sum() / len(self))

    def worth(self, likeness: float) -> float:
        """How many independent calls tell as much as these, where those of an execution are so much alike."""
        return max(2.0, len(self) / (1 + (self.mean_size - 1) * likeness))


class Verdict(StrEnum):
    """What the calls say about a metric."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "no clear difference"
    TOO_FEW = "too few calls"


class Outcome(StrEnum):
    """What the calls say about a limit."""

    KEPT = "kept"
    IN_DOUBT = "in doubt"
    EXCEEDED = "exceeded"
    NOT_JUDGED = "not judged"


VERDICT_MEANINGS: dict[Verdict, str] = {
    Verdict.BETTER: "the whole 95% interval of the difference is on the better side",
    Verdict.WORSE: "the whole 95% interval of the difference is on the worse side",
    Verdict.UNCLEAR: "this number of calls cannot show a difference; there may still be one",
    Verdict.TOO_FEW: f"fewer than {FEWEST[Statistic.MEAN]} calls on a side, or {FEWEST[Statistic.P95]} for a 95th percentile",
}
OUTCOME_MEANINGS: dict[Outcome, str] = {
    Outcome.KEPT: "the change is within the limit",
    Outcome.IN_DOUBT: "the change exceeds the limit, but part of its interval does not",
    Outcome.EXCEEDED: "the whole interval is beyond the limit: exit code 10",
    Outcome.NOT_JUDGED: "too few calls: exit code 3",
}


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
    None when there are too few calls.
    """

    baseline: float | None
    candidate: float | None
    baseline_calls: int
    candidate_calls: int
    is_higher_worse: bool
    difference: Interval | None = None
    change: Interval | None = None

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
        """Exceeded only when the whole interval is beyond the limit; in doubt when the value alone is."""
        interval = self.change if limit.is_relative else self.difference
        if interval is None:
            return Outcome.NOT_JUDGED
        value, surely = (interval.value, interval.low) if self.is_higher_worse else (-interval.value, -interval.high)
        if surely > limit.amount:
            return Outcome.EXCEEDED
        return Outcome.IN_DOUBT if value > limit.amount else Outcome.KEPT


@np.errstate(
    over="ignore", invalid="ignore", divide="ignore"
)  # near the largest that a double can hold, and of nothing
def difference(baseline: Sample, candidate: Sample, statistic: Statistic, *, is_higher_worse: bool) -> Difference:
    """What the statistic of the candidate's calls differs from that of the baseline's."""
    samples = (baseline.in_order(), candidate.in_order())
    figures = [_figure(each.values, statistic) if len(each) else None for each in samples]
    interval = change = None
    if min(map(len, samples)) >= FEWEST[statistic]:
        ones = [np.array([figure], dtype=np.float64) for figure in figures]
        likeness = _likeness(samples, statistic, ones)
        rng = np.random.default_rng(_SEED)
        errors = max((each.values - figure for each, figure in zip(samples, ones, strict=True)), key=np.var)
        drawn = [_redrawn(each.values, errors, statistic, each.worth(likeness), rng) for each in samples]
        interval = _interval(_by(*ones), _by(*drawn))
        change = _interval(_change(*ones), _change(*drawn))
    return Difference(
        baseline=figures[0],
        candidate=figures[1],
        baseline_calls=len(baseline),
        candidate_calls=len(candidate),
        is_higher_worse=is_higher_worse,
        difference=interval,
        change=change,
    )


def _likeness(samples: Sequence[Sample], statistic: Statistic, figures: Sequence[Values]) -> float:
    """How alike the calls of one execution are, from 0 to 1 (intraclass correlation), as samples of several executions tell."""
    told, weights = [], []
    for sample, figure in zip(samples, figures, strict=True):
        values = (sample.values <= figure).astype(np.float64) if statistic in _PERCENTILES else sample.values
        spread, executions = len(values) * float(values.var()), len(sample.sizes)
        if executions == 1 or spread == 0 or sample.mean_size == 1:
            continue
        sums = np.bincount(sample.executions, values - values.mean())
        inflation = float((sums**2).sum()) / spread * executions / (executions - 1)
        told.append((inflation - 1) / (sample.mean_size - 1))
        weights.append(executions)
    if sum(weights) < FEWEST_EXECUTIONS:
        return 0.0
    return min(1.0, max(0.0, float(np.average(told, weights=weights))))


def _figure(values: Values, statistic: Statistic) -> float:
    if statistic in _PERCENTILES:
        return float(np.quantile(values, _PERCENTILES[statistic]))
    return float(values.mean())


def _interval(value: Values, drawn: Values) -> Interval:
    """The estimate is in it: what is drawn from a posterior need not lie about it."""
    in_order = np.sort(drawn)
    shown = float(value[0])
    return Interval(shown, min(shown, float(in_order[_TAIL])), max(shown, float(in_order[-1 - _TAIL])))


def _by(before: Values, after: Values) -> Values:
    """The difference; none where only the last digits differ, as those of two sums of one value do."""
    by = after - before
    return np.where(np.abs(by) <= _ROUNDING * np.abs(before), 0.0, by)


def _change(before: Values, after: Values) -> Values:
    """The difference as a share of the baseline; from nothing to something is infinite."""
    by = _by(before, after)
    return np.where(by == 0, 0.0, by / np.abs(before))


def _redrawn(values: Values, errors: Values, statistic: Statistic, worth: float, rng: np.random.Generator) -> Values:
    """The statistic of so many samples drawn from the sorted values, each of as many independent calls as they are ``worth``."""
    if statistic is Statistic.RATE:
        # From Jeffreys' posterior in place of a bootstrap, which would have no doubt about a rate of 0% or 100%.
        hits = float(values.mean()) * worth
        return rng.beta(hits + 0.5, worth - hits + 0.5, RESAMPLES)
    if statistic is Statistic.MEAN:
        return _redrawn_means(values, errors, worth, rng)
    return _redrawn_percentiles(values, _PERCENTILES[statistic], worth, rng)


def _redrawn_means(values: Values, errors: Values, worth: float, rng: np.random.Generator) -> Values:
    """Drawn from the ``errors`` of the sample that varies most: 30 calls that are all the same do not prove that all are.

    Of many calls a thousand are drawn: scaled, that varies as much, and takes bounded time and memory.
    """
    count = min(len(values), _MOST_DRAWN)
    drawn = errors[rng.integers(0, len(errors), (RESAMPLES, count), dtype=np.int32)].mean(axis=1)
    means: Values = values.mean() + drawn * np.sqrt(count / worth)
    return means


def _redrawn_percentiles(values: Values, share: float, worth: float, rng: np.random.Generator) -> Values:
    """Without drawing whole samples: the k-th smallest of n drawn values is the value at the k-th smallest of n uniform numbers."""
    place = (worth - 1) * share
    below = int(place)
    at = rng.beta(below + 1, worth - below, RESAMPLES)
    above = 1 - (1 - at) * rng.random(RESAMPLES) ** (1 / (worth - below - 1))  # the smallest of those that are larger
    last = len(values) - 1
    low, high = (values[np.minimum((each * len(values)).astype(np.int64), last)] for each in (at, above))
    percentiles: Values = low + (high - low) * (place - below)
    return percentiles
