"""What ``status`` needs of each file: how many rows it has, and some of its columns.

A file of executions, calls or evals that the index knows in this version is not opened, nor is one of an older run.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import FileMissingError
from etl.load.files.contract import Entry, Files, data_files
from etl.load.index import Index
from etl.load.layout import Part, parse_part_path, parse_run_path
from etl.load.parquet import UnreadableError, open_part, read_footer
from etl.model import schema

_RUNS_READ = 30
COUNTED = (schema.EXECUTIONS, schema.CALLS, schema.EVALS)
COLUMNS: dict[str, Sequence[str]] = {
    "executions": (
        "execution_id", "run_test_name", "started_at", "export_state", "deleted_at", "exported_at", "export_run_id",
        "exported_calls",
    ),
    "errors": ("execution_id", "endpoint", "status", "first_seen_at", "last_seen_at"),
    "runs": (
        "export_run_id", "started_at", "finished_at", "outcome", "exit_code", "seconds", "requests", "executions", "calls", "evals",
        "message",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file: its run test or export run, how many rows and bytes it has, and the wanted columns.

    ``is_known``: the index knows it in this version.
    """

    key: str
    rows: int
    size_bytes: int
    columns: pa.Table | None
    part: Part | None = None
    is_known: bool = False


def changed_counts(
    index: Index, parts: Mapping[str, Sequence[FilePart]], unreadable: Sequence[str], *, is_exporting: bool
) -> tuple[list[Counter[str]], list[Counter[str]]]:
    """Of executions, calls and evals, how many rows are gone since the last run said what it left, and how many have come.

    By the key of the run test. Those in a damaged file are neither, but unreadable. While an export replaces and moves rows it is
    only what is gone for sure.
    """
    gone, come = [Counter[str]() for _ in COUNTED], [Counter[str]() for _ in COUNTED]
    damaged = {path.partition("/")[0] for path in unreadable}
    if is_exporting:
        return _gone_meanwhile(index, parts, damaged), come
    for number, table in enumerate(COUNTED):
        if not index.parts or table.name in damaged:
            continue
        before, now = index.count(table), Counter[str]()
        for part in parts[table.name]:
            now[part.key] += part.rows
        gone[number], come[number] = before - now, now - before
    return gone, come


def _gone_meanwhile(
    index: Index, parts: Mapping[str, Sequence[FilePart]], damaged: Collection[str]
) -> list[Counter[str]]:
    """Executions that stand nowhere, and the rows of files that are gone beside executions that are as the last run left them.

    An export that removes a file has moved these executions, which stand elsewhere then, or replaces their rows at once. Of
    ``damaged`` tables nothing is told.
    """
    gone = [Counter[str]() for _ in COUNTED]
    if "executions" in damaged:
        return gone
    here = {table.name: {each.part for each in parts[table.name]} for table in COUNTED}
    unchanged = {each.part for each in parts["executions"] if each.is_known}
    stand = Counter(chain.from_iterable(_ids(each).to_pylist() for each in parts["executions"]))
    for part, known in index.parts.items():
        times = [stand[each] for each in known.rows.filter(known.rows["is_here"])["execution_id"].to_pylist()]
        gone[0][part.run_test_key] += times.count(0)
        for number, table in enumerate(COUNTED):
            if part in unchanged and 1 in times and part not in here[table.name] and table.name not in damaged:
                gone[number][part.run_test_key] += known.counts[schema.OF_EXECUTIONS.index(table)]
    return gone


def unmatched_calls(key: str, executions: Iterable[FilePart], calls: int, index: Index) -> int:
    """How many calls more than these the executions of the run test say were exported, and nobody accepts the loss of.

    Negative where there are calls whose executions are not there.
    """
    exported = sum(pc.sum(each.columns["exported_calls"]).as_py() or 0 for each in executions if each.columns)
    return exported + index.accepted_calls(key) - calls


def count_doubled(executions: Sequence[FilePart]) -> int:
    """How many rows are of an execution that has another row in another part."""
    ids = pa.chunked_array(chain.from_iterable(_ids(part).chunks for part in executions), pa.string())
    return len(ids) - int(pc.count_distinct(ids).as_py())


def _ids(executions: FilePart) -> pa.ChunkedArray:
    return executions.columns["execution_id"] if executions.columns else pa.chunked_array([], pa.string())


def table_files(
    files: Files, table: schema.Table, index: Index, unreadable: list[str], *, now: datetime
) -> list[FilePart]:
    """The table's files, but those that are gone by now; damaged ones, and foreign ones, are added to ``unreadable``.

    Raises:
        DestinationError: the table's folder cannot be listed, or a file there may not be read.
    """
    entries = data_files(files, table.name)
    paths = [entry.path for entry in entries]
    older = {*paths} - _recent(paths, now) if table is schema.RUNS_TABLE else set[str]()
    found = []
    for entry in entries:
        if not (parse_part_path(entry.path) or parse_run_path(entry.path)):
            unreadable.append(entry.path)
            continue
        if entry.path in older:  # each has one row; they are more every night
            found.append(FilePart(_key(entry.path), 1, entry.size_bytes, None))
        elif part := _known(index, table, entry) or _read(files, table, entry.path, unreadable):
            found.append(part)
    return found


def _known(index: Index, table: schema.Table, entry: Entry) -> FilePart | None:
    """What the index says of the file; None when it does not know this version, or not all that is wanted of it."""
    parsed = parse_part_path(entry.path)
    known = index.parts.get(parsed[1]) if parsed else None
    if parsed is None or known is None or table is schema.ERRORS or (rows := known.count(table, entry)) is None:
        return None
    columns = None
    if table is schema.EXECUTIONS:
        columns = known.rows.filter(known.rows["is_here"]).select(COLUMNS[table.name])
    return FilePart(parsed[1].run_test_key, rows, entry.size_bytes, columns, parsed[1], is_known=True)


def _read(files: Files, table: schema.Table, path: str, unreadable: list[str]) -> FilePart | None:
    """None when the file is gone by now, or is damaged, which is noted. Its footer alone is read where no column is wanted."""
    columns = None
    try:
        if names := COLUMNS.get(table.name):
            part = open_part(files, table, path)
            footer, columns = part.footer, part.read(names, may_be_newer=True)
        else:
            footer = read_footer(files, path)
    except FileMissingError:
        return None
    except UnreadableError:
        unreadable.append(path)
        return None
    part_of = parse_part_path(path)
    return FilePart(_key(path), footer.rows, footer.size_bytes, columns, part_of[1] if part_of else None)


def _key(path: str) -> str:
    part_of, run = parse_part_path(path), parse_run_path(path)
    return part_of[1].run_test_key if part_of else run[1] if run else ""


def _recent(paths: Sequence[str], now: datetime) -> set[str]:
    """The last files of ``runs``, whose names begin with a time: of all, and of those up to tomorrow."""
    ordered = sorted(paths, key=_name)
    tomorrow = f"{now + timedelta(days=1):%Y%m%dT%H%M%SZ}"
    return {*ordered[-_RUNS_READ:], *[path for path in ordered if _name(path) < tomorrow][-_RUNS_READ:]}


def _name(path: str) -> str:
    return path.rpartition("/")[2]
