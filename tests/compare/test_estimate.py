"""How much two samples differ: laws of the estimate, and how often a verdict on it is right."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.regressions import ANY, WORLDS, ScenarioWorld, chances, day_alarms, scenario_alarms
from etl.compare.estimate import difference
from etl.compare.statistics import FEWEST, FEWEST_EXECUTIONS, Outcome, Sample, Verdict
from etl.model.metrics import Limit, Statistic
from tests.support import examples

SMALLEST = max(FEWEST.values())
TEN_PERCENT = Limit(0.1, is_relative=True)
numbers = st.one_of(st.floats(-1e9, 1e9).map(lambda value: round(value, 3)), st.integers(0, 5).map(float), st.just(0.0))
statistics = st.sampled_from(Statistic)
directions = st.booleans()


@st.composite
def samples(draw, statistic, *, least=0):
    values = st.sampled_from([0.0, 1.0]) if statistic is Statistic.RATE else numbers
    made = np.array(draw(st.lists(values, min_size=least, max_size=SMALLEST + 20)), dtype=np.float64)
    executions = draw(st.lists(st.integers(0, 7), min_size=len(made), max_size=len(made)))
    lowest, highest = draw(st.sampled_from([-1, 0])), draw(st.integers(0, 12))
    scenarios = draw(st.lists(st.integers(lowest, highest), min_size=len(made), max_size=len(made)))
    return Sample(made, np.array(executions, dtype=np.int64), np.array(scenarios, dtype=np.int64))


@st.composite
def pairs(draw, *, least=0):
    statistic = draw(statistics)
    return draw(samples(statistic, least=least)), draw(samples(statistic, least=least)), statistic, draw(directions)


def found(before, after, statistic, is_higher_worse):
    one, other = (each if isinstance(each, Sample) else Sample.of(each) for each in (before, after))
    return difference(one, other, statistic, is_higher_worse=is_higher_worse)


@given(pairs())
@settings(max_examples=examples(200))
def test_metric_compared_with_itself_is_never_worse_nor_better(pair):
    values, _, statistic, is_higher_worse = pair
    itself = found(values, values, statistic, is_higher_worse)
    assert itself.verdict in (Verdict.UNCLEAR, Verdict.TOO_FEW)
    assert itself.against(Limit(0, is_relative=True)) is not Outcome.EXCEEDED


@given(pairs(), st.randoms(use_true_random=False))
@settings(max_examples=examples(200))
def test_nothing_depends_on_the_order_of_rows_and_the_same_data_gives_the_same_words(pair, random):
    before, after, statistic, is_higher_worse = pair
    orders = [np.array(random.sample(range(len(side)), len(side)), dtype=np.int64) for side in (before, after)]
    shuffled = [side.only(order) for side, order in zip((before, after), orders, strict=True)]
    expected = found(before, after, statistic, is_higher_worse)
    assert found(shuffled[0], shuffled[1], statistic, is_higher_worse) == expected


@given(pairs(least=SMALLEST), st.floats(0, 5), st.floats(0, 5))
@settings(max_examples=examples(200))
def test_value_interval_verdict_and_limits_agree(pair, one, other):
    before, after, statistic, is_higher_worse = pair
    result, turned = (found(before, after, statistic, each) for each in (is_higher_worse, not is_higher_worse))
    assume(result.difference is not None)
    for interval in (result.difference, result.change):
        assert interval.low <= interval.value <= interval.high
    assert statistic is not Statistic.RATE or -1 <= result.difference.low <= result.difference.high <= 1
    opposite = {Verdict.WORSE: Verdict.BETTER, Verdict.BETTER: Verdict.WORSE, Verdict.UNCLEAR: Verdict.UNCLEAR}
    assert turned.verdict is opposite[result.verdict]
    for is_relative in (False, True):
        is_beyond_any = result.against(Limit(0, is_relative=is_relative)) is Outcome.EXCEEDED
        assert not is_beyond_any or result.verdict is Verdict.WORSE
    narrow, wide = (Limit(each, is_relative=True) for each in sorted((one, other)))
    assert result.against(wide) is not Outcome.EXCEEDED or result.against(narrow) is Outcome.EXCEEDED


@pytest.mark.parametrize("statistic", Statistic)
def test_too_few_calls_are_told_and_their_values_shown(statistic):
    few, enough = np.ones(FEWEST[statistic] - 1), np.zeros(FEWEST[statistic])
    for before, after in ((few, enough), (enough, few)):
        result = found(before, after, statistic, is_higher_worse=True)
        assert (result.verdict, result.against(TEN_PERCENT)) == (Verdict.TOO_FEW, Outcome.NOT_JUDGED)
        assert (result.baseline, result.candidate) == (before.mean(), after.mean())
    assert found(enough, np.empty(0), statistic, is_higher_worse=True).candidate is None
    assert found(enough, enough, statistic, is_higher_worse=True).verdict is Verdict.UNCLEAR


def test_change_from_nothing_is_beyond_any_limit_and_none_is_no_change():
    nothing, something = np.zeros(100), np.full(100, 5.0)
    worse = found(nothing, something, Statistic.MEAN, is_higher_worse=True)
    assert worse.change is not None
    assert math.isinf(worse.change.value)
    assert worse.against(Limit(99, is_relative=True)) is Outcome.EXCEEDED
    assert found(nothing, nothing, Statistic.P95, is_higher_worse=True).against(TEN_PERCENT) is Outcome.KEPT


def test_values_at_the_end_of_what_a_double_holds_warn_of_nothing():
    huge, small = np.full(50, 1e308), np.full(50, -1e308)
    for statistic in (Statistic.MEAN, Statistic.MEDIAN, Statistic.P95):
        assert found(small, huge, statistic, is_higher_worse=True).verdict in (Verdict.WORSE, Verdict.UNCLEAR)
        assert found(huge, huge, statistic, is_higher_worse=True).verdict is Verdict.UNCLEAR


def test_rate_without_a_failure_leaves_doubt():
    none, few = np.zeros(30), np.array([1.0] * 2 + [0.0] * 28)
    result = found(none, few, Statistic.RATE, is_higher_worse=True)
    assert result.verdict is Verdict.UNCLEAR
    assert result.against(TEN_PERCENT) is Outcome.NOT_JUDGED


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rate_that_is_the_same_on_both_sides_is_never_worse_however_many_calls_one_of_them_has(share):
    """The doubt of 20 calls is larger than that of 100,000, and says nothing else."""
    many, few = np.full(100_000, share), np.full(20, share)
    for before, after in ((many, few), (few, many)):
        for is_higher_worse in (True, False):
            result = found(before, after, Statistic.RATE, is_higher_worse=is_higher_worse)
            assert result.verdict is Verdict.UNCLEAR
            assert result.against(TEN_PERCENT) in (Outcome.KEPT, Outcome.NOT_JUDGED)


@given(st.floats(0.001, 1000), st.integers(SMALLEST, 300), st.integers(SMALLEST, 300))
@settings(max_examples=examples(200))
def test_value_that_all_calls_have_is_no_difference_however_many_they_are(value, before, after):
    """The sums of 0.1 differ in the last digit."""
    for statistic in (Statistic.MEAN, Statistic.MEDIAN, Statistic.P95):
        result = found(np.full(before, value), np.full(after, value), statistic, is_higher_worse=True)
        assert result.verdict is Verdict.UNCLEAR
        assert result.difference is not None
        assert result.difference.value == 0


@pytest.mark.parametrize(("before", "after"), [(30, 30), pytest.param(20, 2000, marks=pytest.mark.slow)])
def test_mean_of_values_that_are_nearly_all_the_same_raises_few_false_alarms(before, after):
    """A sample where all are the same is not beyond doubt."""
    rng = np.random.default_rng(before)
    worse = beyond = 0
    for _ in range(200):
        one, other = ((rng.random(count) < 0.05).astype(np.float64) for count in (before, after))
        result = found(one, other, Statistic.MEAN, is_higher_worse=True)
        worse += result.verdict is Verdict.WORSE
        beyond += result.against(TEN_PERCENT) is Outcome.EXCEEDED
    assert worse <= 10
    assert beyond <= 10


def test_interval_of_many_calls_is_as_wide_as_theory_says():
    """Means are drawn from a thousand of them, and percentiles without drawing."""
    rng = np.random.default_rng(3)
    before, after = rng.normal(1000, 100, 50_000), rng.normal(1000, 100, 50_000)
    expected = {Statistic.MEAN: 1.0, Statistic.MEDIAN: math.sqrt(math.pi / 2), Statistic.P95: 2.113}
    for statistic, factor in expected.items():
        interval = found(before, after, statistic, is_higher_worse=True).difference
        assert interval is not None
        width = 2 * 1.96 * factor * 100 * math.sqrt(2 / 50_000)
        assert interval.high - interval.low == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize("statistic", Statistic)
def test_calls_that_are_alike_within_their_execution_count_for_fewer(statistic):
    """In one of ten executions everything is bad: that is one bad day, not a hundred bad calls."""
    rng = np.random.default_rng(5)
    executions = np.repeat(np.arange(10), 10)
    good, bad = rng.random(100) < 0.1, rng.random(100) < 0.1 + 0.8 * (executions == 3)
    before, after = (
        np.where(each, 1.0, 0.0) * (1 if statistic is Statistic.RATE else rng.random(100)) for each in (good, bad)
    )
    alone = found(before, after, statistic, is_higher_worse=True)
    grouped = found(Sample.of(before, executions), Sample.of(after, executions), statistic, is_higher_worse=True)
    assert alone.difference is not None
    assert grouped.difference is not None
    assert (grouped.baseline, grouped.candidate) == (alone.baseline, alone.candidate)
    width, apart = (each.difference.high - each.difference.low for each in (grouped, alone))
    assert width >= apart
    if statistic in (Statistic.RATE, Statistic.MEAN):
        assert width > 1.3 * apart


@pytest.mark.parametrize(
    ("baseline", "candidate"), [(5, 5), (10, 1), (28, 2), pytest.param(20, 20, marks=pytest.mark.slow)]
)
def test_slow_days_raise_few_false_alarms_where_executions_tell_of_them(baseline, candidate):
    worse, beyond = day_alarms(baseline, candidate, comparisons=200)
    assert worse <= 0.05
    assert beyond <= 0.03


def test_likeness_is_not_guessed_from_few_executions():
    rng = np.random.default_rng(5)
    executions = np.repeat(np.arange(FEWEST_EXECUTIONS - 1), 20)
    values = rng.random(len(executions)) + executions
    one = Sample.of(values[:20])
    told = found(Sample.of(values, executions), one, Statistic.MEAN, is_higher_worse=True)
    assert told == found(values, one, Statistic.MEAN, is_higher_worse=True)


def resampled(before, after, statistic, rng):
    """The interval by a bootstrap over scenarios, which are on both sides; of a rate's difference, or else a ratio."""
    count = len(np.unique(before.scenarios))
    share = {Statistic.MEDIAN: 0.5, Statistic.P95: 0.95}.get(statistic)
    by_scenario = [[side.values[side.scenarios == number] for number in range(count)] for side in (before, after)]
    found = []
    for chosen in rng.integers(0, count, (500, count)):
        drawn = (np.concatenate([values[number] for number in chosen]) for values in by_scenario)
        one, other = (np.mean(values) if share is None else np.quantile(values, share) for values in drawn)
        found.append(other - one if statistic is Statistic.RATE else np.log(other / one))
    return np.quantile(found, [0.025, 0.975])


@pytest.mark.parametrize("statistic", Statistic)
def test_paired_interval_is_that_of_resampled_scenarios(statistic):
    """On 100 data sets in the slow form, an independent implementation finds nearly the same bounds."""
    rng = np.random.default_rng(2)
    apart, wider = [], []
    for _ in range(examples(100)):
        calls = int(rng.integers(3, 9))
        world = ScenarioWorld(int(rng.integers(25, 60)), calls)
        made = world.sides(rng, float(rng.choice([0.0, 0.1, 0.3])), is_mix_shifted=False)
        sides = made["passed" if statistic is Statistic.RATE else "latency"]
        result = difference(sides[0], sides[1], statistic, is_higher_worse=True)
        interval = result.difference if statistic is Statistic.RATE else result.change
        assert interval is not None
        bounds = np.array([interval.low, interval.high])
        ours = bounds if statistic is Statistic.RATE else np.log1p(bounds)
        theirs = resampled(*sides, statistic, rng)
        apart.append(abs(ours.mean() - theirs.mean()) / np.ptp(theirs))
        wider.append(np.ptp(ours) / np.ptp(theirs))
    assert max(apart) < 0.5
    assert np.median(apart) < 0.15
    assert np.median(wider) == pytest.approx(1.05, abs=0.15)
    if statistic is not Statistic.P95:  # of a few dozen calls neither knows how far apart values lie out there
        assert 0.5 < min(wider) <= max(wider) < 2


@given(st.data(), statistics)
@settings(max_examples=examples(100))
def test_more_calls_of_one_scenario_are_no_change(data, statistic):
    """Where each scenario has the same values on both sides, however often."""
    values = data.draw(
        st.lists(st.sampled_from([0.0, 1.0]) if statistic is Statistic.RATE else numbers, min_size=3, max_size=8)
    )
    sides = []
    for _ in range(2):
        counts = data.draw(st.lists(st.integers(1, 60), min_size=len(values), max_size=len(values)))
        scenarios = np.repeat(np.arange(len(values)), counts)
        sides.append(Sample.of(np.array(values)[scenarios], scenarios=scenarios))
    result = difference(sides[0], sides[1], statistic, is_higher_worse=True)
    assert result.verdict in (Verdict.UNCLEAR, Verdict.TOO_FEW)
    assert result.verdict is Verdict.TOO_FEW or result.baseline == pytest.approx(result.candidate)


def _rare(rng, calls):
    return (rng.random(25 * calls) < 0.02).astype(np.float64)


def _with_a_gap(rng, calls):
    """Half of 25 scenarios takes three times as long, so the median lies where there are no calls."""
    return np.repeat(np.where(np.arange(25) < 12, 1.0, 3.0), calls) * rng.lognormal(0, 0.15, 25 * calls)


@pytest.mark.parametrize("scenarios", [25, 8])
@pytest.mark.parametrize(("values", "statistic"), [(_rare, Statistic.MEAN), (_with_a_gap, Statistic.MEDIAN)])
@pytest.mark.parametrize("sides", [(1, 10), (10, 1), (5, 5)])
def test_rare_values_and_gaps_decide_nothing_by_chance(values, statistic, scenarios, sides):
    """On one side no rare value may be seen, and calls of a scenario may all lie on one side of a gap."""
    rng = np.random.default_rng(11)
    told = 0
    for _ in range(100):
        before, after = (
            Sample.of(values(rng, calls), scenarios=np.repeat(np.arange(25) % scenarios, calls)) for calls in sides
        )
        found = difference(before, after, statistic, is_higher_worse=True)
        assert found.difference is not None
        assert np.isfinite([found.difference.value, found.difference.low, found.difference.high]).all()
        told += found.verdict is not Verdict.UNCLEAR
        assert found.against(TEN_PERCENT) is not Outcome.EXCEEDED or found.verdict is Verdict.WORSE
    assert told <= 8


def test_calls_without_a_scenario_or_of_one_that_the_other_side_lacks_are_not_compared():
    rng = np.random.default_rng(4)
    values, scenarios = rng.random(80), np.repeat(np.arange(4), 20)
    more = Sample.of(np.append(values, [9.0] * 40), scenarios=np.append(scenarios, np.repeat([-1, 7], 20)))
    alone = Sample.of(values, scenarios=scenarios)
    expected = difference(alone, alone, Statistic.MEAN, is_higher_worse=True)
    assert difference(alone, more, Statistic.MEAN, is_higher_worse=True) == expected


@pytest.mark.parametrize(
    "world", [WORLDS[1], *(pytest.param(each, marks=pytest.mark.slow) for each in WORLDS[2:])], ids=str
)
def test_scenarios_find_what_all_calls_together_miss_and_a_changed_mix_is_no_regression(world):
    """Seeded: the quick form of a table in decision 11."""
    comparisons = 200
    pooled, paired = (scenario_alarms(world, 0.2, comparisons=comparisons, is_paired=each) for each in (False, True))
    mixed = scenario_alarms(world, 0.0, comparisons=comparisons, is_mix_shifted=True)
    assert paired["latency_mean"][1] > pooled["latency_mean"][1] + 0.15
    for name, (worse, beyond) in mixed.items():
        assert worse <= 0.06, name
        assert beyond <= 0.02, name


@pytest.mark.parametrize("size", [25, *(pytest.param(size, marks=pytest.mark.slow) for size in (100, 400))])
def test_false_alarms_are_rare_and_a_regression_that_is_there_is_found(size):
    """Seeded: the quick form of the tables in decision 11."""
    for name, chance in chances(size, comparisons=100 if size == 400 else 200).items():
        assert chance.false_alarms <= 0.05 or name == ANY, name
        assert chance.false_alarms_of_limit <= 0.05, name
        if size == 400:
            assert chance.misses <= 0.05, name
