"""A metric is called worse after some bad nights, and hardly ever without them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.nights import USUAL, WORLDS, delays, false_alarms, limit_of, sample
from etl.compare.nights import FEWEST_NIGHTS, LONGEST, NIGHTS_BEFORE, figures_of_nights, find_alarms, threshold
from etl.compare.statistics import Sample
from etl.model.metrics import Statistic
from tests.support import examples

LIMIT = limit_of()


def alarms_of(rng, nights, *, worse_from=None, worse_until=None, factor=1.3):
    """Those of nights of 30 calls, some of which are worse."""
    levels = np.zeros(nights)
    if worse_from is not None:
        levels[worse_from:worse_until] = np.log(factor)
    return alarms_in(sample(rng, "latency_mean", levels))


def alarms_in(made, statistic=Statistic.MEAN):
    figures, variances = figures_of_nights(made, statistic)
    return find_alarms(figures, variances, LIMIT)


def test_false_alarms_are_rare_and_changes_are_found_within_a_week():
    """Seeded: the quick form of a table in decision 12."""
    assert sum(false_alarms(USUAL, years=1).values()) <= 2
    for changed in ("20% slower", "pass rate 90% to 75%"):
        assert np.median(delays(USUAL, changed, changes=60)) <= 7, changed


@pytest.mark.parametrize("world", WORLDS[6:10], ids=lambda world: world.name)
def test_neither_hung_calls_nor_outages_hide_a_change(world):
    assert np.mean(np.isinf(delays(world, "20% slower", changes=60))) <= 0.02
    assert np.mean(np.isinf(delays(world, "pass rate 90% to 75%", changes=60))) <= 0.02


def test_scenarios_that_come_and_go_hide_no_change():
    """Those that came since it began have never been otherwise."""
    assert np.mean(np.isinf(delays(WORLDS[11], "20% slower", changes=60))) <= 0.05


def test_alarm_says_since_when_and_stands_until_nights_are_as_before_or_that_is_usual():
    """A night or two before may have been bad by chance."""
    rng = np.random.default_rng(1)
    (stands,) = alarms_of(rng, 45, worse_from=40)
    (over,) = alarms_of(rng, 80, worse_from=40, worse_until=48)
    (usual,) = alarms_of(rng, 40 + LONGEST + 10, worse_from=40)
    for alarm in (stands, over, usual):
        assert 37 <= alarm.since <= 40 < alarm.told_at <= 44
    assert stands.ended_at is None
    assert over.ended_at
    assert 47 <= over.ended_at <= 50
    assert usual.ended_at == usual.since + LONGEST
    assert [alarm.is_normal for alarm in (stands, over, usual)] == [False, False, True]


@given(st.integers(0, 2**32 - 1), st.floats(2, 100))
@settings(max_examples=examples(60))
def test_one_night_alone_is_no_alarm_however_bad(seed, factor):
    rng = np.random.default_rng(seed)
    night = int(rng.integers(FEWEST_NIGHTS, 40))
    found = alarms_of(rng, 40, worse_from=night, worse_until=night + 1, factor=factor)
    assert not [alarm for alarm in found if alarm.told_at == night]


@pytest.mark.parametrize("nights", [1, 8])
def test_bad_nights_that_are_over_hide_no_change(nights):
    """One of them would make all others look usual, and so would a regression that was fixed."""
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        levels = np.zeros(70)
        levels[30 : 30 + nights], levels[60:] = np.log(3), np.log(1.3)
        found.append(any(alarm.since >= 57 for alarm in alarms_in(sample(rng, "latency_mean", levels))))
    assert np.mean(found) >= 0.9


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 1000))
@settings(max_examples=examples(60))
def test_neither_units_nor_nights_without_calls_change_an_alarm(seed, unit):
    rng = np.random.default_rng(seed)
    made = sample(rng, "latency_mean", np.where(np.arange(50) >= 40, 0.3, 0.0))
    gap = int(rng.integers(1, 50))
    later = Sample(made.values * unit, made.executions + 3 * (made.executions >= gap), made.scenarios)
    for one, other in zip(*(alarms_in(each) for each in (made, later)), strict=True):
        assert other.since == one.since + 3 * (one.since >= gap)
        assert other.told_at == one.told_at + 3 * (one.told_at >= gap)


def test_more_calls_of_a_slow_scenario_are_no_worse_night():
    rng = np.random.default_rng(3)
    made = sample(rng, "latency_mean", np.zeros(60))
    slow = made.scenarios == 4
    made = Sample(np.where(slow, 3.0, 1.0) * made.values, made.executions, made.scenarios)
    more = made.only(np.concatenate([np.arange(len(made)), *[np.flatnonzero(slow & (made.executions >= 50))] * 9]))
    assert alarms_in(more) == []


@pytest.mark.parametrize("statistic", [Statistic.MEAN, Statistic.RATE])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nights_that_are_all_the_same_are_no_alarm(statistic, value):
    same = Sample.of(np.full(600, value), np.repeat(np.arange(60), 10))
    assert alarms_in(same, statistic) == []


def test_values_may_be_zero_or_negative():
    rng = np.random.default_rng(9)
    nights = np.repeat(np.arange(60), 30)
    values = rng.normal(0, 1, len(nights)) + 2 * (nights >= 50)
    (found,) = alarms_in(Sample.of(values, nights))
    assert found.since == 50


def test_threshold_is_higher_for_more_metrics_and_fewer_false_alarms():
    rarer_and_rarer = ((1, 10), (1, 1), (200, 1), (200, 0.1))
    limits = [threshold(metrics, false_alarms_per_year=rate) for metrics, rate in rarer_and_rarer]
    assert limits == sorted(limits)
    assert 1 < limits[0] < limits[-1] < 7


def test_few_nights_before_tell_nothing():
    rng = np.random.default_rng(2)
    assert alarms_of(rng, FEWEST_NIGHTS + 5, worse_from=FEWEST_NIGHTS - 1, factor=5) == []
    assert NIGHTS_BEFORE > FEWEST_NIGHTS
