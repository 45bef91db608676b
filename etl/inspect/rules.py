"""The rules of ``verify``: what must hold for the rows of a file, for those of a part, and across parts.

Pure: tables come in, findings go out.
"""

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
"""Joins the values of a key to one text."""
_COUNTED = ("execution_id", "export_state", "calls_digest", "listed_calls", "exported_calls", "deleted_at")
"""What of an execution's row says how much there is of it."""


def doubled_rows(table: schema.Table, path: str, rows: pa.Table) -> Iterator[Finding]:
    """A finding if rows of the file at ``path`` have the same key.

    A call that the source moved to another execution keeps its row in the old one, marked as deleted. So marked rows of
    two executions may have the same key, and so may one of them and a living row.
    """
    keys = [rows[name] for name in table.key]
    if table in schema.OF_CALLS:
        keys.append(pc.if_else(rows["deleted_at"].is_valid(), rows["execution_id"], ""))
    counts = pc.value_counts(pc.binary_join_element_wise(*keys, _BETWEEN_KEYS))
    if twice := counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist():
        first = zip(table.key, twice[0].split(_BETWEEN_KEYS), strict=False)
        key = ", ".join(f"{name} {value}" for name, value in first)
        yield Finding(Kind.MISPLACED, path, f"holds {counted(len(twice), 'duplicate key')} (first: {key})")


def damage(row: Mapping[str, Any], held: HeldRows) -> str | None:
    """What an execution's row says about its calls and evals that is not true of the stored rows; else None."""
    if held.exported_calls != row["exported_calls"]:
        return f"the dataset has {held.exported_calls} of the {row['exported_calls']} calls that were exported"
    if held.calls_digest != row["calls_digest"]:
        return "its calls or evals differ from what was exported"
    is_whole = row["export_state"] in (ExportState.EXPORTED, ExportState.SETTLING) and row["deleted_at"] is None
    if is_whole and row["listed_calls"] != held.exported_calls:
        return f"it is {row['export_state']}, but has {held.exported_calls} of {row['listed_calls']} listed calls"
    return None


class Placement:
    """Whether the rows of each execution lie together, in one part. ``add`` every part, then read the ``findings``.

    It keeps the ids of executions and calls, and of the other rows only what is wrong with them.
    """

    def __init__(self) -> None:
        self.damaged: list[Finding] = []
        self.executions: dict[str, pa.Array] = {}
        """By path, the ids of the executions in the file."""
        self.calls: dict[str, pa.Array] = {}
        """By path, the ids of the living calls that lie beside their execution."""
        self.strays: dict[str, dict[str, bool]] = {}
        """By path, the executions whose row is not in the part, each with whether it has living rows in the file."""

    def add(self, part: Part, rows: Mapping[str, pa.Table | None]) -> None:
        """Add a part: its rows by table. None is for a file that cannot be read; nothing of it counts as missing."""
        tables = (schema.EXECUTIONS, schema.CALLS, schema.EVALS)
        executions, calls, evals = (rows.get(table.name, table.no_rows) for table in tables)
        if executions is None:
            return
        path = part_path(schema.EXECUTIONS.name, part)
        execution_rows = executions.select(_COUNTED).to_pylist()
        ids = dict.fromkeys(row["execution_id"] for row in execution_rows)
        self.executions[path] = pa.array(list(ids), pa.string())
        if calls is not None and evals is not None:
            held = held_rows(ids, calls, evals)
            texts = ((row["execution_id"], damage(row, held[row["execution_id"]])) for row in execution_rows)
            if damaged := [f"{execution_id} ({text})" for execution_id, text in texts if text]:
                text = f"holds {counted(len(damaged), 'damaged execution')}: {first_few(damaged)}"
                self.damaged.append(Finding(Kind.DAMAGED, path, text))
        for table, table_rows in ((schema.CALLS, calls), (schema.EVALS, evals)):
            if table_rows is not None:
                self._add_beside(table, part_path(table.name, part), table_rows, ids)

    def update(self, other: "Placement") -> None:
        """Add the parts of another one."""
        self.damaged += other.damaged
        self.executions = dict(sorted((self.executions | other.executions).items()))
        self.calls = dict(sorted((self.calls | other.calls).items()))
        self.strays = dict(sorted((self.strays | other.strays).items()))

    def _add_beside(self, table: schema.Table, path: str, rows: pa.Table, ids: Collection[str]) -> None:
        """Add the rows of calls or evals that lie beside the executions with these ids."""
        is_own = is_of(rows, ids)
        is_living = pc.is_null(rows["deleted_at"])
        strays = rows.filter(pc.invert(is_own))["execution_id"].unique().to_pylist()
        living = {*rows.filter(pc.and_not(is_living, is_own))["execution_id"].to_pylist()}
        if strays:
            self.strays[path] = {execution_id: execution_id in living for execution_id in strays}
        if table is schema.CALLS:
            self.calls[path] = rows.filter(pc.and_(is_living, is_own))["call_execution_id"].unique()

    def findings(self) -> Iterator[Finding]:
        """All findings about the parts that were added."""
        yield from self.damaged
        yield from _in_two_files("execution", self.executions)
        yield from self._without_execution()
        yield from _in_two_files("call", self.calls)

    def _without_execution(self) -> Iterator[Finding]:
        """Rows of executions that have no row in their part: it is in another part, or nowhere.

        If all rows that an execution has in a file are marked as deleted, it needs no row.
        """
        if not self.strays:
            return
        path_of = {id_: path for path, ids in self.executions.items() for id_ in ids.to_pylist()}
        for path, strays in self.strays.items():
            if elsewhere := [execution_id for execution_id in strays if execution_id in path_of]:
                executions = _named("execution", elsewhere)
                text = f"holds calls or evals of {executions}, whose row is in {path_of[elsewhere[0]]}"
                yield Finding(Kind.MISPLACED, path, text)
            if nowhere := [id_ for id_, is_living in strays.items() if is_living and id_ not in path_of]:
                text = f"holds calls or evals of {_named('execution', nowhere)} without a row in the executions table"
                yield Finding(Kind.DAMAGED, path, text)


def _in_two_files(thing: str, ids_in: Mapping[str, pa.Array]) -> Iterator[Finding]:
    """A finding if ids stand in more than one file; its subject is the first of these files."""
    ids = pa.chunked_array([*ids_in.values()], pa.string())
    ordered = ids.take(pc.sort_indices(ids))  # takes less than half the memory of counting
    twice = ordered[1:].filter(pc.equal(ordered[1:], ordered[:-1]))
    doubled = {path: own.filter(pc.is_in(own, value_set=twice)) for path, own in ids_in.items()}
    if paths := [path for path, own in doubled.items() if len(own)]:
        text = f"has {_named(thing, doubled[paths[0]].to_pylist())} in common with {first_few(paths[1:])}"
        yield Finding(Kind.MISPLACED, paths[0], text)


def _named(thing: str, ids: Collection[str]) -> str:
    """How many things there are, and the first few ids: ``2 calls (c1, c2)``."""
    return f"{counted(len(ids), thing)} ({first_few(list(ids))})"
