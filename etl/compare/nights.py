"""Whether a metric has got worse for some nights, with so few false alarms a year as are wanted. Pure.

A night is a day on which executions began. Its figure is taken in relation to what its scenarios lead to expect, and scored by the
nights before. A one-sided CUSUM adds up the scores: bad nights raise it, usual ones bring it back to zero, and above a threshold
it is an alarm, which one night alone cannot raise. Decision 12 has the sources, and how often the procedure is wrong.
"""

import math
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np

from etl.compare.statistics import Sample, Values, bisect
from etl.model.metrics import Statistic

NIGHTS_BEFORE = 56
"""With so many nights at most the figure of a night is compared, and with ``FEWEST_NIGHTS`` at least."""
FEWEST_NIGHTS = 10
LONGEST = 28
"""After so many nights a change is what is usual."""
_ALLOWANCE, _ALLOWANCE_FOR_DAYS = 1.0, 0.6
_HIGHEST_SCORE = 3.5
_NIGHTS_A_YEAR = 365
_SAFETY = 1.5


@dataclass(frozen=True, slots=True)
class Alarm:
    """Numbers of nights: since when a metric is worse, which one showed it, and before which it ended; None: it stands."""

    since: int
    told_at: int
    ended_at: int | None = None


def threshold(metrics: int, *, false_alarms_per_year: float) -> float:
    """How high the sum has to be, where so many metrics are judged every night (Siegmund's formula)."""
    nights = _SAFETY * _NIGHTS_A_YEAR * max(1, metrics) / false_alarms_per_year

    def is_below(sum_: float) -> bool:
        reach = 2 * _ALLOWANCE * (sum_ + 1.166)
        return (math.exp(reach) - reach - 1) / (2 * _ALLOWANCE**2) < nights

    return max(bisect(is_below, 0.0, 50.0), _HIGHEST_SCORE - _ALLOWANCE)  # which one night alone cannot pass


def figures_of_nights(sample: Sample, statistic: Statistic) -> tuple[Values, Values]:
    """Of each night a figure on a scale on which nights vary alike, and the variance that its number of calls explains.

    ``executions`` of the sample are numbers of nights. The figure is observed over expected, by the means of the scenarios: its
    logarithm or, of a rate, the arcsine (Anscombe); where values may be zero or less, observed minus expected. NaN without calls.
    """
    is_rate = statistic is Statistic.RATE
    values, scenarios = sample.values, sample.scenarios + 1
    is_turned = is_rate and values.mean() > 0.5  # the rarer of both outcomes tells
    values = 1 - values if is_turned else values
    levels = (np.bincount(scenarios, values) / np.maximum(np.bincount(scenarios), 1))[scenarios]
    calls, observed, expected = (np.bincount(sample.executions, each) for each in (None, values, levels))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(expected > 0, observed / expected, np.where(calls > 0, 1.0, np.nan))
        if is_rate:
            hits = calls * np.minimum(values.mean() * ratio, 1.0)
            figures = np.arcsin(np.sqrt((hits + 0.375) / (calls + 0.75))) * (-1 if is_turned else 1)
            return figures, 1 / (4 * calls + 2)
        if np.min(values) >= 0 and np.min(observed[calls > 0]) > 0:
            return np.log(ratio), np.mean((values / np.where(levels > 0, levels, 1.0) - (levels > 0)) ** 2) / calls
        return (observed - expected) / calls, np.mean((values - levels) ** 2) / calls


def find_alarms(figures: Values, variances: Values, limit: float) -> list[Alarm]:
    """Those of all nights, where higher figures are worse; only the last may still stand.

    A change begins when the sum leaves zero; the nights before that are what is usual, but for those of an alarm that is over. How
    far a single one of them is off counts as far as its score.
    """
    nights = np.flatnonzero(np.isfinite(figures))
    found: list[Alarm] = []
    usual: list[tuple[float, float]] = []
    # Of each night since the sum was zero: its figure, that as far as it counts, its variance.
    pending: list[tuple[float, float, float]] = []
    total, since, stands = 0.0, 0, False
    for night, figure, variance in zip(
        nights.tolist(), figures[nights].tolist(), variances[nights].tolist(), strict=True
    ):
        if total == 0 or len(pending) > LONGEST:
            if stands:
                found[-1] = replace(found[-1], ended_at=night)
            if len(pending) > LONGEST:
                usual = [(each, explained) for each, _, explained in pending]
            elif not stands:
                usual = [*usual, *((each, explained) for _, each, explained in pending)][-NIGHTS_BEFORE:]
            total, since, stands, pending = 0.0, night, False, []
        if len(usual) < FEWEST_NIGHTS:
            pending.append((figure, figure, variance))
            continue
        before, explanations = zip(*usual, strict=True)
        mean, explained = sum(before) / len(usual), sum(explanations) / len(usual)
        spread = sum(map(pow, before, repeat(2))) - len(usual) * mean**2
        spread = max(0.0, spread) / (len(usual) - 1)
        unexplained = max(0.0, 1 - explained / spread) if spread > 0 else 0.0
        expected = math.sqrt((max(spread, explained) + max(0.0, variance - explained)) * (1 + 1 / len(usual)))
        score = _score((figure - mean) / expected, len(usual) - 1) if expected > 0 else 0.0
        most = _HIGHEST_SCORE * expected
        pending.append((figure, min(max(figure, mean - most), mean + most), variance))
        total += min(score, _HIGHEST_SCORE) - _ALLOWANCE - _ALLOWANCE_FOR_DAYS * unexplained
        total = min(max(total, 0.0), limit + _ALLOWANCE)
        if total > limit and not stands:
            stands = True
            found.append(Alarm(since, night))
    if stands and total == 0:
        found[-1] = replace(found[-1], ended_at=int(nights[-1]) + 1)
    return found


def _score(t: float, freedom: int) -> float:
    """The quantile of the normal distribution that is as likely as this one of Student's (Wallace)."""
    return math.copysign((8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom)), t)
