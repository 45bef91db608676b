"""Whether the API still answers in the form that it had: fields that are gone or do not fit, while others came. Pure.

The API writes null for a value that it does not have. So a field that is missing, or whose value does not fit, beside one that the
schema does not know, was moved, renamed or written otherwise: the value exists, and its column is null. What is gone and has
nothing in its place is the source's word.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etl.model import schema
from etl.model.values import MISFIT, coercer_of, parsed
from etl.model.wording import counted, first_few
from etl.transform.rows import MAKERS

Path = tuple[str, ...]
_BLOCKS = {"duration_seconds", "latency", "cost", "conversation"}
"""What the metrics of each call have; ``chat_metrics`` may be any part of itself."""
_FREE = {("latency", name) for name in ("system_metrics", "customer_latency_metrics")}
_FREE |= {("cost", name) for name in ("breakdown", "customer_cost_breakdown")}
"""Objects of a provider, which hold anything."""
_EXTRA = {table.name: table.names.index("extra") for table in (schema.EXECUTIONS, schema.CALLS, schema.EVALS)}


@dataclass(frozen=True, slots=True)
class Drift:
    """Columns of one table that are null although a ``place`` has their values, and how many calls that concerns, by execution."""

    table: str
    columns: tuple[str, ...]
    place: str
    calls: Mapping[str, int]


def find_drift(table: schema.Table, payloads: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, ...], str]:
    """The columns that no payload fills, since its form is another one, and where ``extra`` may have their values."""
    columns, place = list[str](), ""
    for payload in payloads:
        here = lost_columns(table, payload)
        columns = [name for name in columns or here if name in here]
        if not columns:
            return (), ""
        row, _ = MAKERS[table.name].make(dict(payload), {})
        unknown = unknown_fields(parsed(row[_EXTRA[table.name]]))
        if not unknown:
            return (), ""
        place = place or f"extra has {unknown[0]}"
    return tuple(columns), place


def lost_columns(table: schema.Table, payload: Mapping[str, Any]) -> list[str]:
    """The columns for which the payload has neither a value that fits nor a null."""
    return [name for name, fields in _FIELDS[table.name].items() if not any(_has(payload, *field) for field in fields)]


def unknown_fields(extra: Mapping[str, Any]) -> list[str]:
    """The paths in ``extra`` of what the schema does not know, or what did not fit, in an object whose form it knows."""
    paths = (path for path in _leaves(extra) if path[:2] not in _FREE)
    return sorted(".".join(path) for path in paths if path[0] not in ("call_results", "chat_metrics", "detail"))


def drift_text(found: Sequence[Drift]) -> str:
    """What was found of a run test, in one line."""
    columns = [*dict.fromkeys(f"{each.table}.{name}" for each in found for name in each.columns)]
    calls = dict(item for each in found for item in each.calls.items())
    number = f"{counted(sum(calls.values()), 'call')} of {counted(len(calls), 'execution')}"
    verb = "is" if len(columns) == 1 else "are"
    places = first_few([*dict.fromkeys(each.place for each in found)])
    return f"the API's answers changed: {first_few(columns)} {verb} null in {number}; {places}"


def _has(payload: Any, path: Path, coercer: Callable[[Any], Any]) -> bool:
    for step in path:
        if not isinstance(payload, Mapping) or step not in payload:
            return False
        payload = payload[step]
        if payload is None:
            return True
    return coercer(payload) is not MISFIT


def _leaves(fields: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*at, name))
        elif value is not None:
            yield (*at, name)


def _is_always_there(table: schema.Table, path: Path) -> bool:
    if table is schema.CALLS:
        return path[0] in _BLOCKS and path[:2] not in _FREE
    return path == ("output",) if table is schema.EVALS else len(path) == 1


def _fields_of(table: schema.Table) -> dict[str, list[tuple[Path, Callable[[Any], Any]]]]:
    """By column, where its value may be, and what fits; columns that share their paths are one."""
    found: dict[tuple[Path, ...], tuple[str, list[tuple[Path, Callable[[Any], Any]]]]] = {}
    for column in table.columns:
        if column.paths and all(_is_always_there(table, path) for path in column.paths):
            _, fields = found.setdefault(column.paths, (column.name, []))
            fields += [(path, coercer_of(column)) for path in column.paths]
    return dict(found.values())


_FIELDS = {table.name: _fields_of(table) for table in (schema.EXECUTIONS, schema.CALLS, schema.EVALS)}
