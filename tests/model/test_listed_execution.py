"""What is kept of a listed execution: what a plan reads, and the payload, exactly as it was listed."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.extract.parse import parse_json
from etl.model.listed_execution import ListedExecution, call_counts
from etl.model.records import Execution, NumberLiteral
from tests.bundles import as_listed, execution, recorded_cases, recorded_executions
from tests.strategies import any_text, json_values


def unpacked(payload):
    return as_listed(Execution(execution_id="e", status="completed", payload=payload)).unpack().payload


@settings(max_examples=300)
@given(st.dictionaries(any_text, json_values, max_size=4))
@example(
    {
        "literal": NumberLiteral("1e400"),
        "text": "1e400",
        "nested": [NumberLiteral("NaN"), {"a": NumberLiteral("1.0e2")}],
    }
)
@example(
    {
        "whole": 2**63,
        "largest": 2**64 - 1,
        "beyond": 2**64,
        "below": -(2**63) - 1,
        "fraction": 1.0,
        "zero": -0.0,
        "small": 1e-7,
    }
)
@example({"surrogate": "\ud800", "\udfff": True, "control": "\x00", "order": {"b": 1, "a": 2}})
def test_payload_comes_back_as_it_was(payload):
    assert repr(unpacked(payload)) == repr(payload)
    assert types_in(unpacked(payload)) == types_in(payload)


def types_in(value):
    if isinstance(value, dict):
        return [dict, *(types_in(each) for each in value.values())]
    return [list, *map(types_in, value)] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("case", recorded_cases("run_test_name", "metrics"))
def test_recorded_executions_are_packed_and_come_back(case):
    for listed in recorded_executions(case).results:
        packed = as_listed(listed)
        assert isinstance(packed.packed, bytes)
        assert packed.unpack() == listed


def test_number_with_digits_that_a_double_may_lose_is_packed_and_keeps_them():
    payload = parse_json(b'{"a": 9007199254740993.0, "b": 1e400}')
    listed = as_listed(Execution(execution_id="e", status="completed", payload=payload))
    assert isinstance(listed.packed, bytes)
    assert repr(listed.unpack().payload) == repr(payload)


@pytest.mark.parametrize("number", [2**63, 10**400, -1, -1.0, True, None, 7.5, "many"])
def test_number_of_calls_that_its_column_cannot_hold_counts_nothing(number):
    payload = {"metrics": {"calls": {"total": number}}, "total_calls": 3}
    assert call_counts(payload) == [3]
    assert call_counts({"total_calls": 2**63 - 1}) == [2**63 - 1]


@pytest.mark.parametrize("number", [7.0, "7", NumberLiteral("7.0")])
def test_number_of_calls_counts_in_each_notation_that_its_column_takes(number):
    assert call_counts({"total_calls": number}) == [7]


def test_payload_that_was_let_go_is_missed_with_a_word():
    with pytest.raises(ValueError, match="execution e: its payload was dropped"):
        ListedExecution.of(execution("e")).unpack()
