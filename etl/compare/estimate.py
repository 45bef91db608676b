"""How much a metric differs between two sets of calls, and between which bounds that lies. Pure.

Both sides are compared scenario by scenario: each scenario weighs the same on both, so that more calls of a slow one are no slower
agent. Where no scenarios are known, all calls are of one.

An estimate is a sum over calls; what each adds is its influence. It is as uncertain as influences vary from scenario to scenario,
or from call to call of a scenario where these are few; and from execution to execution: a slow day makes all its calls slow.
Decision 11 names the sources. Values are sorted first: the same values give the same words, whatever the order of the rows was.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from etl.compare.statistics import (
    FEWEST,
    FEWEST_EXECUTIONS,
    FEWEST_SCENARIOS,
    LEVEL,
    POWER,
    Difference,
    Interval,
    Numbers,
    Sample,
    Values,
    bisect,
)
from etl.model.metrics import Statistic

_ROUNDING = 1e-12
_PERCENTILES = {Statistic.MEDIAN: 0.5, Statistic.P95: 0.95}
_Z, _Z_POWER = NormalDist().inv_cdf((1 + LEVEL) / 2), NormalDist().inv_cdf(POWER)
_LARGEST_LOG = 700.0


@dataclass(frozen=True, slots=True)
class _Side:
    """The calls of the scenarios that both sides have, these numbered from 0; ``weights`` add up to one.

    ``is_even``: on each side all calls weigh the same.
    """

    values: Values
    executions: Numbers
    scenarios: Numbers
    weights: Values
    is_even: bool


@dataclass(frozen=True, slots=True)
class _Estimate:
    """The logarithm of a ratio, if ``is_ratio``, or a difference; and what the calls of each side add to it."""

    value: float
    influences: Sequence[Values]
    is_ratio: bool


def difference(baseline: Sample, candidate: Sample, statistic: Statistic, *, is_higher_worse: bool) -> Difference:
    """What the statistic of the candidate's calls differs from that of the baseline's, in the scenarios that both have."""
    sides, shares = _matched(baseline, candidate)
    calls = [len(side.values) for side in sides]
    before, after = (_figure(side, shares, statistic) for side in sides)
    interval = change = None
    reach, fixed, is_ratio = math.inf, 0.0, False
    if min(calls) >= FEWEST[statistic] and before is not None and after is not None:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # near the largest that a double holds
            found = _estimate(sides, shares, statistic, before, after)
            error, freedom, fixed = _error(sides, shares, found, statistic)
            half, is_ratio = error * _t(_Z, freedom), found.is_ratio
            reach = half + error * _Z_POWER
            if statistic is Statistic.RATE:
                reach = _reach_of_rate(sides[1], after, error, reach, is_higher_worse=is_higher_worse)
            bounds = np.array([found.value, found.value - half, found.value + half])
            bounds[np.abs(bounds) <= _ROUNDING * (1.0 if is_ratio else abs(before))] = 0.0
            if is_ratio:
                bounds = before * np.expm1(np.minimum(bounds, _LARGEST_LOG))
            interval = Interval(*map(float, bounds))
            change = Interval(*map(float, np.where(bounds == 0, 0.0, bounds / np.abs(np.float64(before)))))
    return Difference(
        baseline=before,
        candidate=after,
        baseline_calls=calls[0],
        candidate_calls=calls[1],
        is_higher_worse=is_higher_worse,
        difference=interval,
        change=change,
        is_ratio=is_ratio,
        reach=reach,
        fixed=fixed,
    )


def _reach_of_rate(side: _Side, rate: float, error: float, reach: float, *, is_higher_worse: bool) -> float:
    """How far a rate has to get worse to be found, whose calls vary more (or less) then."""
    factor = reach / error
    for _ in range(20):
        then = min(1.0, max(0.0, rate + (reach if is_higher_worse else -reach)))
        more = max(0.0, then * (1 - then) - rate * (1 - rate)) * float((side.weights**2).sum())
        reach = factor * math.sqrt(error**2 + more)
    return reach


def _matched(*samples: Sample) -> tuple[list[_Side], Values]:
    """The calls of the scenarios that both samples have, and the share of each scenario.

    A scenario's share is that of Mantel and Haenszel: it counts as much as its calls can tell, the same on both sides.
    """
    before, after = (sample.scenarios[sample.scenarios >= 0] for sample in samples)
    common = np.intersect1d(before, after)
    kept = [sample.only(np.isin(sample.scenarios, common)) for sample in samples]
    numbers = [np.searchsorted(common, sample.scenarios) for sample in kept]
    counts = [np.bincount(each, minlength=len(common)).astype(np.float64) for each in numbers]
    shares = counts[0] * counts[1] / (counts[0] + counts[1])
    shares = shares / shares.sum()
    is_even = all(np.ptp(shares / count) <= _ROUNDING for count in counts if len(count))
    sides = []
    for sample, scenarios, count in zip(kept, numbers, counts, strict=True):
        order = np.lexsort((sample.executions, scenarios, sample.values))
        weights = (shares / count)[scenarios]
        sides.append(_Side(sample.values[order], sample.executions[order], scenarios[order], weights[order], is_even))
    return sides, shares


def _figure(side: _Side, shares: Values, statistic: Statistic) -> float | None:
    if not len(side.values):
        return None
    if statistic in _PERCENTILES:
        return float(_quantile(side, _PERCENTILES[statistic]))
    return float((shares * _means(side, side.values, len(shares))).sum())


def _means(side: _Side, values: Values, count: int) -> Values:
    """Of the calls of each scenario."""
    means: Values = np.bincount(side.scenarios, values, count) / np.bincount(side.scenarios, minlength=count)
    return means


def _quantile(side: _Side, share: float | Sequence[float]) -> Values:
    """Of the sorted values; between two of them only where all weigh the same."""
    if side.is_even:
        found: Values = np.asarray(np.quantile(side.values, share))
    else:
        places = np.searchsorted(np.cumsum(side.weights), np.asarray(share) - _ROUNDING)
        found = side.values[np.minimum(places, len(side.values) - 1)]
    return found


def _estimate(sides: Sequence[_Side], shares: Values, statistic: Statistic, before: float, after: float) -> _Estimate:
    """A ratio where all scenarios are above zero: else a few calls that are not would decide."""
    if statistic in _PERCENTILES:
        influences = _of_percentile(sides, _PERCENTILES[statistic])
        if min(before, after) > 0 and min(each.values[0] for each in sides) >= 0:
            influences = [influences[0] / before, influences[1] / after]
            return _Estimate(math.log(after / before), influences, is_ratio=True)
    else:
        influences = [each.values for each in sides]
        means = [_means(each, each.values, len(shares)) for each in sides]
        if statistic is Statistic.MEAN and min(np.min(each) for each in means) > 0:
            return _ratio_of_means(sides, shares, *means)
    return _Estimate(after - before, influences, is_ratio=False)


def _of_percentile(sides: Sequence[_Side], share: float) -> list[Values]:
    """Whether each value is below the percentile, times how far apart values lie there (Woodruff); the same for both sides."""
    spreads = []
    for side in sides:
        width = _Z * np.sqrt(share * (1 - share) * (side.weights**2).sum())
        low, high = max(0.0, share - width), min(1.0, share + width)
        at_low, at_high = _quantile(side, [low, high])
        spreads.append((at_high - at_low) / (high - low))
    return [
        (share - (each.values <= _quantile(each, share))) * spread for each, spread in zip(sides, spreads, strict=True)
    ]


def _ratio_of_means(sides: Sequence[_Side], shares: Values, before: Values, after: Values) -> _Estimate:
    """The ratio that, taken from the candidate, leaves no difference in relation to the level of each scenario, on average."""
    calls = [np.bincount(side.scenarios) for side in sides]
    old = calls[0] / (calls[0] + calls[1])

    def levels(log_ratio: float) -> tuple[Values, Values]:
        adjusted = after * np.exp(-log_ratio)
        return adjusted, old * before + (1 - old) * adjusted

    def is_below(log_ratio: float) -> bool:
        adjusted, level = levels(log_ratio)
        return bool((shares * (adjusted - before) / level).sum() > 0)

    log_ratio = bisect(is_below, -_LARGEST_LOG, _LARGEST_LOG)
    adjusted, level = levels(log_ratio)
    slope = (shares * adjusted * before / level**2).sum()
    scales = 1 / (slope * level), np.exp(-log_ratio) / (slope * level)
    influences = [side.values * scale[side.scenarios] for side, scale in zip(sides, scales, strict=True)]
    return _Estimate(log_ratio, influences, is_ratio=True)


def _error(
    sides: Sequence[_Side], shares: Values, found: _Estimate, statistic: Statistic
) -> tuple[float, float, float]:
    """The standard error of the estimate, its degrees of freedom (Welch and Satterthwaite), and the share that is of days.

    Scenarios that seem to vary less than half as much as their calls do so by chance: one side may have no rare value.
    """
    count, given = len(shares), list(zip(sides, found.influences, strict=True))
    means = [_means(side, each, count) for side, each in given]
    inner = [each - mean[side.scenarios] for (side, each), mean in zip(given, means, strict=True)]
    is_rate = statistic is Statistic.RATE
    is_cut = statistic in _PERCENTILES  # at a value, in whose scenario calls seem to be all the same
    parts = _within(sides, found.influences if is_cut else inner, 1 if is_cut else count, is_rate=is_rate)
    scenarios = 1 / (shares**2).sum()
    if scenarios > FEWEST_SCENARIOS - _ROUNDING:
        by_scenario = shares * (means[1] - means[0])
        apart = float(((by_scenario - shares * by_scenario.sum()) ** 2 / (1 - shares)).sum())
        parts = [(max(apart, sum(part for part, _ in parts) / 2), scenarios - 1)]
    days = _of_days(sides, inner, count)
    parts += days
    if is_rate:
        parts += [(_doubt(side), math.inf) for side in sides]
    variance = sum(part for part, _ in parts)
    doubt = sum(part**2 / freedom for part, freedom in parts)
    fixed = sum(part for part, _ in days) / variance if variance else 0.0
    return math.sqrt(variance), float(variance**2 / doubt) if doubt else math.inf, fixed


def _within(sides: Sequence[_Side], inner: Sequence[Values], count: int, *, is_rate: bool) -> list[tuple[float, float]]:
    """Variance and degrees of freedom, of each side, from call to call; ``count`` means were taken from the influences.

    But for a rate it is that of the side that varies more: 30 calls that are all the same do not prove that all are.
    """
    freedoms = [max(1, len(each) - count) for each in inner]
    spreads = [float((each**2).sum()) / freedom for each, freedom in zip(inner, freedoms, strict=True)]
    if not is_rate:
        spreads = [max(spreads)] * 2
    return [(spread * float((side.weights**2).sum()), freedom)
            for spread, side, freedom in zip(spreads, sides, freedoms, strict=True)]  # fmt: skip


def _doubt(side: _Side) -> float:
    """What one more call that passed, and one that failed, would add to the variance of a rate (Agresti and Caffo)."""
    calls, passed = len(side.values), float(side.values.sum())
    more = (passed + 1) * (calls - passed + 1) / (calls + 2) - passed * (calls - passed) / calls
    return more / calls * float((side.weights**2).sum())


def _of_days(sides: Sequence[_Side], inner: Sequence[Values], count: int) -> list[tuple[float, float]]:
    """The variance from execution to execution, where there are enough to tell: what they differ by beyond their calls."""
    told = calls = own = freedom = executions = shared = 0.0
    for side, each in zip(sides, inner, strict=True):
        weights = np.bincount(side.executions, side.weights)
        there = np.count_nonzero(weights)
        shared += float((weights**2).sum())
        if there > 1 and len(each) > count:
            of_executions = np.bincount(side.executions, side.weights * each)
            told += float((of_executions**2).sum()) * there / (there - 1)
            calls += float(((side.weights * each) ** 2).sum()) * len(each) / (len(each) - count)
            own += float((weights**2).sum())
            freedom, executions = freedom + there - 1, executions + there
    if executions < FEWEST_EXECUTIONS or told <= calls:
        return []
    return [((told - calls) / own * shared, freedom)]


def _t(z: float, freedom: float) -> float:
    """The quantile of Student's distribution beside that of the normal one (Cornish and Fisher)."""
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
