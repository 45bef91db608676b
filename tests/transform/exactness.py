"""Whether rows say exactly what was sent: read anew from the JSON text, every digit, by no code of the exporter."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from etl.model import schema

_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_LONGEST_NUMBER = 800  # characters: longer ones no column holds
_HOLDABLE = re.compile(r"[^eE]*([eE][+-]?\d{1,3})?", re.ASCII)
_SMALLEST_OF_FULL_PRECISION = 2.0**-1022


class Number(str):
    """A number as it was written."""

    __slots__ = ()


def read(text: str | bytes) -> Any:
    """JSON text as sent, each number a ``Number``.

    Raises:
        ValueError, RecursionError: it cannot be read, or an object has two fields with the same name.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=Number, object_pairs_hook=_object)


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(fields)) < len(fields):
        raise ValueError("two fields with the same name")
    return dict(fields)


def assert_same(held: Any, sent: Any) -> None:
    """The value is the one that was sent, to the digit; what no reader takes for a number stands as text."""
    if isinstance(sent, dict):
        assert isinstance(held, dict)
        assert list(held) == list(sent)
        for name, value in sent.items():
            assert_same(held[name], value)
    elif isinstance(sent, list):
        assert isinstance(held, list)
        assert len(held) == len(sent)
        for one, other in zip(held, sent, strict=True):
            assert_same(one, other)
    elif isinstance(sent, Number) and isinstance(held, Number):
        assert held == sent or Decimal(held) == Decimal(sent)
    elif isinstance(sent, Number):
        assert type(held) is str
        assert held == sent
        assert _is_refused_by_readers(sent)
    else:
        assert type(held) is type(sent)
        assert held == sent


def _is_refused_by_readers(sent: Number) -> bool:
    is_long_integer = sent.removeprefix("-").isdecimal() and len(sent) > 4000
    return not _JSON_NUMBER.fullmatch(sent) or abs(float(sent)) == float("inf") or is_long_integer


def says(column: schema.Column, held: Any, sent: Any) -> bool:
    """Whether the column's value says exactly what was sent."""
    if held is None or sent is None:
        return False
    if column.is_json:
        return isinstance(sent, dict | list) and _is_same(read(held), sent)
    return _SAYS.get(column.type, _is_equal)(held, sent)


def _is_same(held: Any, sent: Any) -> bool:
    try:
        assert_same(held, sent)
    except AssertionError:
        return False
    return True


def _is_equal(held: Any, sent: Any) -> bool:
    return type(sent) is type(held) and bool(sent == held)


def _is_moment(held: datetime, sent: Any) -> bool:
    match = _ISO_TIME.fullmatch(sent) if type(sent) is str else None
    if match is None:
        return False
    microseconds = Fraction(f"0.{match[2] or 0}") * 1_000_000
    second = datetime.fromisoformat(match[1] + match[3])
    return microseconds.denominator == 1 and held - second == timedelta(microseconds=int(microseconds))


def _is_whole(held: int, sent: Any) -> bool:
    return _is_number(sent) and Decimal(sent) == held


def _is_double(held: float, sent: Any) -> bool:
    """Equal as a number or as it prints (whole numbers without an exponent only as numbers), or the nearest."""
    if not _is_number(sent):
        return False
    number = Decimal(sent)
    if number == Decimal(held) or (number == Decimal(repr(held)) and not sent.removeprefix("-").isdecimal()):
        return True
    is_fraction = isinstance(sent, Number) and number != number.to_integral_value()
    return is_fraction and held == float(sent) and abs(held) >= _SMALLEST_OF_FULL_PRECISION


def _is_number(sent: Any) -> bool:
    if not isinstance(sent, str) or len(sent) > _LONGEST_NUMBER:
        return False
    return bool(_JSON_NUMBER.fullmatch(sent) and _HOLDABLE.fullmatch(sent))


_SAYS: dict[pa.DataType, Callable[[Any, Any], bool]] = {
    schema.TIMESTAMP: _is_moment,
    schema.INT: _is_whole,
    schema.FLOAT: _is_double,
}


class Places:
    """Where the fields of a table's payloads belong, by path."""

    def __init__(self, table: schema.Table) -> None:
        self.table = table
        self.columns: defaultdict[tuple[str, ...], list[schema.Column]] = defaultdict(list)
        for column in table.columns:
            for path in column.paths:
                self.columns[path].append(column)
        self.blocks = {path[:length] for path in self.columns for length in range(1, len(path))}

    def assert_holds(self, row: Mapping[str, Any], sent: dict[str, Any], *, given: tuple[str, ...] = ()) -> int:
        """Each value sent is in its column or in ``extra``, and no column but the ``given`` says anything else.

        Returns:
            The number of values that have a place in the table and do not fit it.
        """
        extra = {} if row["extra"] is None else read(row["extra"])
        assert extra or row["extra"] is None
        for column in self.table.columns:
            if column.source and row[column.name] is not None and column.name not in given:
                assert any(says(column, row[column.name], _at(sent, path)) for path in column.paths), column.name
        return self._misfits(row, sent, extra, ())

    def _misfits(self, row: Mapping[str, Any], sent: dict[str, Any], extra: Any, path: tuple[str, ...]) -> int:
        assert isinstance(extra, dict)
        assert set(extra) <= set(sent)
        misfits = 0
        for name, value in sent.items():
            here = (*path, name)
            columns = self.columns.get(here, [])
            if here in self.blocks and isinstance(value, dict):
                inner = extra.get(name, {})
                assert inner or name not in extra
                misfits += self._misfits(row, value, inner, here)
            elif columns and name not in extra:
                assert value is None or any(says(column, row[column.name], value) for column in columns), here
            elif here in self.blocks and value is None:
                assert name not in extra
            else:
                assert name in extra, here
                assert_same(extra[name], value)
                assert not any(says(column, row[column.name], value) for column in columns), here
                misfits += bool(columns) or here in self.blocks
        return misfits


def _at(payload: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        payload = payload.get(step) if isinstance(payload, dict) else None
    return payload


def call_as_sent(
    metrics: dict[str, Any],
    listed: dict[str, Any],
    row: Mapping[str, Any],
    shown: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[dict[str, Any], int]:
    """A call's payloads as one: below ``call_results`` what only the list says and no other row has, and ``detail``.

    Returns:
        The payload, and 1 when some of its eval outputs can be no rows of their own.
    """
    sent = dict(metrics)
    columns = {column.name: column for column in schema.CALLS.columns}
    only_listed = dict(listed)
    for name in ("call_execution_id", "status", "duration_seconds"):
        value = only_listed.get(name)
        is_null = value is None and metrics.get(name) is None
        if name in only_listed and (is_null or says(columns[name], row[name], value)):
            del only_listed[name]
    outputs = only_listed.pop("eval_outputs", None)
    if isinstance(outputs, dict):
        outputs = {key: output for key, output in outputs.items() if not is_utf8(key)} or None
    if outputs is not None:
        only_listed["eval_outputs"] = outputs
    for name, fields in (("call_results", only_listed), ("detail", shown)):
        if name in sent:
            sent[f"metrics.{name}"] = sent.pop(name)
        sent[name] = dict(fields)
    return sent, int(outputs is not None)


def is_utf8(text: str) -> bool:
    """Whether the text can be written as UTF-8: it holds no lone surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def as_eval(output: Any) -> dict[str, Any]:
    """An eval output as an object: one that is none is the output itself."""
    return output if isinstance(output, dict) else {"output": output}
