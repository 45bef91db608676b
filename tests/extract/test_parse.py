"""JSON in, Python values out, with every digit and every field, or not at all."""

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.extract.parse import parse_json
from etl.model.records import NumberLiteral

FOR_THE_SLOW_PARSER = b'{"x": %s, "y": NaN}'

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
    for other in ("1", "NaN"):  # by either of the two parsers
        value = parse_json(f"[{literal}, {other}]".encode())[0]
        assert value == literal
        assert type(value) is NumberLiteral


@pytest.mark.parametrize(
    "number", [0, -1, 2**63, 2**64, 2**53 + 1, -(10**3990), 0.1, 88.0, 0.30000000000000004, 1000000000000000.5, 5e-324]
)
def test_number_that_python_can_hold_is_exact(number):
    for other in (b"1", b"NaN"):
        value = parse_json(b"[%s, %s]" % (json.dumps(number).encode(), other))[0]
        assert value == number
        assert type(value) is type(number)


def test_text_is_kept_whichever_parser_reads_it():
    for text in ("🙂", "nul\0", ":", '":', '\\":', unicodedata.normalize("NFD", "é")):
        for other in (b"1", b"NaN"):
            assert parse_json(b"[%s, %s]" % (json.dumps(text).encode(), other))[0] == text
    assert parse_json(b'["\\ud800"]') == ["\ud800"]
    assert parse_json(b'["\\u003a"]') == [":"]
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@given(document)
def test_both_parsers_say_what_was_sent(document):
    plain: Callable[[Any], bytes] = msgspec.json.encode
    for body in (plain(document), json.dumps(document).encode(), json.dumps(document, indent=1).encode()):
        assert as_python(parse_json(FOR_THE_SLOW_PARSER % body)["x"]) == as_python(parse_json(body)) == document


def as_python(value):
    if isinstance(value, dict):
        return {name: as_python(each) for name, each in value.items()}
    if isinstance(value, list):
        return [as_python(each) for each in value]
    return float(value) if isinstance(value, NumberLiteral) else value


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "a": 1}',
        b'{"a":1,"b":{"c":[{"d":1,"d":1}]}}',
        b'{"a": NaN, "a": 2}',
        b'{"a" :1,"a" :2}',
        b'{"a":"\\u003a","a":":"}',
        b'{"a":1,"\\u0061":"\\u003A"}',
        b'{"":"","":":"}',
    ],
)
def test_object_with_two_fields_of_one_name_is_refused(body):
    """Whichever of the two is taken, the other one is lost without a word."""
    with pytest.raises(ValueError, match="two fields with the same name"):
        parse_json(body)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[1,{"a":0,"b":', b"}]")])
def test_what_is_nested_too_deeply_is_refused(opening, closing):
    levels = len(closing)

    def nested(depth):
        return opening * (depth // levels) + b"1" + closing * (depth // levels)

    parse_json(nested(100))
    parse_json(b'"' + b"[" * 1000 + b'"')
    parse_json(b"[" + b"[],{}," * 1000 + b"0]")
    for depth in (102, 500, 10_000, 100_000):
        with pytest.raises((ValueError, RecursionError), match=r"nested more than 100 levels|recursion"):
            parse_json(nested(depth))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1,]", b"[1] 2", b'"\x00"', b'["\xff"]', b'["\xed\xa0\x80"]', b"[NaN, \xff]", b"[01]", b"[.5]", b"nan"]
)  # fmt: skip
def test_what_is_no_json_in_utf8_is_refused(body):
    with pytest.raises(ValueError, match=r"."):
        parse_json(body)
