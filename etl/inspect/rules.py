"""What must hold for the rows of a file, for those of a part, and across parts. Pure: tables in, findings out."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.layout import Part, part_path
from etl.dataset.part_index import held_rows
from etl.model import schema
from etl.model.arrow import is_of
from etl.model.findings import Finding, Kind
from etl.model.lifecycle import ExportState, HeldRows
from etl.model.wording import counted, first_few

_BETWEEN_KEYS = "\0"
_COUNTED = ("execution_id", "export_state", "calls_digest", "listed_calls", "exported_calls", "deleted_at")


def doubled_rows(table: schema.Table, path: str, rows: pa.Table) -> Iterator[Finding]:
    """Keys that stand twice in the file among living rows: a call that went to another execution stays where it was, marked."""
    keys = [rows[name] for name in table.key]
    if table in schema.OF_CALLS:
        keys.append(pc.if_else(rows["deleted_at"].is_valid(), rows["execution_id"], ""))
    counts = pc.value_counts(pc.binary_join_element_wise(*keys, _BETWEEN_KEYS))
    if twice := counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist():
        first = zip(table.key, twice[0].split(_BETWEEN_KEYS), strict=False)
        key = ", ".join(f"{name} {value}" for name, value in first)
        yield Finding(Kind.MISPLACED, path, f"{counted(len(twice), 'duplicate key')}: {key}")


def damage(row: Mapping[str, Any], held: HeldRows) -> str | None:
    """What an execution's row says of its calls and evals that is not true of the rows that are ``held``."""
    if held.exported_calls != row["exported_calls"]:
        return f"{held.exported_calls} of {row['exported_calls']} exported calls are stored"
    if held.calls_digest != row["calls_digest"]:
        return "its calls or evals differ from what was exported"
    is_whole = row["export_state"] in (ExportState.EXPORTED, ExportState.SETTLING) and row["deleted_at"] is None
    if is_whole and row["listed_calls"] != held.exported_calls:
        return f"{row['export_state']}, but {row['listed_calls']} calls were listed and {held.exported_calls} exported"
    return None


class Placement:
    """Where the rows of each execution lie: ``add`` each part, then read the ``findings``; little is kept of what is well."""

    def __init__(self) -> None:
        self._damaged: list[Finding] = []
        self._executions: dict[str, pa.Array] = {}
        self._calls: dict[str, pa.Array] = {}
        self._strays: dict[str, dict[str, bool]] = {}

    def add(self, part: Part, rows: Mapping[str, pa.Table | None]) -> None:
        """Add the rows of the part, by table; None where a file cannot be read: what it may hold is not missing."""
        found = {table.name: rows.get(table.name, table.no_rows) for table in schema.OF_EXECUTIONS}
        executions, calls, evals = (found[each.name] for each in (schema.EXECUTIONS, schema.CALLS, schema.EVALS))
        if executions is None:
            return
        own, path = executions.select(_COUNTED).to_pylist(), part_path(schema.EXECUTIONS.name, part)
        ids = dict.fromkeys(row["execution_id"] for row in own)
        self._executions[path] = pa.array(list(ids), pa.string())
        if calls is not None and evals is not None:
            held = held_rows(ids, calls, evals)
            texts = ((row["execution_id"], damage(row, held[row["execution_id"]])) for row in own)
            if told := [f"{execution_id} ({text})" for execution_id, text in texts if text]:
                text = f"{counted(len(told), 'execution')}: {first_few(told)}"
                self._damaged.append(Finding(Kind.DAMAGED, path, text))
        for table, beside in ((schema.CALLS, calls), (schema.EVALS, evals)):
            if beside is not None:
                self._add_beside(table, part_path(table.name, part), beside, ids)

    def _add_beside(self, table: schema.Table, path: str, rows: pa.Table, ids: Collection[str]) -> None:
        is_own, is_living = is_of(rows, ids), pc.is_null(rows["deleted_at"])
        strays = rows.filter(pc.invert(is_own))["execution_id"].unique().to_pylist()
        living = {*rows.filter(pc.and_not(is_living, is_own))["execution_id"].to_pylist()}
        if strays:
            self._strays[path] = {each: each in living for each in strays}
        if table is schema.CALLS:
            self._calls[path] = rows.filter(pc.and_(is_living, is_own))["call_execution_id"].unique()

    def findings(self) -> Iterator[Finding]:
        """All rows that are not where they should be, or not as they should be there."""
        yield from self._damaged
        yield from _in_two_files("execution", self._executions)
        yield from self._without_execution()
        yield from _in_two_files("call", self._calls)

    def _without_execution(self) -> Iterator[Finding]:
        """Rows that are all marked as deleted need no execution."""
        homes = {each: at for at, ids in self._executions.items() for each in ids.to_pylist()} if self._strays else {}
        for path, strays in self._strays.items():
            if away := [each for each in strays if each in homes]:
                text = f"holds calls or evals of {_named('execution', away)}, whose row is in {homes[away[0]]}"
                yield Finding(Kind.MISPLACED, path, text)
            if alone := [each for each, is_living in strays.items() if is_living and each not in homes]:
                text = f"holds calls or evals of {_named('execution', alone)}, missing from the executions table"
                yield Finding(Kind.DAMAGED, path, text)


def _in_two_files(thing: str, ids_in: Mapping[str, pa.Array]) -> Iterator[Finding]:
    """The ids that more than one file has, told at the first one."""
    ids = pa.chunked_array([*ids_in.values()], pa.string())
    ordered = ids.take(pc.sort_indices(ids))  # in less than half the memory of counting them
    twice = ordered[1:].filter(pc.equal(ordered[1:], ordered[:-1]))
    doubled = {path: own.filter(pc.is_in(own, value_set=twice)) for path, own in ids_in.items()}
    if paths := [path for path, own in doubled.items() if len(own)]:
        text = f"{_named(thing, doubled[paths[0]].to_pylist())} also in {first_few(paths[1:])}"
        yield Finding(Kind.MISPLACED, paths[0], text)


def _named(thing: str, ids: Collection[str]) -> str:
    return f"{counted(len(ids), thing)} ({first_few(list(ids))})"
