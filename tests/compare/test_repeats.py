"""pass^k and pass@k are what a count over all choices of k calls gives."""

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.compare.repeats import Repeated, repeats_of

outputs = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=40)


@given(outputs, st.integers(1, 4))
def test_estimates_are_shares_of_all_choices_of_k_calls(outputs: Sequence[tuple[str, bool]], most: int) -> None:
    found = repeats_of([name for name, _ in outputs], np.array([has_passed for _, has_passed in outputs]), most=most)
    by_scenario = {name: [passed for each, passed in outputs if each == name] for name in sorted({*dict(outputs)})}
    assert found.k == min(most, max(map(len, by_scenario.values()), default=most))
    choices = {name: list(combinations(passed, found.k)) for name, passed in by_scenario.items()}
    assert [(each.scenario, each.calls, each.passed) for each in found.scenarios] == [
        (name, len(passed), sum(passed)) for name, passed in by_scenario.items()
    ]
    for figure, has_passed in (("pass_power_k", all), ("pass_at_k", any)):
        expected = {name: fmean(map(has_passed, each)) if each else None for name, each in choices.items()}
        told = {each.scenario: getattr(each, figure) for each in found.scenarios}
        assert told == {name: value if value is None else pytest.approx(value) for name, value in expected.items()}
        of_all = [value for value in expected.values() if value is not None]
        assert getattr(found.whole, figure) == (pytest.approx(fmean(of_all)) if of_all else None)
    assert (found.whole.calls, found.whole.passed) == (len(outputs), sum(has_passed for _, has_passed in outputs))


def test_scenario_that_is_unknown_or_ran_less_often_than_k_has_no_estimate_and_is_not_in_the_mean() -> None:
    found = repeats_of(["a"] * 4 + ["b"] + [""] * 5, [1, 1, 1, 0] + [1] * 6)
    assert found.scenarios == [Repeated("", 5, 5), Repeated("a", 4, 3, 0.25, 1.0), Repeated("b", 1, 1)]
    assert (found.k, found.whole) == (3, Repeated("", 10, 9, 0.25, 1.0))
    assert repeats_of(["", ""], [1, 1]).whole.pass_power_k is None


@pytest.mark.parametrize(("scenarios", "calls", "is_telling"), [(9, 5, False), (10, 3, True), (10, 2, False)])
def test_few_scenarios_or_calls_tell_nothing_of_all(scenarios: int, calls: int, is_telling: bool) -> None:
    assert repeats_of(list(map(str, range(scenarios))) * calls, [1] * scenarios * calls).is_telling == is_telling
