"""A JSON value becomes exactly what its column holds, or is a misfit."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from etl.extract.parse import parse_json
from etl.model import schema
from etl.model.records import NumberLiteral
from etl.model.values import (
    MISFIT,
    Coercer,
    json_text,
    python_values,
    timestamp_or_none,
    to_bool,
    to_float,
    to_int,
    to_json,
    to_string,
    to_timestamp,
)

NOT_NUMBERS = [
    "", " ", "7 ", " 7", "7\n", "+7", "07", "-", ".5", "5.", "1e", "e3", "1_000", "1,000", "0x10", "٣", "\uff17", "²",
    "1/2", "NaN", "nan", "Infinity", "-inf", "true", "null", "1e1000", True, False, [], [1], {}, {"value": 1},
    NumberLiteral("NaN"), NumberLiteral("1e400"), NumberLiteral("9" * 5000), float("nan"), float("inf"), float("-inf"),
]  # fmt: skip


HELD: dict[Coercer, list[tuple[Any, Any]]] = {
    to_int: [
        (88.0, 88),
        (5.000000000000001e16, 50_000_000_000_000_010),
        (-1.2345678901234568e18, -1_234_567_890_123_456_800),
    ],
    to_float: [(-0.0, -0.0), (7, 7.0), ("1500", 1500.0), (NumberLiteral("-2.00000000000000000001"), -2.0)],
    to_bool: [(True, True), (False, False)],
    to_string: [("=SUM(A1)", "=SUM(A1)"), ("a\0b", "a\0b"), ("1500", "1500")],
    to_timestamp: [("2026-03-01T09:00:01.5Z", datetime(2026, 3, 1, 9, 0, 1, 500_000, tzinfo=UTC))],
    to_json: [({"b": 1, "a": [1.0, None, "é"]}, '{"b":1,"a":[1.0,null,"é"]}')],
}
"""What the laws seldom or never show."""
MISFITS: dict[Coercer, list[Any]] = {
    to_int: [
        *NOT_NUMBERS, 2.5, -0.1, 5e-324, 2**63, -(2**63) - 1, 2**64, 10**400, 2.0**63, 1e300,
        "2.5", "88.5", "1e-1", "9223372036854775808", "1e19", "1e400", "1e-999",
        NumberLiteral("2.00000000000000000001"), NumberLiteral("9223372036854775808.0"), NumberLiteral("1e-400"),
    ],
    to_float: [
        *NOT_NUMBERS, 2**53 + 1, -(2**53) - 1, 2**64 + 1, 10**400, "9007199254740993", "9007199254740993.0",
        "36028797018963970", "1e400", "-1e400", "1.5e308000",
        f"{10**308}.5", "0.1000000000000000000001", "3.14159265358979323846", "1e-999", "1e-324",
        NumberLiteral("9007199254740993.0"), NumberLiteral("1.00000000000000001e17"), NumberLiteral("1e-400"),
        NumberLiteral("1.2345e-320"), NumberLiteral("-1.5e-999"), NumberLiteral("1e9999"),
    ],
    to_bool: [
        0, 1, 1.0, "true", "True", "Passed", "", [], {}, NumberLiteral("NaN"),
    ],
    to_string: [
        "\ud800", "a\udfffb", "\ud83d\ude00", 7, 7.0, True, [], {}, NumberLiteral("NaN"), NumberLiteral("text"),
    ],
    to_timestamp: [
        "2026-03-01T09:00:01", "2026-03-01T09:00:01.123456", "2026-03-01", "2026-03-01 09:00:01Z",
        "2026-03-01t09:00:01z", "20260301T090001Z", "2026-W09-7T09:00:01Z", " 2026-03-01T09:00:01Z",
        "2026-03-01T09:00:01Z\n", "2026-03-01T09:00:01.Z", "2026-03-01T09:00:01,5Z", "2026-03-01T09:00:01.1234567Z",
        "2026-03-01T09:00:01.123456001Z", "2026-03-01T09:00:60Z", "2026-03-01T09:60:00Z", "2026-03-01T24:00:00Z",
        "2026-03-01T25:00:00Z", "2026-03-01T09:00:01+24:00", "2026-03-01T09:00:01+05:60", "2026-03-01T09:00:01+0530",
        "2026-03-01T09:00:01 UTC", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
        "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "-2026-03-01T09:00:01Z",
        "٢٠٢٦-03-01T09:00:01Z", "", 1_772_355_601, 1_772_355_601.5, "1772355601", True, {}, NumberLiteral("1e400"),
    ],
    to_json: [
        "{}", "[]", 7, 7.5, True, NumberLiteral("NaN"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("coercer", "value", "held"), [(each, *pair) for each in HELD for pair in HELD[each]])
def test_value_that_its_column_holds_becomes_exactly_that(coercer, value, held):
    """To the type, the zone, and the sign of a zero."""
    result = coercer(value)
    assert (repr(result), type(result)) == (repr(held), type(held))


@pytest.mark.parametrize(("coercer", "value"), [(each, value) for each in MISFITS for value in MISFITS[each]])
def test_value_that_its_column_cannot_hold_exactly_is_a_misfit(coercer, value):
    assert coercer(value) is MISFIT


def test_a_time_that_cannot_be_read_is_none_where_none_is_asked_for():
    assert timestamp_or_none("yesterday") is None
    assert timestamp_or_none(None) is None
    assert timestamp_or_none("2026-03-01T09:00:01Z") == datetime(2026, 3, 1, 9, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, [{"a": ["x", "\ud83d"]}, 1.5, None]])
def test_json_text_of_a_string_that_utf8_cannot_hold_keeps_its_escapes(value):
    text = json_text(value)
    assert json.loads(text) == value
    assert text.isascii()


@pytest.mark.parametrize("literal", ["NaN", "-Infinity", "1e400", "-1.5E999", "9" * 5000])
def test_json_text_of_a_number_that_readers_refuse_keeps_it_as_a_string(literal):
    """Polars gives up the whole text for one 1e400, Python's json for an integer of 5,000 digits."""
    payload = parse_json(f'{{"a": [{literal}]}}'.encode())
    assert json_text(payload) == f'{{"a":["{literal}"]}}'
    assert json_text({"\ud800": payload}) == f'{{"\\ud800":{{"a":["{literal}"]}}}}'


@pytest.mark.parametrize(
    "literal", ["9007199254740993.0", "1e-400", "0.1000000000000000055511151231257827", "1E5", "0." + "3" * 1000]
)
def test_json_text_keeps_every_digit_of_a_number_as_it_was_written(literal):
    payload = parse_json(f'{{"a": [{literal}]}}'.encode())
    assert json_text(payload) == f'{{"a":[{literal}]}}'
    assert json_text({"\ud800": payload}) == f'{{"\\ud800":{{"a":[{literal}]}}}}'


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (
            [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), None, datetime(9999, 12, 31, tzinfo=UTC)],
            schema.TIMESTAMP,
        ),
        (["a", None], schema.STRING),
        ([0.1, None], schema.FLOAT),
    ],
)
def test_values_of_a_column_are_those_that_pyarrow_gives(values: list[Any], kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(values, kind), pa.array(values, kind)])
    assert python_values(column) == [*values, *values] == column.to_pylist()
