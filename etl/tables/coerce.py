"""Turn one JSON value into exactly what its column holds, or say that it does not fit.

Pure. Never rounds, truncates or guesses: a value either converts without loss or is a misfit.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
import pyarrow as pa

from etl.tables import schema

MISFIT: Final = object()
"""What a coercer returns for a value that its column cannot hold exactly."""

Coercer = Callable[[Any], Any]

_INT64 = range(-(2**63), 2**63)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,308})(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])(?:\.([0-9]+))?(Z|[+-][0-9]{2}:[0-5][0-9])",
    re.ASCII,
)
_encode = msgspec.json.Encoder(enc_hook=str).encode  # a NumberLiteral becomes a string: few readers take NaN or 1e400


def to_int(value: Any) -> Any:
    """An int64; whole floats and numeric strings are converted."""
    kind = type(value)
    if kind is int:
        return value if value in _INT64 else MISFIT
    if kind is float:
        return int(value) if value.is_integer() and int(value) in _INT64 else MISFIT
    if kind is str and _NUMBER.fullmatch(value):
        number = Decimal(value)
        return int(number) if number == number.to_integral_value() and int(number) in _INT64 else MISFIT
    return MISFIT


def to_float(value: Any) -> Any:
    """A finite double; whole numbers that a double cannot hold exactly are misfits, as are fractions of too many digits."""
    kind = type(value)
    if kind is float:
        return value if value - value == 0.0 else MISFIT
    if kind is int:
        return _whole_to_float(value)
    if kind is str and _NUMBER.fullmatch(value):
        if value.removeprefix("-").isdecimal():
            return _whole_to_float(int(value))
        double = float(value)
        return double if Decimal(value) in (Decimal(repr(double)), Decimal(double)) else MISFIT
    return MISFIT


def _whole_to_float(value: int) -> Any:
    if -(2**53) <= value <= 2**53:
        return float(value)
    try:
        number = float(value)
    except OverflowError:
        return MISFIT
    return number if int(number) == value else MISFIT


def to_bool(value: Any) -> Any:
    """True or false and nothing that resembles them."""
    return value if type(value) is bool else MISFIT


def to_string(value: Any) -> Any:
    """A string that UTF-8 can hold."""
    if type(value) is not str:
        return MISFIT
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
    """JSON text of an object or a list."""
    return json_text(value) if isinstance(value, dict | list) else MISFIT


def json_text(value: Any) -> str:
    """Compact JSON of any payload value; a string that UTF-8 cannot hold keeps its escapes."""
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))


def timestamp_or_none(value: Any) -> datetime | None:
    """The timestamp, or None when there is none that can be read."""
    result = to_timestamp(value)
    return None if result is MISFIT else result


_COERCERS: dict[pa.DataType, Coercer] = {
    schema.INT: to_int,
    schema.FLOAT: to_float,
    schema.BOOL: to_bool,
    schema.STRING: to_string,
    schema.TIMESTAMP: to_timestamp,
}


def coercer(column: schema.Column) -> Coercer:
    """The coercer of a column."""
    return to_json if column.is_json else _COERCERS[column.type]
