"""Whether a metric has got worse for some nights, with so few false alarms a year as are wanted. Pure.

A night is a day on which executions began. Its figure is taken in relation to what its scenarios lead to expect. After
each night the figures are split where the nights since differ most from those before; a difference above a threshold is
an alarm, which one night alone cannot raise. Decision 12 has the sources, and how often the procedure is wrong.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from etl.compare.statistics import Numbers, Sample, Values
from etl.model.metrics import Statistic

NIGHTS_BEFORE = 112
"""A change is judged by this number of nights before it at most, and by ``FEWEST_NIGHTS`` at least."""
FEWEST_NIGHTS = 10
LONGEST = 28
"""After this number of nights a change is what is usual."""
_ROUNDS = 4
"""How often nights and scenarios are corrected for each other: a scenario may have come on a bad night."""
_MOST_MEDIANS = 4
"""A call counts at most this many times the median of its scenario: one that hung says no more than that."""
_MOST_SPREADS = 2.5
"""A night counts as this many usual spreads from the median at most: one odd night is no alarm, and hides none."""
_MAD = 1.4826
"""The standard deviation of a normal distribution, in median absolute deviations."""
_CHANCES = 450
"""How many independent chances for a false alarm a metric has in a year, by simulation."""
_BETTER = 3.0
"""A difference above this ends an alarm."""
_LASTING = 1.15
"""A difference of so many thresholds is an improvement that, if it lasts, replaces the nights before it.

Nights that resemble each other would seem to improve too often otherwise, and few nights would be left to judge by.
"""
_LOWEST_THRESHOLD = 3.0
"""Below this one night alone could raise an alarm."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A change for the worse. Nights are numbered from 0, those without calls, too."""

    since: int
    """The first night of the change."""
    before: Numbers
    """The nights that it was compared with."""
    told_at: int
    """The night that showed it."""
    ended_at: int | None = None
    """The first night that is no longer part of it; None while it stands."""
    is_normal: bool = False
    """Whether it ended since it had lasted for ``LONGEST`` nights, and not since nights were better again."""


def threshold(metrics: int, false_alarms_per_year: float) -> float:
    """How large a difference has to be for an alarm, where this number of metrics is judged every night.

    In standard deviations, by the tail of the normal distribution.
    """
    chances = _CHANCES * max(1, metrics) / false_alarms_per_year
    return max(_LOWEST_THRESHOLD, math.sqrt(2 * math.log(chances)))


def figures_of_nights(sample: Sample, statistic: Statistic) -> tuple[Values, Values]:
    """For each night a figure, on a scale on which nights vary alike, and the variance that its calls explain.

    ``executions`` of the sample are numbers of nights. A figure sets what was observed against what the means of the
    night's scenarios lead to expect: the logarithm of their ratio; for a rate, the arcsine of the root of the adjusted
    rate (Anscombe); where values may be zero or less, the difference. NaN for a night without calls.
    """
    is_rate = statistic is Statistic.RATE
    scenarios = sample.scenarios + 1  # -1, for none, is a number like others then
    values = sample.values if is_rate else without_outliers(sample.values, scenarios)
    is_turned = is_rate and values.mean() > 0.5  # the rarer of both outcomes tells
    values = 1 - values if is_turned else values
    calls, observed = np.bincount(sample.executions), np.bincount(sample.executions, values)
    sums, ratio = np.bincount(scenarios, values), np.ones(len(calls))
    for _ in range(_ROUNDS if np.min(values) >= 0 else 1):
        weights = np.bincount(scenarios, ratio[sample.executions])
        levels = (sums / np.where(weights > 0, weights, 1.0))[scenarios]
        expected = np.bincount(sample.executions, levels)
        ratio = np.where(expected > 0, observed / np.where(expected > 0, expected, 1.0), 1.0)
    ratio = np.where(calls > 0, ratio, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        if is_rate:
            hits = calls * np.minimum(values.mean() * ratio, 1.0)
            figures = np.arcsin(np.sqrt((hits + 0.375) / (calls + 0.75)))
            return -figures if is_turned else figures, 1 / (4 * calls + 2)
        if np.min(values) >= 0 and np.min(observed[calls > 0]) > 0:
            deviations = values / np.where(levels > 0, levels, 1.0) - (levels > 0)
            return np.log(ratio), np.mean(deviations**2) / calls
        return (observed - expected) / calls, np.mean((values - levels) ** 2) / calls


def without_outliers(values: Values, scenarios: Numbers) -> Values:
    """The values, each at most ``_MOST_MEDIANS`` times its scenario's median if that is above zero."""
    ordered = values[np.lexsort((values, scenarios))]
    calls = np.bincount(scenarios)
    middles = np.minimum(np.cumsum(calls) - (calls + 1) // 2, len(values) - 1)
    medians = ordered[middles][scenarios]
    return np.where(medians > 0, np.minimum(values, _MOST_MEDIANS * medians), values)


def find_alarms(figures: Values, variances: Values, limit: float) -> list[Alarm]:
    """The alarms of all nights, oldest first, where higher figures are worse; only the last may still stand.

    An alarm is over when nights are better again: they do not differ from those before it then, and its own do not
    count any more. What has lasted for ``LONGEST`` nights, better or worse, is what is usual: only the nights since it
    began count then.
    """
    alarms: list[Alarm] = []
    nights, first = _since_last_improvement(figures, variances, limit), 0
    while True:
        worse, lengths = _best_splits(figures[nights], variances[nights], FEWEST_NIGHTS)
        above = np.flatnonzero(worse[first:] > limit)
        if not len(above):
            return alarms
        told = first + int(above[0])
        since = told + 1 - int(lengths[told])
        alarm = Alarm(int(nights[since]), nights[max(0, since - NIGHTS_BEFORE) : since], told_at=int(nights[told]))
        own = nights[since : since + LONGEST]
        better, lengths = _best_splits(-figures[own], variances[own], 1)
        above = np.flatnonzero(better[told - since :] > _BETTER)
        if len(above):
            length = int(lengths[told - since + above[0]])
            end = told + int(above[0]) + 1 - length
            alarms.append(replace(alarm, ended_at=int(nights[end])))
            nights, first = np.delete(nights, slice(since, end)), since + length
        elif since + LONGEST < len(nights):
            alarms.append(replace(alarm, ended_at=int(nights[since + LONGEST]), is_normal=True))
            nights, first = nights[since:], LONGEST
        else:
            return [*alarms, alarm]


def _since_last_improvement(figures: Values, variances: Values, limit: float) -> Numbers:
    """The nights with figures, from the last change for the better on that has lasted."""
    nights = np.flatnonzero(np.isfinite(figures))
    while True:
        better, lengths = _best_splits(-figures[nights], variances[nights], FEWEST_NIGHTS)
        began = (night + 1 - int(lengths[night]) for night in np.flatnonzero(better > _LASTING * limit))
        lasted = next((night for night in began if night + LONGEST <= len(nights)), None)
        if lasted is None:
            return nights
        nights = nights[lasted:]


def _best_splits(figures: Values, variances: Values, fewest_before: int) -> tuple[Values, Numbers]:
    """After each night, the largest difference of some last nights from those before, and how many these are.

    The difference is in its standard deviations. The last nights are 2 at least and ``LONGEST`` at most, those before
    are ``fewest_before`` at least. Odd nights are clamped by the usual spread (Winsor).
    """
    if not len(figures):
        return np.empty(0), np.empty(0, dtype=np.int64)
    usual = NIGHTS_BEFORE + LONGEST
    earlier = np.full(usual - 1, np.nan)
    # A row for each night: that night, and those before it.
    rows, explained = (sliding_window_view(np.append(earlier, each), usual)[:, ::-1] for each in (figures, variances))
    nights = np.isfinite(rows).sum(axis=1, keepdims=True)
    explained = np.nanmean(explained, axis=1, keepdims=True)
    middles = (nights - 1) // 2  # rows are sorted with those that are missing at their end
    rows = rows - np.take_along_axis(np.sort(rows), middles, axis=1)
    deviation = np.take_along_axis(np.sort(np.abs(rows)), middles, axis=1)
    spread = np.maximum(_MAD * deviation, np.sqrt(explained))
    rows = np.nan_to_num(np.clip(rows, -_MOST_SPREADS * spread, _MOST_SPREADS * spread))
    since = np.arange(1, LONGEST + 1)
    before = np.maximum(nights - since, 1)
    of_since = np.cumsum(rows[:, :LONGEST], axis=1)
    of_before = rows.sum(axis=1, keepdims=True) - of_since
    squares = (rows**2).sum(axis=1, keepdims=True) - of_since**2 / since - of_before**2 / before
    variance = np.maximum(squares / np.maximum(nights - 2, 1), explained) * (1 / since + 1 / before)
    is_judged = (since >= 2) & (nights - since >= fewest_before) & (variance > 0)
    differences = (of_since / since - of_before / before) / np.sqrt(np.where(is_judged, variance, 1.0))
    differences = np.where(is_judged, differences, 0.0)
    return differences.max(axis=1), differences.argmax(axis=1) + 1
