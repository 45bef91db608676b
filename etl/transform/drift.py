"""Whether the API still answers as it did: values that a run test's calls used to have, and that its latest ones lack. Pure.

The calls that settled last are the measure. So a lack is believed once it has settled as any value does (law 8), unless ``extra``
shows that the value is there in another place or form. What was not seen before may still come late, and is no lack yet.
"""

import json
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.model import schema
from etl.model.records import NumberLiteral
from etl.model.values import MISFIT, coercer_of
from etl.model.wording import counted, first_few

Path = tuple[str, ...]
ENOUGH = 20
"""So many calls on either side make a judgement."""
_MEASURE = 100
"""So many of the calls that settled last are the measure, as far as there are any: what one execution has, not all need have."""
_NEARLY_ALL = 0.9


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the payload, and the columns of which one takes it."""

    path: Path
    columns: tuple[schema.Column, ...]

    def places_in(self, extra: Mapping[str, Any]) -> set[Path]:
        """Where ``extra`` may have the value: at its own path, if it did not fit, by its name elsewhere, or beside its place."""
        return {
            path
            for path, value in _leaves(extra)
            if self.is_misfit(path) or path[-1].endswith(self.path[-1]) or self._fits_beside(path, value)
        }

    def is_misfit(self, path: Path) -> bool:
        """Whether a value at this path of ``extra`` should be in a column."""
        return path == self.path[: len(path)]

    def share(self, rows: pa.Table) -> float:
        """In how much of the rows a column has the value."""
        nulls = min(rows[each.name].null_count for each in self.columns)
        return float(1 - nulls / len(rows))

    def _fits_beside(self, path: Path, value: Any) -> bool:
        # What the platform of a chat agent measures is passed on by the API as it is.
        is_beside = path[:-1] == self.path[:-1] and path[0] != "chat_metrics"
        return is_beside and any(coercer_of(column)(value) is not MISFIT for column in self.columns)


def _fields(table: schema.Table) -> list[Field]:
    """What the API gives of every call: not what has two spellings, which is a provider's own."""
    columns: dict[Path, tuple[schema.Column, ...]] = {}
    for column in table.columns:
        if len(column.paths) == 1 and not column.is_key and column.name != "status":
            columns[column.paths[0]] = (*columns.get(column.paths[0], ()), column)
    return [Field(*each) for each in columns.items()]


FIELDS = {table.name: _fields(table) for table in (schema.EXECUTIONS, schema.CALLS, schema.EVALS)}
"""By table name."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Columns that are null although the calls before these have values, or the API shows them elsewhere.

    ``calls`` is how many are concerned, by execution. ``place`` is where the values are; empty where nothing shows them.
    """

    columns: tuple[str, ...]
    calls: Mapping[str, int]
    place: str = ""


def find_drift(
    table: schema.Table, latest: pa.Table, settled: pa.Table, *, fetched: Collection[str], seen: Container[str]
) -> Iterator[Drift]:
    """What whole executions of ``latest`` lack, and nearly all calls that ``settled`` last have.

    Rows come by execution, oldest first. What one of the executions that were ``fetched`` now has, the API still gives; an earlier
    run has ``seen`` those that are stored. Only completed calls count, and evals are compared with those of their config.
    """
    groups, before = _groups(table, latest), _groups(table, settled)
    for group in sorted(groups.keys() & before.keys()):
        measure = before[group].slice(max(0, len(before[group]) - _MEASURE))
        if min(len(groups[group]), len(measure)) < ENOUGH:
            continue
        executions = _by_execution(groups[group])
        for field in FIELDS[table.name]:
            lacking = {each: rows for each, rows in executions.items() if not field.share(rows)}
            if sum(map(len, lacking.values())) < ENOUGH or field.share(measure) < _NEARLY_ALL:
                continue
            columns = tuple(f"{table.name}.{each.name}" for each in field.columns if field.share(measure))
            known = set.union(*_places(field, measure))
            common = {each: set.intersection(*_places(field, rows)) - known for each, rows in lacking.items()}
            moved = {each: places for each, places in common.items() if places}
            gone = {each: len(rows) for each, rows in lacking.items() if each in seen}
            shown = {each: len(lacking[each]) for each in moved}
            if sum(shown.values()) >= ENOUGH:
                yield Drift(columns, shown, _in_extra(*moved.values()))
            elif sum(gone.values()) >= ENOUGH and not (
                any(field.share(executions[each]) for each in executions.keys() & fetched)
                or _is_other_kind(table, pa.concat_tables(lacking.values()), measure)
            ):
                yield Drift(columns, gone)


def find_misfits(executions: pa.Table) -> Iterator[Drift]:
    """What executions lack since it did not fit. A list that changes renews all of its rows: then there is no measure."""
    ids, calls = executions["execution_id"].to_pylist(), executions["exported_calls"].to_pylist()
    for field in FIELDS[schema.EXECUTIONS.name]:
        values = executions[field.columns[0].name].to_pylist()
        rows = zip(ids, calls, values, executions["extra"].to_pylist(), strict=True)
        places = {
            (execution_id, number): found
            for execution_id, number, value, extra in rows
            if value is None and extra and (found := {*filter(field.is_misfit, dict(_leaves(parsed(extra))))})
        }
        if sum(number for _, number in places) >= ENOUGH:
            yield Drift((f"executions.{field.columns[0].name}",), dict(places.keys()), _in_extra(*places.values()))


def drift_text(found: Sequence[Drift]) -> str:
    """What was found of a run test, in one line."""
    columns = [*dict.fromkeys(name for each in found for name in each.columns)]
    places = [*dict.fromkeys(each.place for each in found if each.place)]
    calls = dict(item for each in found for item in each.calls.items())
    lacking = f"{first_few(columns)} {'is' if len(columns) == 1 else 'are'} null"
    number = f"{counted(sum(calls.values()), 'call')} of {counted(len(calls), 'execution')}"
    return f"the API's answers changed: {lacking} in {number}; {first_few(places) or 'the API shows no such value any more'}"


def parsed(extra: str | None) -> dict[str, Any]:
    """The object in the column ``extra``; numbers as they were written."""
    if extra is None:
        return {}
    document: dict[str, Any] = json.loads(extra, parse_float=NumberLiteral, parse_int=NumberLiteral)
    return document


def _places(field: Field, rows: pa.Table) -> list[set[Path]]:
    """Where each of the rows may have the value."""
    return [field.places_in(parsed(extra)) for extra in rows["extra"].to_pylist()]


def _in_extra(places: set[Path], *_: set[Path]) -> str:
    return f"extra has {'.'.join(min(places))}"


def _is_other_kind(table: schema.Table, rows: pa.Table, measure: pa.Table) -> bool:
    """Whether most rows have something that the measure never has: chats are not expected to have what voice calls have."""
    return any(field.share(rows) >= 0.5 and not field.share(measure) for field in FIELDS[table.name])


def _leaves(fields: Mapping[str, Any], at: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*at, name))
        elif value is not None:
            yield (*at, name), value


def _groups(table: schema.Table, rows: pa.Table) -> dict[str, pa.Table]:
    """The completed rows; those of evals by config."""
    is_completed = pc.equal(pc.fill_null(pc.utf8_lower(rows["status"]), "completed"), "completed")
    rows = rows.filter(pc.and_(is_completed, rows["deleted_at"].is_null()))
    if table is not schema.EVALS:
        return {"": rows}
    configs = rows["eval_config_id"].unique().to_pylist()
    return {each: rows.filter(pc.equal(rows["eval_config_id"], each)) for each in configs}


def _by_execution(rows: pa.Table) -> dict[str, pa.Table]:
    runs = pc.run_end_encode(rows["execution_id"].combine_chunks())
    ends = runs.run_ends.to_pylist()
    starts = zip(runs.values.to_pylist(), [0, *ends], ends, strict=False)
    return {execution_id: rows.slice(start, end - start) for execution_id, start, end in starts}
