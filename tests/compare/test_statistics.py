"""A verdict says no more than its interval, and a limit is judged only by calls that could have told."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.compare.estimate import difference
from etl.compare.statistics import Difference, Estimate, Outcome, Sample, Verdict
from etl.model.metrics import Limit, Statistic

TEN_PERCENT = Limit(0.1, is_relative=True)


errors = st.floats(0, 5)


@given(st.floats(-9, 9), errors, st.floats(1, 200), st.floats(0, 9), st.integers(1, 9))
def test_limit_is_judged_by_the_bound_that_decides_and_a_metric_that_is_worse_when_lower_is_its_mirror_image(
    value, error, freedom, amount, limits
):
    told = []
    for sign in (1, -1):
        estimate = Estimate(sign * value, is_ratio=False, is_rate=False, error=error, freedom=freedom, fixed=0.0)
        same: Any = {"baseline": 1.0, "candidate": 1.0, "baseline_calls": 20, "candidate_calls": 20}
        result = Difference(**same, is_higher_worse=sign == 1, estimate=estimate)
        told.append((result.verdict, result.against(Limit(amount, is_relative=False), limits=limits)))
        bound = result.worsening(is_relative=False, certainty=0.95)
        assert bound is not None
        if told[-1][1] is Outcome.EXCEEDED:
            assert bound.low > amount
            assert told[-1][0] is Verdict.WORSE
        assert told[-1][1] is Outcome.EXCEEDED or (told[-1][1] is Outcome.KEPT) == (bound.high <= 2 * amount)
    assert told[0] == told[1]


def test_more_limits_fail_an_unchanged_agent_no_more_often():
    """One that is exactly at its limit fails in 1 of 20 cases, an unchanged one in 1 of 100, whatever is limited."""
    rng = np.random.default_rng(9)

    def failures(shift, limits, limit):
        noise = rng.normal(shift, 1, (4000, limits))
        estimates = [[Estimate(each, False, False, 1.0, 1e9, 0.0) for each in comparison] for comparison in noise]
        return np.mean([any(exceeds(each, limit, limits) for each in comparison) for comparison in estimates])

    def exceeds(estimate, limit, limits):
        result = Difference(
            baseline=1.0, candidate=1.0, baseline_calls=50, candidate_calls=50, is_higher_worse=True, estimate=estimate
        )
        return result.against(Limit(limit, is_relative=False), limits=limits) is Outcome.EXCEEDED

    assert failures(3.0, 1, 3.0) == pytest.approx(0.05, abs=0.012)
    for limits in (1, 6):
        assert failures(0.0, limits, 0.01) <= 0.015


@pytest.mark.parametrize("lacking", [0, 1])
def test_metric_that_a_side_lacks_is_not_judged_and_has_no_number_of_calls_that_would_do(lacking):
    sides = [Sample.of(np.empty(0)), Sample.of(np.ones(50))]
    result = difference(sides[lacking], sides[1 - lacking], Statistic.MEAN, is_higher_worse=True)
    assert (result.calls_needed(TEN_PERCENT), result.against(TEN_PERCENT)) == (None, Outcome.NOT_JUDGED)


def test_more_calls_are_not_promised_to_help_where_days_differ():
    rng = np.random.default_rng(12)
    executions = np.repeat(np.arange(12), 50)
    before = Sample.of(rng.lognormal(0, 0.1, 600) * rng.lognormal(0, 0.3, 12)[executions], executions)
    after = before.only(executions == 3)
    assert difference(before, after, Statistic.MEAN, is_higher_worse=True).calls_needed(TEN_PERCENT) is None


@pytest.mark.parametrize("statistic", [Statistic.MEAN, Statistic.RATE])
def test_so_many_calls_as_are_needed_judge_the_limit(statistic):
    """What is told of few calls comes true with so many: an unchanged agent passes, one at twice the limit hardly."""
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
    kept = {by: np.mean([told(needed, by).against(limit) is Outcome.KEPT for _ in range(400)]) for by in (0.0, 0.2)}
    assert 0.8 < kept[0.0] < 0.97
    assert kept[0.2] < 0.08
