"""Whether a metric has got worse for some nights, with so few false alarms a year as are wanted. Pure.

A night is a day on which executions began. Its figure is taken in relation to what its scenarios lead to expect, and
scored by the nights before. A one-sided CUSUM adds up the scores: bad nights raise the sum, usual ones bring it back to
zero, and above a threshold it is an alarm, which one night alone cannot raise. Decision 12 has the sources, and how
often the procedure is wrong.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from etl.compare.statistics import Sample, Values, bisect
from etl.model.metrics import Statistic

NIGHTS_BEFORE = 56
"""A night is compared with this number of nights before it at most, and with ``FEWEST_NIGHTS`` at least."""
FEWEST_NIGHTS = 10
LONGEST = 28
"""After this number of nights a change is what is usual."""
_ALLOWANCE = 1.0
"""What each night takes off the sum: a score has to be above it to raise the sum."""
_ALLOWANCE_FOR_DAYS = 0.6
"""What it takes off beside, as far as calls do not explain how nights differ: such nights resemble their neighbors."""
_HIGHEST_SCORE = 3.5
"""A higher score counts as this, so that one night alone is never an alarm."""
_SAFETY = 1.5
"""The mean number of nights until a false alarm has to be this many times what the setting asks for."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A change for the worse. Nights are numbered from 0, those without calls, too."""

    since: int
    """The first night of the change."""
    told_at: int
    """The night that showed it."""
    ended_at: int | None = None
    """The first night that is no longer part of it; None while it stands."""


@dataclass(frozen=True, slots=True)
class _Night:
    """A night with calls. Figures are on the scale of ``figures_of_nights``, on which higher is worse."""

    figure: float
    variance: float
    """What its number of calls explains."""
    capped: float
    """The figure, as far as it counts once it is one of the nights before: one odd night hides no change."""


def threshold(metrics: int, *, false_alarms_per_year: float) -> float:
    """How high the sum of scores has to rise for an alarm, where this number of metrics is judged every night.

    By Siegmund's formula for the mean number of nights until a CUSUM raises a false alarm.
    """
    nights = _SAFETY * 365 * max(1, metrics) / false_alarms_per_year

    def is_below(sum_: float) -> bool:
        reach = 2 * _ALLOWANCE * (sum_ + 1.166)
        return (math.exp(reach) - reach - 1) / (2 * _ALLOWANCE**2) < nights

    return max(bisect(is_below, 0.0, 50.0), _HIGHEST_SCORE - _ALLOWANCE)  # which one night alone cannot pass


def figures_of_nights(sample: Sample, statistic: Statistic) -> tuple[Values, Values]:
    """For each night a figure, on a scale on which nights vary alike, and the variance that its calls explain.

    ``executions`` of the sample are numbers of nights. A figure sets what was observed against what the means of the
    night's scenarios lead to expect: the logarithm of their ratio; for a rate, the arcsine of the root of the adjusted
    rate (Anscombe); where values may be zero or less, the difference. NaN for a night without calls.
    """
    is_rate = statistic is Statistic.RATE
    values, scenarios = sample.values, sample.scenarios + 1  # -1, for none, is a number like others then
    is_turned = is_rate and values.mean() > 0.5  # the rarer of both outcomes tells
    values = 1 - values if is_turned else values
    scenario_means = np.bincount(scenarios, values) / np.maximum(np.bincount(scenarios), 1)
    levels = scenario_means[scenarios]
    calls = np.bincount(sample.executions)
    observed, expected = np.bincount(sample.executions, values), np.bincount(sample.executions, levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(expected > 0, observed / expected, np.where(calls > 0, 1.0, np.nan))
        if is_rate:
            hits = calls * np.minimum(values.mean() * ratio, 1.0)
            figures = np.arcsin(np.sqrt((hits + 0.375) / (calls + 0.75)))
            return -figures if is_turned else figures, 1 / (4 * calls + 2)
        if np.min(values) >= 0 and np.min(observed[calls > 0]) > 0:
            deviations = values / np.where(levels > 0, levels, 1.0) - (levels > 0)
            return np.log(ratio), np.mean(deviations**2) / calls
        return (observed - expected) / calls, np.mean((values - levels) ** 2) / calls


def find_alarms(figures: Values, variances: Values, limit: float) -> list[Alarm]:
    """The alarms of all nights, oldest first, where higher figures are worse; only the last may still stand.

    A change begins when the sum of scores leaves zero, and raises an alarm above ``limit``. It is over when the sum is
    back at zero or, since it is what is usual now, after ``LONGEST`` nights. A night is compared with the nights before
    the change, but not with those of an alarm that is over.
    """
    alarms: list[Alarm] = []
    usual: list[_Night] = []  # the nights before, with which a night is compared
    pending: list[_Night] = []  # the nights since the sum was zero
    total, since = 0.0, 0  # the sum of scores, and the night on which it left zero
    stands = False
    for night in np.flatnonzero(np.isfinite(figures)).tolist():
        figure, variance = float(figures[night]), float(variances[night])
        is_usual_now = len(pending) > LONGEST
        if total == 0 or is_usual_now:
            if stands:
                alarms[-1] = replace(alarms[-1], ended_at=night)
            if is_usual_now:
                usual = [replace(earlier, capped=earlier.figure) for earlier in pending]
            elif not stands:
                usual = [*usual, *pending][-NIGHTS_BEFORE:]
            total, since = 0.0, night
            stands, pending = False, []
        if len(usual) < FEWEST_NIGHTS:
            pending.append(_Night(figure, variance, capped=figure))
            continue
        score, capped, unexplained = _judge(figure, variance, usual)
        pending.append(_Night(figure, variance, capped))
        total += score - _ALLOWANCE - _ALLOWANCE_FOR_DAYS * unexplained
        total = min(max(total, 0.0), limit + _ALLOWANCE)
        if total > limit and not stands:
            stands = True
            alarms.append(Alarm(since, told_at=night))
    if stands and total == 0:
        alarms[-1] = replace(alarms[-1], ended_at=night + 1)
    return alarms


def _judge(figure: float, variance: float, usual: list[_Night]) -> tuple[float, float, float]:
    """How bad a night is beside the usual ones: its score, its capped figure, and their unexplained share of variance.

    The score is a quantile of the normal distribution, ``_HIGHEST_SCORE`` at most; the capped figure lies no farther
    from the mean than that. Unexplained is what the usual nights differ by beyond what their numbers of calls explain.
    """
    mean = sum(night.capped for night in usual) / len(usual)
    explained = sum(night.variance for night in usual) / len(usual)
    squares = sum(night.capped**2 for night in usual) - len(usual) * mean**2
    observed = max(0.0, squares) / (len(usual) - 1)
    unexplained = max(0.0, 1 - explained / observed) if observed > 0 else 0.0
    # A night of fewer calls varies more, and the mean of the usual nights is uncertain, too.
    expected = math.sqrt((max(observed, explained) + max(0.0, variance - explained)) * (1 + 1 / len(usual)))
    score = _normal_score((figure - mean) / expected, len(usual) - 1) if expected > 0 else 0.0
    most = _HIGHEST_SCORE * expected
    return min(score, _HIGHEST_SCORE), min(max(figure, mean - most), mean + most), unexplained


def _normal_score(t: float, freedom: int) -> float:
    """The quantile of the normal distribution that is as likely as ``t`` is of Student's t distribution (Wallace)."""
    return math.copysign((8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom)), t)
