"""Calls are compared by what they played, and what is not compared is told."""

import pyarrow as pa

from etl.compare.pairing import SCENARIO_COLUMNS, paired


def calls(*played):
    """Calls of a scenario by its id, and of a row of it."""
    rows = [dict(zip(SCENARIO_COLUMNS, (one, one and one.upper(), row), strict=True)) for one, row in played]
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in SCENARIO_COLUMNS]))


def test_scenarios_that_both_sides_have_are_compared_and_the_others_named():
    before = calls(*[("a", None)] * 3, *[("b", None)] * 4, ("c", None), (None, None))
    after = calls(*[("b", None)] * 2, ("a", None), ("d", None))
    pairing, (old, new) = paired([before, after])
    assert (pairing.is_paired, pairing.common, pairing.are_rows) == (True, 2, False)
    assert pairing.left_out == [
        "the comparison leaves out 1 call of 1 scenario found only in the baseline",
        "the comparison leaves out 1 call of the baseline without a scenario",
        "the comparison leaves out 1 call of 1 scenario found only in the candidate",
    ]
    assert [pairing.names[number] for number in new] == ["B", "B", "A", "D"]
    assert (old[:3] == new[2]).all()
    assert old[-1] == -1


def test_rows_are_compared_where_both_sides_have_them_and_else_their_scenarios():
    rows = [("a", str(number % 5)) for number in range(20)]
    pairing, _ = paired([calls(*rows), calls(*rows)])
    assert (pairing.are_rows, pairing.common) == (True, 5)
    assert pairing.text == "scenario row by scenario row (5 that both sides have)"
    edited = [("a", f"edited {number}") if number % 5 == 0 else (name, row) for number, (name, row) in enumerate(rows)]
    pairing, _ = paired([calls(*rows), calls(*edited)])
    assert (pairing.are_rows, pairing.common) == (False, 1)
    assert pairing.text == "scenario by scenario (1 that both sides have)"


def test_nights_are_compared_by_scenario_as_rows_may_differ_in_each():
    pairing, (numbers,) = paired([calls(*[("a", str(number)) for number in range(9)])])
    assert (pairing.are_rows, numbers.tolist()) == (False, [0] * 9)


def test_no_scenario_in_common_is_told_with_what_to_do():
    pairing, _ = paired([calls(("a", None)), calls(("b", None))])
    assert pairing.common == 0
    assert pairing.left_out[-1].endswith("no scenario in common. To compare all calls together, add --unpaired")


def test_without_scenarios_all_calls_are_compared_together():
    known, unknown = calls(("a", None)), calls((None, None), (None, None))
    for sides, is_wanted in (([known, unknown], True), ([known, known], False)):
        pairing, numbers = paired(sides, is_wanted=is_wanted)
        assert (pairing.is_paired, pairing.left_out) == (False, ())
        assert [each.tolist() for each in numbers] == [[0] * len(side) for side in sides]
