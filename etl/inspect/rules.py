"""What must hold for a file of the dataset, and for the rows of one part. Pure: schemas and tables in, faults out.

Nothing is fixed here: each fault is described, and a finding adds what to do about it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.model import schema
from etl.model.lifecycle import ExportState, HeldRows
from etl.model.wording import counted, shown
from etl.transform.frames import hash_rows

_BATCH_ROWS = 5_000


class Kind(StrEnum):
    """What is wrong in the dataset."""

    ODDITY = "oddity"
    STRAY_FILE = "stray_file"
    NOT_READ = "not_read"
    UNREADABLE = "unreadable"
    SCHEMA = "schema"
    NULL_KEY = "null_key"
    DOUBLED = "doubled"
    SPREAD = "spread"
    ALTERED = "altered"
    DAMAGED = "damaged"
    MISPLACED = "misplaced"
    NO_EXECUTION = "no_execution"
    GONE = "gone"
    DEAD_LETTER = "dead_letter"
    NOT_LISTED = "not_listed"
    DIFFERENCE = "difference"
    NOT_LOADED = "not_loaded"


KIND_MEANINGS: dict[Kind, str] = {
    Kind.ODDITY: "a link, pipe or device, or a folder with the name of a file; it is not followed",
    Kind.STRAY_FILE: "a file that metrics-etl did not write; a run refuses it if its name ends with .parquet",
    Kind.NOT_READ: "a file that this user may not read, or that does not fit into memory",
    Kind.UNREADABLE: "a damaged file: cut short, or with a wrong checksum",
    Kind.SCHEMA: "a file with other columns, types or order than declared",
    Kind.NULL_KEY: "a row without a key",
    Kind.DOUBLED: "a key that occurs twice, in one file or in two",
    Kind.SPREAD: "an execution with rows in several parts",
    Kind.ALTERED: "a row whose values are not those that were exported",
    Kind.DAMAGED: "an execution whose stored calls or evals are not those that were exported",
    Kind.MISPLACED: "rows in another part than their execution",
    Kind.NO_EXECUTION: "rows whose execution has no row of its own",
    Kind.GONE: "rows that the last run left and that are not there; only looked for where nothing else is wrong",
    Kind.DEAD_LETTER: "a request that was given up, see the table errors",
    Kind.NOT_LISTED: "with --against-api: a run test, or rows of its list, that the API did not give",
    Kind.DIFFERENCE: "with --against-api: an aggregate that differs without a known cause",
    Kind.NOT_LOADED: "with --warehouse: an execution, a run or dead letters with other rows in the warehouse",
}

_FETCHED_AGAIN = "metrics-etl run fetches again what the API still lists of it"
_MOVE_ASIDE = "move the file out of the dataset, then metrics-etl run fetches its rows again"

FIXES: dict[Kind, str] = {
    Kind.ODDITY: "replace it with the files themselves, or remove it",
    Kind.STRAY_FILE: "move it out of the dataset: readers take it for data",
    Kind.NOT_READ: "leave the file where it is: its rows may be intact",
    Kind.UNREADABLE: _MOVE_ASIDE,
    Kind.SCHEMA: f"upgrade the exporter if a newer one wrote it, else {_MOVE_ASIDE}",
    Kind.NULL_KEY: _MOVE_ASIDE,
    Kind.DOUBLED: _MOVE_ASIDE,
    Kind.SPREAD: "metrics-etl run keeps the complete rows that were written last",
    Kind.ALTERED: _MOVE_ASIDE,
    Kind.DAMAGED: _FETCHED_AGAIN,
    Kind.MISPLACED: "move the file back to where it was, or metrics-etl run drops what belongs elsewhere",
    Kind.NO_EXECUTION: _FETCHED_AGAIN,
    Kind.GONE: "metrics-etl status says what to do",
    Kind.DEAD_LETTER: "metrics-etl run retries it",
    Kind.NOT_LISTED: "check run_tests in the settings",
    Kind.DIFFERENCE: "metrics-etl run --full-refresh fetches it again; if the difference stays, please report it",
    Kind.NOT_LOADED: "metrics-etl load makes the warehouse equal again",
}

_MOVE_RUN_ASIDE = "move the file out of the dataset: at most the row of that one run is lost"

FIXES_OF_RUNS: dict[Kind, str] = FIXES | {
    **dict.fromkeys((Kind.UNREADABLE, Kind.NULL_KEY, Kind.DOUBLED, Kind.ALTERED), _MOVE_RUN_ASIDE),
    Kind.SCHEMA: f"upgrade the exporter if a newer one wrote it, else {_MOVE_RUN_ASIDE}",
    Kind.MISPLACED: f"move the file back to where it was, or {_MOVE_RUN_ASIDE}",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, and what; ``fix`` says what to do about it."""

    kind: Kind
    place: str
    text: str

    @property
    def fix(self) -> str:
        """What to do about it."""
        is_of_runs = self.place.startswith(f"{schema.RUNS_TABLE.name}/")
        return (FIXES_OF_RUNS if is_of_runs else FIXES)[self.kind]

    def __str__(self) -> str:
        """One line, without control characters."""
        return shown(f"{self.kind.value}: {self.place}: {self.text}: {self.fix}")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a file, whichever it is."""

    kind: Kind
    text: str


def schema_fault(table: schema.Table, found: pa.Schema) -> Fault | None:
    """Why a file of this schema is not one of the table: unknown columns, a missing key, other types, another order."""
    if unknown := [name for name in found.names if name not in table.names]:
        return Fault(Kind.SCHEMA, f"has unknown columns: {', '.join(unknown)}")
    if missing := [name for name in table.key if name not in found.names]:
        return Fault(Kind.SCHEMA, f"is missing the column {missing[0]}, a part of its key")
    if found.names != (known := [name for name in table.names if name in found.names]):
        return Fault(Kind.SCHEMA, f"has its columns in another order than {', '.join(known)}")
    for each in found:
        declared = table.arrow_schema.field(each.name)
        if each.type != declared.type:
            return Fault(Kind.SCHEMA, f"has {each.name} as {each.type}, expected {declared.type}")
        if each.nullable != declared.nullable:
            return Fault(Kind.SCHEMA, f"declares {each.name} as {'' if each.nullable else 'not '}nullable")
    return None


def row_faults(table: schema.Table, rows: pa.Table) -> Iterator[Fault]:
    """Null keys, duplicate keys, and rows whose values are not those that were hashed."""
    keys = list(zip(*(rows[name].to_pylist() for name in table.key), strict=True))
    if nulls := sum(None in key for key in keys):
        yield Fault(Kind.NULL_KEY, f"{counted(nulls, 'row')} without {' or '.join(table.key)}")
    counts = Counter(keys)
    if len(counts) < len(keys):
        doubled = [key for key, count in counts.items() if count > 1]
        yield Fault(Kind.DOUBLED, f"{counted(len(doubled), 'key')} more than once: {_key(table, doubled[0])}")
    if "row_hash" in table.names:
        altered = list(_altered(table, rows))
        if altered:
            yield Fault(
                Kind.ALTERED,
                f"{counted(len(altered), 'row')} with other values than were exported: {_key(table, keys[altered[0]])}",
            )


def _altered(table: schema.Table, rows: pa.Table) -> Iterator[int]:
    """Positions of the rows whose hash is not that of their values; rows without a hash are left to the digest."""
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = rows.slice(start, _BATCH_ROWS)
        pairs = zip(batch["row_hash"].to_pylist(), hash_rows(table, batch), strict=True)
        yield from (start + index for index, (stored, made) in enumerate(pairs) if stored not in (None, made))


@dataclass(slots=True)
class KeyedHashes:
    """The row hashes of one execution by table and key, so that rows that lie in several files are counted once."""

    hashes: dict[str, dict[tuple[Any, ...], str | None]] = field(default_factory=dict)

    def __or__(self, other: "KeyedHashes") -> "KeyedHashes":
        """These rows, and those of the others whose keys are not among them."""
        names = self.hashes.keys() | other.hashes.keys()
        return KeyedHashes({name: other.hashes.get(name, {}) | self.hashes.get(name, {}) for name in names})

    def of(self, table: str) -> "KeyedHashes":
        """Those of one table."""
        return KeyedHashes({table: self.hashes.get(table, {})})

    def held(self, listed_calls: int | None) -> HeldRows:
        """What these rows make of the execution."""
        calls, evals = (self.hashes.get(table.name, {}).values() for table in (schema.CALLS, schema.EVALS))
        return HeldRows.of(listed_calls, calls, evals)


def hashes_by_execution(tables: Mapping[str, pa.Table]) -> dict[str, KeyedHashes]:
    """The row hashes in the tables of calls and evals, by execution_id."""
    found: dict[str, KeyedHashes] = {}
    for name in (schema.CALLS.name, schema.EVALS.name):
        if (rows := tables.get(name)) is None:
            continue
        keys = zip(*(rows[each].to_pylist() for each in schema.TABLES[name].key), strict=True)
        columns = (rows["execution_id"].to_pylist(), keys, rows["row_hash"].to_pylist())
        of_table: dict[str, dict[tuple[Any, ...], str | None]] = {}
        for execution_id, key, row_hash in zip(*columns, strict=True):
            of_table.setdefault(execution_id, {})[key] = row_hash
        for execution_id, hashes in of_table.items():
            found.setdefault(execution_id, KeyedHashes()).hashes[name] = hashes
    return found


def damage(row: Mapping[str, Any], held: HeldRows) -> str | None:
    """What an execution's row says of its calls and evals that is not true of the rows that are ``held``."""
    if held.exported_calls != row["exported_calls"]:
        return f"{held.exported_calls} of {row['exported_calls']} exported calls are there"
    if not held.is_as_exported(row["calls_digest"]):
        return "its calls or evals are not those that were exported"
    if row["export_state"] in (ExportState.EXPORTED, ExportState.SETTLING) and held.listed_calls != held.exported_calls:
        return f"{row['export_state']}, but {held.listed_calls} calls were listed and {held.exported_calls} exported"
    return None


def other_executions(rows: pa.Table, executions: Iterable[str]) -> list[str]:
    """The executions of the rows that are not among ``executions``."""
    others = pc.invert(pc.is_in(rows["execution_id"], value_set=pa.array(list(executions), pa.string())))
    return rows["execution_id"].filter(others).unique().to_pylist()  # type: ignore[no-any-return]


def _key(table: schema.Table, key: tuple[Any, ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(table.key, key, strict=True))
