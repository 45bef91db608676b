"""JSON in, Python values out, with every digit and every field, or not at all."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.extract.parse import parse_json
from etl.model.records import NumberLiteral

document = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@pytest.mark.parametrize(
    "literal",
    [
        "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 5000, "-" + "9" * 5000,
        "1e-400", "9007199254740993.0", "36028797018963970.0", "3.602879701896397e+16", "2.00000000000000000001",
        "0.1000000000000000055511151231257827", "1E5", "0." + "3" * 1000, "1e99999999999999999999",
    ],
)  # fmt: skip
def test_number_that_python_might_change_stays_as_written(literal):
    [value] = parse_json(f"[{literal}]".encode())
    assert value == literal
    assert type(value) is NumberLiteral


@pytest.mark.parametrize(
    "number", [0, -1, 2**63, 2**64, 2**53 + 1, -(10**3990), 0.1, 88.0, 0.30000000000000004, 1000000000000000.5, 5e-324]
)
def test_number_that_python_can_hold_is_exact(number):
    [value] = parse_json(json.dumps([number]).encode())
    assert value == number
    assert type(value) is type(number)


def test_text_is_kept():
    for text in ("🙂", "nul\0", ":", '":', '\\":', unicodedata.normalize("NFD", "é"), "\ud800"):
        assert parse_json(json.dumps([text]).encode()) == [text]
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@given(document)
def test_what_comes_out_is_what_was_sent(document):
    for body in (json.dumps(document).encode(), json.dumps(document, indent=1, ensure_ascii=False).encode()):
        assert as_python(parse_json(body)) == document


def test_fractions_with_a_fixed_number_of_digits_are_read_fast(monkeypatch):
    monkeypatch.setattr("etl.extract.parse._decode_slowly", None)
    body = (
        b'{"cost": 8.50, "rates": [0.00, -12.340, 100.0], "at": "2026-11-30T02:00:00.000000Z", "why": "0.50 is fine"}'
    )
    assert parse_json(body) == json.loads(body)
    with pytest.raises(TypeError):  # where a text seems to have such a number
        parse_json(b'{"cost": 8.50, "reason": "0.50, I think"}')


def as_python(value):
    if isinstance(value, dict):
        return {name: as_python(each) for name, each in value.items()}
    if isinstance(value, list):
        return [as_python(each) for each in value]
    return float(value) if isinstance(value, NumberLiteral) else value


@pytest.mark.parametrize(
    "body", [b'{"a": 1, "a": 1}', b'{"a":1,"b":{"c":[{"d":1,"d":2}]}}', b'{"a":1,"\\u0061":":"}', b'{"":"","":":"}']
)
def test_object_with_two_fields_of_one_name_is_refused(body):
    """Whichever of the two is taken, the other one is lost without a word."""
    with pytest.raises(ValueError, match="two fields with the same name"):
        parse_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1,]",
        b"[1] 2",
        b'"\x00"',
        b'["\xff"]',
        b'["\xed\xa0\x80"]',
        b"[01]",
        b"[.5]",
        b"nan",
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_in_utf8_or_without_an_end_is_refused(body):
    with pytest.raises((ValueError, RecursionError)):
        parse_json(body)
