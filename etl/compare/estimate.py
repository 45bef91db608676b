"""How much a metric differs between two sets of calls, and between which bounds the true difference lies. Pure.

**Matched by scenario.** Both sides are compared scenario by scenario: each scenario has the same weight on both, so
that more calls of a slow one do not make a slower agent. Where no scenarios are known, all calls are of one.

**What is estimated.** Of a mean or percentile, the logarithm of the ratio candidate / baseline, where that exists;
else, and of a rate, the difference in the metric's unit.

**How uncertain it is.** An estimate is nearly a sum over calls; what a call adds to it is the call's influence, in the
estimate's unit. The estimate varies as the influences do: from scenario to scenario or, where scenarios are few, from
call to call of a scenario; and from execution to execution, as a slow day makes all its calls slow. Student's t
quantile turns the standard error into an interval, with the degrees of freedom of Welch and Satterthwaite.

Decision 11 names the sources. Values are sorted first: the same values give the same words, whatever the order of the
rows was.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from etl.compare.statistics import (
    FEWEST,
    FEWEST_EXECUTIONS,
    LARGEST_LOG,
    ROUNDING,
    Difference,
    Estimate,
    Numbers,
    Sample,
    Values,
    bisect,
)
from etl.model.metrics import Statistic

_FEWEST_SCENARIOS = 10
"""With at least this many scenarios, they count as a sample of what callers want.

With fewer, they count as everything that callers want.
"""
_PERCENTILES = {Statistic.MEDIAN: 0.5, Statistic.P95: 0.95}
_Z = NormalDist().inv_cdf(0.975)
"""The quantile of the normal distribution for a two-sided interval of 95%: 1.96."""


@dataclass(frozen=True, slots=True)
class _Side:
    """The calls of one side whose scenario the other side has, too, sorted by value."""

    values: Values
    executions: Numbers
    """Which execution each call is of."""
    scenarios: Numbers
    """Numbered from 0, without a gap and the same on both sides."""
    weights: Values
    """Of each call; they add up to one."""
    is_even: bool
    """Whether each side's calls all have equal weights; true only if it holds on both sides."""


@dataclass(frozen=True, slots=True)
class _Shift:
    """By how much the candidate differs, and what each call has to do with it."""

    value: float
    """As in ``Estimate``."""
    influences: Sequence[Values]
    """For each side, what each of its calls adds to the value, before it is weighted; in the value's unit."""
    is_ratio: bool


@dataclass(frozen=True, slots=True)
class _Variance:
    """One source of the variance of an estimate."""

    amount: float
    """In the square of the estimate's unit."""
    freedom: float
    """Its degrees of freedom; infinite for a variance that is known."""


def difference(baseline: Sample, candidate: Sample, statistic: Statistic, *, is_higher_worse: bool) -> Difference:
    """How the candidate's figure differs from the baseline's, over the calls of the scenarios that both have.

    With fewer calls than ``FEWEST`` on a side there are figures, but no ``estimate``.
    """
    sides, shares = _matched(baseline, candidate)
    before, after = (_figure(side, shares, statistic) for side in sides)
    result = Difference(
        baseline=before,
        candidate=after,
        baseline_calls=len(sides[0].values),
        candidate_calls=len(sides[1].values),
        is_higher_worse=is_higher_worse,
    )
    if before is None or after is None or min(result.baseline_calls, result.candidate_calls) < FEWEST[statistic]:
        return result
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # near the largest that a double holds
        shift = _shift(sides, shares, statistic, before, after)
        return replace(result, estimate=_estimate(sides, shares, shift, statistic))


def _matched(*samples: Sample) -> tuple[list[_Side], Values]:
    """Baseline and candidate, matched by scenario, and the share that each scenario has in the figures of both.

    Calls of a scenario that only one side has are left out.

    The share is that of Mantel and Haenszel: a scenario counts as much as its calls on both sides can tell, n1 * n2 /
    (n1 + n2).
    """
    before, after = (sample.scenarios[sample.scenarios >= 0] for sample in samples)
    common = np.intersect1d(before, after)
    kept = [sample.only(np.isin(sample.scenarios, common)) for sample in samples]
    numbers = [np.searchsorted(common, sample.scenarios) for sample in kept]
    counts = [np.bincount(scenarios, minlength=len(common)).astype(np.float64) for scenarios in numbers]
    shares = counts[0] * counts[1] / (counts[0] + counts[1])
    shares = shares / shares.sum()
    is_even = all(np.ptp(shares / count) <= ROUNDING for count in counts if len(count))
    sides = []
    for sample, scenarios, count in zip(kept, numbers, counts, strict=True):
        order = np.lexsort((sample.executions, scenarios, sample.values))
        weights = (shares / count)[scenarios]
        sides.append(_Side(sample.values[order], sample.executions[order], scenarios[order], weights[order], is_even))
    return sides, shares


def _figure(side: _Side, shares: Values, statistic: Statistic) -> float | None:
    """The statistic of one side, in the metric's unit; None without calls."""
    if not len(side.values):
        return None
    if statistic in _PERCENTILES:
        return float(_quantile(side, _PERCENTILES[statistic]))
    return float((shares * _means(side, side.values, len(shares))).sum())


def _means(side: _Side, values: Values, count: int) -> Values:
    """For each of ``count`` scenarios, the mean of these values of its calls."""
    return np.bincount(side.scenarios, values, count) / np.bincount(side.scenarios, minlength=count)


def _quantile(side: _Side, share: float | Sequence[float]) -> Values:
    """The value below which this share of the weights lies.

    It interpolates between two values only if all calls weigh the same.
    """
    if side.is_even:
        return np.asarray(np.quantile(side.values, share))
    places = np.searchsorted(np.cumsum(side.weights), np.asarray(share) - ROUNDING)
    return side.values[np.minimum(places, len(side.values) - 1)]


def _shift(sides: Sequence[_Side], shares: Values, statistic: Statistic, before: float, after: float) -> _Shift:
    """The logarithm of the ratio where it exists, otherwise the difference; for a rate always the difference.

    A ratio of means needs a mean above zero in every scenario, because a few calls at zero would decide it. A ratio of
    percentiles needs both percentiles above zero, and no negative value.
    """
    if statistic in _PERCENTILES:
        influences = _influences_on_percentile(sides, _PERCENTILES[statistic])
        if min(before, after) > 0 and min(side.values[0] for side in sides) >= 0:
            influences = [influences[0] / before, influences[1] / after]
            return _Shift(math.log(after / before), influences, is_ratio=True)
    else:
        influences = [side.values for side in sides]
        means = [_means(side, side.values, len(shares)) for side in sides]
        if statistic is Statistic.MEAN and min(np.min(of_scenarios) for of_scenarios in means) > 0:
            return _ratio_of_means(sides, shares, *means)
    return _Shift(after - before, influences, is_ratio=False)


def _influences_on_percentile(sides: Sequence[_Side], share: float) -> list[Values]:
    """What each call adds to its side's percentile, in the metric's unit (Woodruff).

    A call moves the share of calls that are below the percentile; the slope of the quantile function there, the
    distance between two quantiles over the distance between their shares, turns that into a move of the percentile.
    """
    influences = []
    for side in sides:
        width = _Z * np.sqrt(share * (1 - share) * (side.weights**2).sum())
        low, high = max(0.0, share - width), min(1.0, share + width)
        at_low, at_high = _quantile(side, [low, high])
        slope = (at_high - at_low) / (high - low)
        influences.append((share - (side.values <= _quantile(side, share))) * slope)
    return influences


def _ratio_of_means(sides: Sequence[_Side], shares: Values, before: Values, after: Values) -> _Shift:
    """The logarithm of the ratio r that solves: sum of share * (after / r - before) / level = 0.

    Each difference counts relative to its scenario's level. ``before`` and ``after`` are the means of the scenarios. A
    scenario's level is the mean of its calls on both sides, after those of the candidate were divided by the ratio.
    """
    calls = [np.bincount(side.scenarios) for side in sides]
    share_of_baseline = calls[0] / (calls[0] + calls[1])

    def adjusted_and_levels(log_ratio: float) -> tuple[Values, Values]:
        adjusted = after * np.exp(-log_ratio)
        return adjusted, share_of_baseline * before + (1 - share_of_baseline) * adjusted

    def is_below(log_ratio: float) -> bool:
        adjusted, levels = adjusted_and_levels(log_ratio)
        return bool((shares * (adjusted - before) / levels).sum() > 0)

    log_ratio = bisect(is_below, -LARGEST_LOG, LARGEST_LOG)
    adjusted, levels = adjusted_and_levels(log_ratio)
    # Minus the derivative of that sum by log r: dividing by it turns a call's share of the sum into its influence.
    slope = (shares * adjusted * before / levels**2).sum()
    scales = [1 / (slope * levels), np.exp(-log_ratio) / (slope * levels)]
    influences = [side.values * scale[side.scenarios] for side, scale in zip(sides, scales, strict=True)]
    return _Shift(log_ratio, influences, is_ratio=True)


def _estimate(sides: Sequence[_Side], shares: Values, shift: _Shift, statistic: Statistic) -> Estimate:
    """The shift with its standard error, the degrees of freedom, and the share of the variance that executions add.

    The variance is a sum of several sources. Its degrees of freedom are those of Welch and Satterthwaite: the square of
    the sum over the sum of the squares, each divided by the source's own.
    """
    count = len(shares)
    given = list(zip(sides, shift.influences, strict=True))
    means = [_means(side, influences, count) for side, influences in given]
    deviations = [influences - mean[side.scenarios] for (side, influences), mean in zip(given, means, strict=True)]
    if statistic in _PERCENTILES:
        # Where all calls of a scenario lie on one side of the percentile, they would seem not to vary within it.
        sources = _between_calls(sides, shift.influences, 1)
    else:
        sources = _between_calls(sides, deviations, count, is_rate=statistic is Statistic.RATE)
    effective_scenarios = 1 / (shares**2).sum()  # that many of equal shares would weigh as much
    if effective_scenarios > _FEWEST_SCENARIOS - ROUNDING:
        of_scenarios = shares * (means[1] - means[0])
        # Each scenario's deviation from the average, corrected by 1 / (1 - share) because the scenario is part of that
        # average.
        between = float(((of_scenarios - shares * of_scenarios.sum()) ** 2 / (1 - shares)).sum())
        # Scenarios that seem to vary less than half as much as their calls do so by chance: rare values may be missing.
        least = sum(source.amount for source in sources) / 2
        sources = [_Variance(max(between, least), effective_scenarios - 1)]
    of_executions = _between_executions(sides, deviations, count)
    sources += of_executions
    if statistic is Statistic.RATE:
        sources += [_variance_of_two_more_calls(side) for side in sides]
    variance = sum(source.amount for source in sources)
    squares = sum(source.amount**2 / source.freedom for source in sources)
    freedom = float(variance**2 / squares) if squares else math.inf
    fixed = sum(source.amount for source in of_executions) / variance if variance else 0.0
    is_rate = statistic is Statistic.RATE
    return Estimate(shift.value, shift.is_ratio, is_rate, error=math.sqrt(variance), freedom=freedom, fixed=fixed)


def _between_calls(
    sides: Sequence[_Side], deviations: Sequence[Values], fitted_means: int, *, is_rate: bool = False
) -> list[_Variance]:
    """For each side, what calls add to the variance by differing from each other.

    ``fitted_means`` is how many means were subtracted to get the deviations: one a scenario, or one in all for the
    influences on a percentile. Except for a rate, both sides take the larger of the two spreads: 30 identical calls do
    not prove that all calls are identical.
    """
    freedoms = [max(1, len(of_calls) - fitted_means) for of_calls in deviations]
    spreads = [float((of_calls**2).sum()) / freedom for of_calls, freedom in zip(deviations, freedoms, strict=True)]
    if not is_rate:
        spreads = [max(spreads)] * 2
    return [
        _Variance(spread * float((side.weights**2).sum()), freedom)
        for spread, side, freedom in zip(spreads, sides, freedoms, strict=True)
    ]


def _variance_of_two_more_calls(side: _Side) -> _Variance:
    """What one more call that passed, and one that failed, would add to the variance of a rate (Agresti and Caffo)."""
    calls, passed = len(side.values), float(side.values.sum())
    added = (passed + 1) * (calls - passed + 1) / (calls + 2) - passed * (calls - passed) / calls
    return _Variance(added / calls * float((side.weights**2).sum()), math.inf)


def _between_executions(sides: Sequence[_Side], deviations: Sequence[Values], fitted_means: int) -> list[_Variance]:
    """What executions add to the variance by differing beyond their calls.

    Empty if there are too few executions to tell, or if they do not differ beyond their calls. ``fitted_means`` is how
    many means were subtracted to get the deviations: one a scenario.

    Where executions do not matter, the squares of their summed deviations add up to about the squares of their calls'
    deviations. Executions are taken to vary alike on both sides: each side tells as much as it has degrees of freedom,
    and a side of one execution nothing.
    """
    freedom, executions, amount, all_weights = 0, 0, 0.0, 0.0
    for side, of_calls in zip(sides, deviations, strict=True):
        weights = np.bincount(side.executions, side.weights)
        squared_weights = float((weights**2).sum())
        all_weights += squared_weights
        present = int(np.count_nonzero(weights))
        if present > 1 and len(of_calls) > fitted_means:
            weighted = side.weights * of_calls
            by_execution = np.bincount(side.executions, weighted)
            observed = float((by_execution**2).sum()) * present / (present - 1)
            expected = float((weighted**2).sum()) * len(of_calls) / (len(of_calls) - fitted_means)
            amount += (present - 1) * (observed - expected) / squared_weights
            freedom += present - 1
            executions += present
    if executions < FEWEST_EXECUTIONS or amount <= 0:
        return []
    return [_Variance(amount / freedom * all_weights, freedom)]
