"""A verdict says no more than its interval, and a limit is judged only by calls that could have told."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.compare.estimate import difference
from etl.compare.statistics import Difference, Interval, Outcome, Sample, Verdict
from etl.model.metrics import Limit, Statistic

TEN_PERCENT = Limit(0.1, is_relative=True)


@given(st.tuples(*[st.floats(-9, 9)] * 3).map(sorted), st.floats(0, 9), st.floats(0, 9))
def test_metric_that_is_worse_when_lower_is_judged_as_its_mirror_image_and_only_beyond_doubt(bounds, amount, reach):
    low, value, high = bounds
    mirrored = Interval(-value, -high, -low)
    outcomes = []
    same: Any = {"baseline": 1.0, "candidate": 1.0, "baseline_calls": 20, "candidate_calls": 20, "reach": reach}
    for interval, is_higher_worse in ((Interval(value, low, high), True), (mirrored, False)):
        result = Difference(**same, is_higher_worse=is_higher_worse, difference=interval)
        outcome = result.against(Limit(amount, is_relative=False))
        assert (outcome is Outcome.EXCEEDED) == (low > amount)
        assert outcome is not Outcome.KEPT or (value <= amount and (high <= amount or reach <= amount + 1e-9))
        outcomes.append((result.verdict, outcome))
    assert outcomes[0] == outcomes[1]
    assert (outcomes[0][0] is Verdict.WORSE) == (low > 0)


def test_metric_that_a_side_lacks_has_no_number_of_calls_that_would_do():
    result = difference(Sample.of(np.empty(0)), Sample.of(np.ones(50)), Statistic.MEAN, is_higher_worse=True)
    assert (result.calls_needed(TEN_PERCENT), result.detects(TEN_PERCENT)) == (None, math.inf)


def test_more_calls_are_not_promised_to_help_where_days_differ():
    rng = np.random.default_rng(12)
    executions = np.repeat(np.arange(12), 50)
    before = Sample.of(rng.lognormal(0, 0.1, 600) * rng.lognormal(0, 0.3, 12)[executions], executions)
    after = before.only(executions == 3)
    assert difference(before, after, Statistic.MEAN, is_higher_worse=True).calls_needed(TEN_PERCENT) is None


@pytest.mark.parametrize("statistic", [Statistic.MEAN, Statistic.RATE])
def test_so_many_calls_as_are_needed_find_what_they_should(statistic):
    """What is told of few calls comes true with so many: a change of twice the limit is found in 9 of 10 cases."""
    rng = np.random.default_rng(6)

    def sides(count, by):
        if statistic is Statistic.RATE:
            return tuple(Sample.of((rng.random(count) < share).astype(np.float64)) for share in (0.2, 0.2 + by))
        return tuple(Sample.of(rng.lognormal(0, 0.5, count) * factor) for factor in (1, 1 + by))

    limit = Limit(0.1, is_relative=statistic is not Statistic.RATE)

    def told(count, by):
        one, other = sides(count, by)
        return difference(one, other, statistic, is_higher_worse=True)

    needed = told(200, 0.0).calls_needed(limit)
    assert needed
    found = [told(needed, 0.2) for _ in range(200)]
    exceeded = sum(each.against(limit) is Outcome.EXCEEDED for each in found) / len(found)
    assert 0.75 < exceeded < 0.98
    assert np.median([each.detects(limit) for each in found]) == pytest.approx(0.2, rel=0.15)


def test_limit_is_kept_only_by_calls_that_would_show_twice_as_much():
    rng = np.random.default_rng(8)
    few, many = ([Sample.of(rng.lognormal(0, 0.4, count)) for _ in range(2)] for count in (30, 3000))
    outcomes = [
        difference(one, other, Statistic.MEAN, is_higher_worse=True).against(TEN_PERCENT) for one, other in (few, many)
    ]
    assert outcomes == [Outcome.NOT_JUDGED, Outcome.KEPT]
    better = difference(few[0], Sample.of(few[1].values / 3), Statistic.MEAN, is_higher_worse=True)
    assert better.against(TEN_PERCENT) is Outcome.KEPT
