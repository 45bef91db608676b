"""Tell whether the API still answers in the form that the schema declares. Pure.

The API writes null for a value that it does not have. So if a field is missing, or its value does not fit, and the
same payload has a field that the schema does not know, the field was moved, renamed or written otherwise: the value
exists, and its column is null. That is drift. A field that is gone with nothing in its place is no drift: the source
no longer has it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etl.model import schema
from etl.model.values import MISFIT, Coercer, coercer_of, parsed
from etl.model.wording import counted, first_few
from etl.transform.rows import MAKERS, Path

_BLOCKS = {"duration_seconds", "latency", "cost", "conversation"}
"""Fields that the metrics of each call have as a whole. Not so ``chat_metrics``, any part of which may be missing."""
_FREE = {("latency", "system_metrics"), ("latency", "customer_latency_metrics")}
_FREE |= {("cost", "breakdown"), ("cost", "customer_cost_breakdown")}
"""Where a call's metrics have an object of the voice provider, which may hold anything."""
_TABLES = (schema.EXECUTIONS, schema.CALLS, schema.EVALS)
"""The tables whose rows are made of payloads."""
_EXTRA = {table.name: table.names.index("extra") for table in _TABLES}


@dataclass(frozen=True, slots=True)
class Drift:
    """Columns of one table that are null although the API's answers have their values elsewhere."""

    table: str
    columns: tuple[str, ...]
    place: str
    """Where the values are, in words: "extra has …", or another list has them."""
    calls: Mapping[str, int]
    """By execution_id, how many calls that concerns."""


def find_drift(table: schema.Table, payloads: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], str]:
    """The columns that no payload fills, because its form is another one, and where ``extra`` may have their values.

    Both are empty if a single payload fills the columns, or has nothing that the schema does not know.
    """
    columns: list[str] = []
    place = ""
    for payload in payloads:
        lost = lost_columns(table, payload)
        columns = [name for name in columns or lost if name in lost]
        if not columns:
            return (), ""
        row, _ = MAKERS[table.name].make(dict(payload), {})
        unknown = unknown_fields(parsed(row[_EXTRA[table.name]]))
        if not unknown:
            return (), ""
        place = place or f"extra has {unknown[0]}"
    return tuple(columns), place


def lost_columns(table: schema.Table, payload: Mapping[str, Any]) -> list[str]:
    """The columns for which the payload has neither a value that fits nor a null, among those that it always has."""
    return [name for name, fields in _FIELDS[table.name].items() if not any(_has(payload, *field) for field in fields)]


def unknown_fields(extra: Mapping[str, Any]) -> list[str]:
    """The sorted paths in ``extra`` of unknown fields, and of misfits, in objects whose form the schema declares."""
    paths = (path for path in _leaves(extra) if path[:2] not in _FREE)
    return sorted(".".join(path) for path in paths if path[0] not in ("call_results", "chat_metrics", "detail"))


def drift_text(drifts: Sequence[Drift]) -> str:
    """The drift in the answers about one run test, in one line: columns, calls, and where the values are."""
    columns = [*dict.fromkeys(f"{drift.table}.{name}" for drift in drifts for name in drift.columns)]
    calls = dict(item for drift in drifts for item in drift.calls.items())
    number = f"{counted(sum(calls.values()), 'call')} of {counted(len(calls), 'execution')}"
    verb = "is" if len(columns) == 1 else "are"
    places = first_few([*dict.fromkeys(drift.place for drift in drifts)])
    return f"the API's answers changed: {first_few(columns)} {verb} null in {number}; {places}"


def _has(payload: Any, path: Path, coercer: Coercer) -> bool:
    """Whether the payload has, at the path, a value that fits, or a null there or above."""
    for step in path:
        if not isinstance(payload, Mapping) or step not in payload:
            return False
        payload = payload[step]
        if payload is None:
            return True
    return coercer(payload) is not MISFIT


def _leaves(fields: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    """The paths of all values that are neither objects nor null."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*at, name))
        elif value is not None:
            yield (*at, name)


def _is_always_there(table: schema.Table, path: Path) -> bool:
    """Whether the API's answers always have this field, be it null."""
    if table is schema.CALLS:
        return path[0] in _BLOCKS and path[:2] not in _FREE
    return path == ("output",) if table is schema.EVALS else len(path) == 1


def _fields_of(table: schema.Table) -> dict[str, list[tuple[Path, Coercer]]]:
    """By column, where its value may be, and what fits. Of columns that share their paths, the first stands for all."""
    by_paths: dict[tuple[Path, ...], tuple[str, list[tuple[Path, Coercer]]]] = {}
    for column in table.columns:
        if column.paths and all(_is_always_there(table, path) for path in column.paths):
            _, fields = by_paths.setdefault(column.paths, (column.name, []))
            fields += [(path, coercer_of(column)) for path in column.paths]
    return dict(by_paths.values())


_FIELDS = {table.name: _fields_of(table) for table in _TABLES}
