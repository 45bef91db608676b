"""No coercer ever changes what a value says."""

import json
from datetime import UTC, date, timedelta
from decimal import Decimal
from fractions import Fraction

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from etl.extract.parse import parse_json
from etl.model import schema
from etl.model.values import MISFIT, arrow_array, json_text, to_float, to_int, to_timestamp
from tests.strategies import json_values, numeric_text

numbers = st.integers() | st.integers(-(2**70), 2**70) | st.floats() | numeric_text


@given(numbers)
def test_an_int_says_what_the_value_said(value):
    result = to_int(value)
    if result is not MISFIT:
        # A double that is left a double stands for the digits with which it is written.
        assert Fraction(repr(value) if isinstance(value, float) else value) == result
        assert -(2**63) <= result < 2**63


@given(st.integers(1, 10**17 - 1), st.integers(0, 20), st.sampled_from(["e", "E", "e+"]))
def test_an_int_is_the_one_that_was_sent_in_whatever_way_its_body_is_read(digits, exponent, letter):
    """A fraction without a double beside it makes the body be read the slow way."""
    text = f"{str(digits)[0]}.{str(digits)[1:] or 0}{letter}{exponent}"
    alone, beside = (to_int(parse_json(body.encode())["v"]) for body in (f'{{"v":{text}}}', f'{{"v":{text},"w":0.10}}'))
    assert alone is beside or alone == beside
    if alone is not MISFIT:
        assert alone == Decimal(text)


@given(numbers)
def test_a_double_says_what_the_value_said(value):
    result = to_float(value)
    if result is not MISFIT:
        is_fraction = isinstance(value, str) and not value.removeprefix("-").isdecimal()
        assert Fraction(value) == Fraction(result) or (is_fraction and Decimal(value) == Decimal(repr(result)))


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_int64_fits_in_every_spelling(value):
    assert to_int(value) == to_int(str(value)) == to_int(f"{value}.0") == to_int(f"{value}.0e0") == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_double_fits_in_both_spellings(value):
    assert to_float(value) == to_float(repr(value).replace("e+", "e")) == value


@given(
    st.datetimes().filter(lambda moment: date(1, 1, 2) < moment.date() < date(9999, 12, 30)),
    st.integers(-1439, 1439),
    st.integers(0, 3),
)
def test_every_moment_fits_at_every_offset(moment, offset_minutes, zeros):
    sign, minutes = "-" if offset_minutes < 0 else "+", abs(offset_minutes)
    text = f"{moment:%H:%M:%S.%f}{'0' * zeros}{sign}{minutes // 60:02}:{minutes % 60:02}"
    result = to_timestamp(f"{moment.date().isoformat()}T{text}")
    assert result == moment.replace(tzinfo=UTC) - timedelta(minutes=offset_minutes)
    assert to_timestamp(result.isoformat()) == result


@given(
    st.sampled_from(
        [
            (schema.INT, st.integers(-(2**63), 2**63 - 1)),
            (schema.FLOAT, st.floats(allow_nan=False)),
            (schema.BOOL, st.booleans()),
            (schema.STRING, st.text(st.characters(exclude_categories=["Cs"]))),
            (schema.TIMESTAMP, st.datetimes(timezones=st.just(UTC))),
        ]
    ).flatmap(lambda column: st.tuples(st.just(column[0]), st.lists(st.none() | column[1])))
)
def test_an_array_is_the_one_that_pyarrow_makes(column):
    kind, values = column
    array = arrow_array(values, kind)
    array.validate(full=True)
    assert (array.type, repr(array.to_pylist())) == (kind, repr(pa.array(values, kind).to_pylist()))


@given(json_values)
def test_json_text_is_utf8_and_says_what_the_value_said(value):
    text = json_text(value)
    assert json_text(parse_json(text.encode())) == text
    assert json.loads(text) == value
