"""What a dataset holds: all rows of all files, read again only where a file changed, and a copy that follows them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from etl.dataset.layout import Part, parse_part_path
from etl.model import schema
from etl.model.digest import rows_digest, voucher
from etl.model.records import DETAIL
from tests.datasets import hash_of
from tests.machine.in_process import Store
from tests.machine.parquet import decode

TABLES = ("executions", "calls", "evals", "errors")
DATA = ("executions", "calls", "evals")

Row = dict[str, Any]
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """One row and the part in which it lies. The same object as before where its file did not change."""

    part: Part
    row: Row


@dataclass(slots=True)
class Rows:
    """All rows at one time: by table and key, and those of each execution."""

    tables: dict[str, dict[Key, Held]] = field(default_factory=lambda: {table: {} for table in TABLES})
    of: dict[str, dict[tuple[str, Key], Held]] = field(default_factory=dict)
    """Executions, calls and evals by execution_id."""

    @property
    def executions(self) -> dict[str, Held]:
        return {key[0]: held for key, held in self.tables["executions"].items()}

    def add(self, table: str, key: Key, held: Held) -> None:
        assert key not in self.tables[table], f"L6: {table}: {key} stands twice"
        self.tables[table][key] = held
        if table in DATA:
            self.of.setdefault(held.row["execution_id"], {})[table, key] = held

    def called(self, names: Iterable[str]) -> set[str]:
        """The executions that are stored under these names."""
        wanted = {*names}
        return {each for (each,), held in self.tables["executions"].items() if held.row["run_test_name"] in wanted}

    def in_state(self, *states: str) -> set[str]:
        """The executions in one of these export states."""
        return {each for (each,), held in self.tables["executions"].items() if held.row["export_state"] in states}


def is_marked(row: Row) -> bool:
    return row["deleted_at"] is not None


def said(table: str, row: Row) -> Row:
    """What a row says of the source, apart from the name; of an execution, what its list shows."""
    if table == "executions":
        return {"fingerprint": row["fingerprint"], "is_marked": is_marked(row)}
    return {name: value for name, value in row.items() if name not in _NOT_OF_THE_SOURCE} | {
        "is_marked": is_marked(row)
    }


_NOT_OF_THE_SOURCE = {"export_run_id", "exported_at", "run_test_name", "deleted_at", "metrics_from"}


def is_from_lists(rows: "Rows", execution_id: str) -> bool:
    """Whether a living call of the execution has no metrics but those of its lists."""
    return any(
        held.row["metrics_from"] == "detail" and not is_marked(held.row)
        for (table, _), held in rows.of.get(execution_id, {}).items()
        if table == "calls"
    )


def is_vouched_for(mine: dict[tuple[str, Key], Held]) -> bool:
    """Whether the digest in the execution's row is that of its calls and evals.

    Rows that are all marked need no execution.
    """
    own = next((held.row for (table, _), held in mine.items() if table == "executions"), None)
    if own is None:
        return all(held.row["deleted_at"] is not None for held in mine.values())
    return bool(
        own["calls_digest"]
        == digest_of((table, held.row) for (table, _), held in mine.items() if table != "executions")
    )


def digest_of(rows: Iterable[tuple[str, Row]]) -> str:
    """The product's own digest of calls and evals, each with its table."""
    return rows_digest(voucher(hash_of(table, row), is_deleted=is_marked(row)) for table, row in rows)


class Reader:
    """Reads the files of a store. Each file of a table must be whole and have the declared schema (L1)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, tuple[bytes, list[tuple[Key, Held]]]] = {}
        self.damaged: dict[str, int] = {}
        """Files that something else than an export spoiled, with their versions."""
        self.forgotten: set[str] = set()
        """Executions that are not among the rows: their owner forgot them."""
        self.left: list[Row] = []
        """Their rows, as they were read last."""

    def rows(self) -> Rows:
        found = Rows()
        self.left = []
        for path, (version, data) in sorted(self._store.content.items()):
            if path.partition("/")[0] in TABLES and (self.damaged.get(path) != version or _is_readable(path, data)):
                for key, held in self._rows_of(path, data):
                    if held.row["execution_id"] in self.forgotten:
                        self.left.append(held.row)
                    else:
                        found.add(path.partition("/")[0], key, held)
        return found

    def _rows_of(self, path: str, data: bytes) -> list[tuple[Key, Held]]:
        if path not in self._read or self._read[path][0] is not data:
            self._read[path] = data, _rows_of(path, data)
        return self._read[path][1]

    def unvouched(self, before: Rows) -> list[str]:
        """Of what was published since: executions whose row came before their calls, evals or errors (L2).

        That is, it vouches for calls and evals that were not there, or says that all is well beside a dead letter. Each
        file that was published is read, also one that was replaced since (L1).
        """
        wrong: list[str] = []
        calls: dict[Part, dict[str, dict[Key, Held]]] = {}
        for table in _BEFORE:
            for key, held in before.tables[table].items():
                calls.setdefault(held.part, {}).setdefault(table, {})[key] = held
        last = dict(before.executions)
        for path, data in self._store.published:
            if (parsed := parse_part_path(path)) is None or parsed[0] not in TABLES:
                continue
            table, part = parsed
            rows = dict(self._rows_of(path, data))
            if table in _BEFORE:
                calls.setdefault(part, {})[table] = rows
                continue
            for key, held in rows.items():
                old = last.get(key[0])
                last[key[0]] = held
                mine: dict[tuple[str, Key], Held] = {("executions", key): held}
                for name, others in calls.get(part, {}).items():
                    mine |= {(name, each): row for each, row in others.items() if row.row["execution_id"] == key[0]}
                has_letters = any(name == "errors" and each[0] != DETAIL for name, each in mine)
                mine = {each: row for each, row in mine.items() if each[0] != "errors"}
                is_as_before = old is not None and old.row["calls_digest"] == held.row["calls_digest"]
                is_new = old is None or old.row != held.row
                # A part of it may bring a dead letter before its row says so: that it settles was said before.
                is_now_whole = held.row["export_state"] in ("settling", "exported")
                is_now_whole &= old is None or old.row["export_state"] != held.row["export_state"]
                if is_new and ((is_now_whole and has_letters) or not (is_as_before or is_vouched_for(mine))):
                    wrong.append(key[0])
        self._store.published.clear()
        return wrong


_BEFORE = ("calls", "evals", "errors")
"""What is published before the execution row."""


def _is_readable(path: str, data: bytes) -> bool:
    """A byte may change in a footer where nothing is lost by it."""
    try:
        _rows_of(path, data)
    except (OSError, pa.ArrowException, AssertionError):
        return False
    return True


def _rows_of(path: str, data: bytes) -> list[tuple[Key, Held]]:
    parsed = parse_part_path(path)
    assert parsed is not None, f"L1: {path} is no part"
    table, part = schema.TABLES[parsed[0]], parsed[1]
    found = decode(data)
    assert found.schema.equals(table.arrow_schema, check_metadata=True), f"L1: {path} has another schema"
    columns = [column.to_pylist() for column in found.columns]
    keys = [table.names.index(name) for name in table.key]
    return [
        (tuple(values[index] for index in keys), Held(part, dict(zip(table.names, values, strict=True))))
        for values in zip(*columns, strict=True)
    ]


@dataclass(slots=True)
class Follower:
    """A copy that is kept by ``exported_at`` alone: it replaces all rows of an execution that has another one."""

    rows: dict[str, dict[tuple[str, Key], Held]] = field(default_factory=dict)

    def follow(self, now: Rows) -> None:
        for execution_id in {*self.rows, *now.of}:
            mine, theirs = self.rows.get(execution_id, {}), now.of.get(execution_id, {})
            if _version(execution_id, mine) != _version(execution_id, theirs):
                self.rows[execution_id] = theirs

    def differs(self, now: Rows, *, said: bool) -> list[str]:
        """Whole executions that it has otherwise; with ``said``, whoever wrote the same does not matter."""
        return [
            execution_id
            for execution_id, theirs in now.of.items()
            if (mine := self.rows.get(execution_id, {})) is not theirs
            and ("executions", (execution_id,)) in theirs
            and is_vouched_for(theirs)
            and not _has_newer_rows(theirs)
            and (_said(mine) != _said(theirs) if said else mine != theirs)
        ]


def _version(execution_id: str, mine: dict[tuple[str, Key], Held]) -> Any:
    own = mine.get(("executions", (execution_id,)))
    return own and own.row["exported_at"]


def _has_newer_rows(mine: dict[tuple[str, Key], Held]) -> bool:
    """As a run that was killed leaves them; the next one that lists the execution fetches it again."""
    own = next(held.row for (table, _), held in mine.items() if table == "executions")
    return any(held.row["exported_at"] > own["exported_at"] for held in mine.values())


def _said(mine: dict[tuple[str, Key], Held]) -> Any:
    return {
        key: (
            held.part,
            {name: value for name, value in held.row.items() if name not in ("export_run_id", "exported_at")},
        )
        for key, held in mine.items()
    }
