"""Convert JSON values to the types of their columns and back, without loss.

A value that its column cannot hold exactly is a misfit: nothing here rounds, truncates or guesses. Pure.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from etl.model import schema
from etl.model.records import NumberLiteral

MISFIT: Final = object()
"""Returned by a coercer for a value that its column cannot hold exactly."""

Coercer = Callable[[Any], Any]
"""Converts one value that is not null: returns what the column holds, or ``MISFIT``; raises nothing."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LEAST_INT, _GREATEST_INT = -(2**63), 2**63 - 1
_WHOLE = 2**53
"""Up to here, and down to its negative, a double holds every integer."""
_SMALLEST = sys.float_info.min
"""Below it, a double loses digits."""
_TEXTS = (str, NumberLiteral)
"""Types whose value is the text of a number, if it is one."""
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,308})(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])"
    r"(?:\.([0-9]+))?(Z|[+-][0-9]{2}:[0-5][0-9])",
    re.ASCII,
)


def to_int(value: Any) -> Any:
    """An int64, from an integer in any notation (1e3, 5.0), also as a string."""
    kind = type(value)
    if kind is int:
        whole = value
    elif kind is float and value.is_integer():
        # Beyond ``_WHOLE``, the double may differ from the number that was sent, but its shortest repr is that number.
        # Where it is not, the decoder gives a NumberLiteral.
        whole = int(value) if -_WHOLE <= value <= _WHOLE else int(Decimal(repr(value)))
    elif kind in _TEXTS and _NUMBER.fullmatch(value) and (number := Decimal(value)) == number.to_integral_value():
        whole = int(number)
    else:
        return MISFIT
    return whole if _LEAST_INT <= whole <= _GREATEST_INT else MISFIT


def to_float(value: Any) -> Any:
    """A finite double. A fraction that was sent as a number becomes the nearest double, as in every reader of JSON.

    Misfits are an integer that no double equals, a number so small that a double loses digits, and a string whose
    digits the double does not give back exactly.
    """
    kind = type(value)
    if kind is float:
        return value if value - value == 0.0 else MISFIT  # NaN and infinity give NaN
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
    """The double that equals the integer."""
    try:
        number = float(value)
    except OverflowError:
        return MISFIT
    return number if int(number) == value else MISFIT


def to_bool(value: Any) -> Any:
    """True or false; nothing else is converted."""
    return value if type(value) is bool else MISFIT


def to_string(value: Any) -> Any:
    """A string that UTF-8 can encode, which a lone surrogate is not."""
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
    """An object or a list as JSON text."""
    return json_text(value) if isinstance(value, dict | list) else MISFIT


def json_text(value: Any, *, is_sorted: bool = False) -> str:
    """Compact JSON of any payload value; numbers keep the digits that were sent. ``is_sorted``: keys are, at any depth.

    A string that UTF-8 cannot encode keeps its escapes. NaN, which is not JSON, and numbers for which a reader may
    refuse the whole text (1e400, thousands of digits) become strings.
    """
    try:
        return (_encode_sorted if is_sorted else _encode)(value).decode()
    except UnicodeEncodeError:
        return _escaped(value, is_sorted=is_sorted)


def parsed(extra: str | None) -> dict[str, Any]:
    """The object in a column of JSON text, such as ``extra``; empty for null. Numbers come as they were written."""
    if extra is None:
        return {}
    document: dict[str, Any] = json.loads(extra, parse_float=NumberLiteral, parse_int=NumberLiteral)
    return document


def _digits(literal: str) -> str | msgspec.Raw:
    """The JSON of a ``NumberLiteral``: a number, or a string if it is none that every reader accepts."""
    return msgspec.Raw(literal.encode()) if math.isfinite(float(literal)) else str(literal)


def _escaped(value: Any, *, is_sorted: bool) -> str:
    """As ``json_text``, for a value that holds a string that UTF-8 cannot encode."""
    if isinstance(value, dict):
        items = sorted(value.items()) if is_sorted else value.items()
        fields = [f"{json.dumps(name)}:{_escaped(field, is_sorted=is_sorted)}" for name, field in items]
        return f"{{{','.join(fields)}}}"
    if isinstance(value, list):
        return f"[{','.join(_escaped(item, is_sorted=is_sorted) for item in value)}]"
    return json_text(value) if isinstance(value, NumberLiteral) else json.dumps(value)


_encode = msgspec.json.Encoder(enc_hook=_digits).encode
_encode_sorted = msgspec.json.Encoder(enc_hook=_digits, order="sorted").encode


def python_values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """The values of a column as Python objects; timestamps as aware datetimes in UTC.

    Times are made here, each once: pyarrow takes five times as long, and imports pandas first.
    """
    if column.type != schema.TIMESTAMP:
        return list(column.to_pylist())
    microseconds = column.cast(pa.int64()).to_pylist()
    times = {at: _EPOCH + timedelta(microseconds=at) for at in {*microseconds} - {None}}
    return [times.get(at) for at in microseconds]


def arrow_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The values, of which None is null, as an array of a column's type: the other way round than ``python_values``.

    Made of buffers: for Python values, ``pa.array`` imports pandas first, and takes longer for times.

    Raises:
        ArrowInvalid: the texts together have more than 2 GiB.
    """
    is_valid = [value is not None for value in values]
    if not any(is_valid):
        return pa.nulls(len(values), kind)
    validity = pa.py_buffer(np.packbits(is_valid, bitorder="little"))
    if kind == schema.STRING:
        texts = [(value or "").encode() for value in values]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        buffers = [validity, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
        return pa.Array.from_buffers(pa.large_string(), len(texts), buffers).cast(kind)
    if kind == schema.TIMESTAMP:
        return arrow_array([at and (at - _EPOCH) // _MICROSECOND for at in values], schema.INT).cast(kind)
    held: np.ndarray[Any, Any] = np.array([0 if value is None else value for value in values], kind.to_pandas_dtype())
    data = np.packbits(held, bitorder="little") if kind == schema.BOOL else held
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(data)])


def shared_values(column: pa.ChunkedArray) -> list[Any]:
    """As ``python_values``, but equal values are one object, made once: for columns that repeat few values."""
    encoded = column.combine_chunks().dictionary_encode()
    values = python_values(encoded.dictionary)
    return [None if index is None else values[index] for index in encoded.indices.to_pylist()]


def fields_of(record: object, *names: str) -> dict[str, Any]:
    """The named fields of a record, by name, in the order given."""
    return {name: getattr(record, name) for name in names}


def value_at(payload: Any, path: Iterable[str]) -> Any:
    """What a payload has at the path; None if it has nothing there."""
    for step in path:
        payload = payload.get(step) if isinstance(payload, dict) else None
    return payload


def timestamp_or_none(value: Any) -> datetime | None:
    """As ``to_timestamp``, but None for a misfit."""
    timestamp = to_timestamp(value)
    return None if timestamp is MISFIT else timestamp


_COERCERS: dict[pa.DataType, Coercer] = {
    schema.INT: to_int,
    schema.FLOAT: to_float,
    schema.BOOL: to_bool,
    schema.STRING: to_string,
    schema.TIMESTAMP: to_timestamp,
}


def coercer_of(column: schema.Column) -> Coercer:
    """What converts a payload's value to the type of the column."""
    return to_json if column.is_json else _COERCERS[column.type]
