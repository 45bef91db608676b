"""Convert one JSON value to the type of its column, or call it a misfit.

Pure. Never rounds, truncates or guesses: a value either converts without loss or is a misfit.
"""

import json
import math
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
import pyarrow as pa

from etl.model import schema
from etl.model.records import NumberLiteral

MISFIT: Final = object()
"""Returned by a coercer for a value that its column cannot hold exactly."""

Coercer = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_INT, _GREATEST_INT = -(2**63), 2**63 - 1
_WHOLE = 2**53  # up to here a double holds every integer
_SMALLEST = sys.float_info.min  # below it a double loses digits
_TEXTS = (str, NumberLiteral)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,308})(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])(?:\.([0-9]+))?(Z|[+-][0-9]{2}:[0-5][0-9])",
    re.ASCII,
)


def to_int(value: Any) -> Any:
    """An int64, from an integer in any notation (1e3, 5.0), also as a string."""
    kind = type(value)
    if kind is int:
        return value if _LEAST_INT <= value <= _GREATEST_INT else MISFIT
    if kind is float:
        if not value.is_integer():
            return MISFIT
        # Above that, the double may differ from the number that was sent, but its shortest repr is that number: where it is
        # not, the decoder gives a NumberLiteral.
        whole = int(value) if -_WHOLE <= value <= _WHOLE else int(Decimal(repr(value)))
        return whole if _LEAST_INT <= whole <= _GREATEST_INT else MISFIT
    if kind in _TEXTS and _NUMBER.fullmatch(value):
        number = Decimal(value)
        return int(number) if number == number.to_integral_value() and _LEAST_INT <= number <= _GREATEST_INT else MISFIT
    return MISFIT


def to_float(value: Any) -> Any:
    """A finite double. A fraction that was sent as a number becomes the nearest double, as in every reader of JSON.

    A misfit is an integer that no double equals, a number so small that a double loses digits, and a string whose digits the double
    does not give back exactly.
    """
    kind = type(value)
    if kind is float:
        return value if value - value == 0.0 else MISFIT
    if kind is int:
        return float(value) if -_WHOLE <= value <= _WHOLE else _whole_to_float(value)
    if kind in _TEXTS and _NUMBER.fullmatch(value):
        if value.removeprefix("-").isdecimal():
            return _whole_to_float(int(value))
        double, number = float(value), Decimal(value)
        is_fraction = kind is NumberLiteral and number != number.to_integral_value()
        if is_fraction and _SMALLEST <= abs(double) < math.inf:
            return double
        return double if number in (Decimal(repr(double)), Decimal(double)) else MISFIT
    return MISFIT


def _whole_to_float(value: int) -> Any:
    try:
        number = float(value)
    except OverflowError:
        return MISFIT
    return number if int(number) == value else MISFIT


def to_bool(value: Any) -> Any:
    """True or false; nothing else is converted."""
    return value if type(value) is bool else MISFIT


def to_string(value: Any) -> Any:
    """A string that UTF-8 can encode."""
    if type(value) is not str:
        return MISFIT
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return MISFIT
    return value


def to_timestamp(value: Any) -> Any:
    """An aware UTC datetime from an ISO 8601 string with an offset and at most microseconds."""
    if type(value) is not str or not (match := _TIMESTAMP.fullmatch(value)):
        return MISFIT
    seconds, fraction, offset = match.groups(default="")
    if fraction[6:].strip("0"):
        return MISFIT
    try:
        return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        return MISFIT


def to_json(value: Any) -> Any:
    """An object or a list as JSON text."""
    return json_text(value) if isinstance(value, dict | list) else MISFIT


def json_text(value: Any, *, is_sorted: bool = False) -> str:
    """Compact JSON of any payload value; numbers keep the digits that were sent.

    A string that UTF-8 cannot encode keeps its escapes. NaN, which is not JSON, and numbers for which a reader may refuse the
    whole text (1e400, thousands of digits) become strings.
    """
    try:
        return (_encode_sorted if is_sorted else _encode)(value).decode()
    except UnicodeEncodeError:
        return _escaped(value, is_sorted=is_sorted)


def parsed(extra: str | None) -> dict[str, Any]:
    """The object in a column ``extra``; numbers as they were written."""
    if extra is None:
        return {}
    document: dict[str, Any] = json.loads(extra, parse_float=NumberLiteral, parse_int=NumberLiteral)
    return document


def _digits(literal: str) -> str | msgspec.Raw:
    return msgspec.Raw(literal.encode()) if math.isfinite(float(literal)) else str(literal)


def _escaped(value: Any, *, is_sorted: bool) -> str:
    if isinstance(value, dict):
        fields = sorted(value.items()) if is_sorted else value.items()
        return f"{{{','.join(f'{json.dumps(name)}:{_escaped(each, is_sorted=is_sorted)}' for name, each in fields)}}}"
    if isinstance(value, list):
        return f"[{','.join(_escaped(each, is_sorted=is_sorted) for each in value)}]"
    if isinstance(value, NumberLiteral):
        return json_text(value)
    return json.dumps(value)


_encode = msgspec.json.Encoder(enc_hook=_digits).encode
_encode_sorted = msgspec.json.Encoder(enc_hook=_digits, order="sorted").encode


def python_values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """The values of a column. Times are made here, each once: pyarrow takes five times as long, and imports pandas first."""
    is_time = column.type == schema.TIMESTAMP
    values: list[Any] = column.cast(pa.int64() if is_time else column.type).to_pylist()
    times = {at: _EPOCH + timedelta(microseconds=at) for at in {*values} - {None}} if is_time else {}
    return [times.get(at) for at in values] if is_time else values


def shared_values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column, of whatever type; equal ones are one object, made once."""
    encoded = column.combine_chunks().dictionary_encode()
    values = python_values(encoded.dictionary)
    return [None if index is None else values[index] for index in encoded.indices.to_pylist()]


def fields_of(record: object, *names: str) -> dict[str, Any]:
    """These fields of a record, by name."""
    return {name: getattr(record, name) for name in names}


def timestamp_or_none(value: Any) -> datetime | None:
    """The timestamp, or None if the value is not a valid one."""
    result = to_timestamp(value)
    return None if result is MISFIT else result


_COERCERS: dict[pa.DataType, Coercer] = {
    schema.INT: to_int,
    schema.FLOAT: to_float,
    schema.BOOL: to_bool,
    schema.STRING: to_string,
    schema.TIMESTAMP: to_timestamp,
}


def coercer_of(column: schema.Column) -> Coercer:
    """The coercer of a column."""
    return to_json if column.is_json else _COERCERS[column.type]
