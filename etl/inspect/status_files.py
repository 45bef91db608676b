"""What ``status`` needs of each file: how many rows it has, and some of its columns.

A file of executions, calls or evals that the index knows in this version is not opened, nor is one of an older run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa

from etl.errors import FileMissingError
from etl.load.files.contract import Entry, Files, data_files
from etl.load.index import Index
from etl.load.layout import Part, parse_part_path, parse_run_path
from etl.load.parquet import UnreadableError, open_part, read_footer
from etl.model import schema
from etl.model.findings import Finding, Kind

_RUNS_READ = 30
COLUMNS: dict[str, Sequence[str]] = {
    "executions": (
        "execution_id", "run_test_name", "started_at", "export_state", "deleted_at", "exported_at", "exported_calls",
    ),
    "errors": ("execution_id", "run_test_name", "message"),
    "runs": (
        "export_run_id", "started_at", "finished_at", "outcome", "exit_code", "seconds", "requests", "executions", "calls", "evals",
        "message",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file: how many rows and bytes it has, and the wanted columns of the rows; ``part`` is None for an export run."""

    path: str
    rows: int
    size_bytes: int
    columns: pa.Table | None
    part: Part | None


def table_files(
    files: Files, table: schema.Table, index: Index, findings: list[Finding], *, now: datetime
) -> list[StoredFile]:
    """The table's files; damaged ones, and foreign ones, are added to ``findings``.

    Raises:
        DestinationError: the table's folder cannot be listed, or a file there may not be read.
    """
    entries = data_files(files, table.name)
    paths = [entry.path for entry in entries]
    older = {*paths} - _recent(paths, now) if table is schema.RUNS_TABLE else set[str]()
    found = []
    for entry in entries:
        if not (parse_part_path(entry.path) or parse_run_path(entry.path)):
            findings.append(Finding(Kind.FOREIGN_FILE, entry.path, "is not a file of this dataset"))
        elif entry.path in older:  # each has one row; they are more every night
            found.append(StoredFile(entry.path, 1, entry.size_bytes, None, None))
        elif file := _known(index, table, entry) or _read(files, table, entry.path, findings):
            found.append(file)
    return found


def _known(index: Index, table: schema.Table, entry: Entry) -> StoredFile | None:
    """What the index says of the file; None when it does not know this version, or not all that is wanted of it."""
    rows, parsed = index.count(table, entry), parse_part_path(entry.path)
    if rows is None or parsed is None or table is schema.ERRORS:
        return None
    columns = None
    if table is schema.EXECUTIONS:
        known = index.parts[parsed[1]].rows
        columns = known.filter(known["is_here"]).select(COLUMNS[table.name])
    return StoredFile(entry.path, rows, entry.size_bytes, columns, parsed[1])


def _read(files: Files, table: schema.Table, path: str, findings: list[Finding]) -> StoredFile | None:
    """None when the file is gone by now, or is damaged. Its footer alone is read where no column is wanted."""
    columns = None
    try:
        if names := COLUMNS.get(table.name):
            part = open_part(files, table, path)
            footer, columns = part.footer, part.read(names, may_be_newer=True)
        else:
            footer = read_footer(files, path)
    except FileMissingError:
        return None
    except UnreadableError as exc:
        findings.append(Finding(Kind.UNREADABLE, path, f"cannot be read: {exc.reason}"))
        return None
    parsed = parse_part_path(path)
    return StoredFile(path, footer.rows, footer.size_bytes, columns, parsed[1] if parsed else None)


def _recent(paths: Sequence[str], now: datetime) -> set[str]:
    """The last files of ``runs``, whose names begin with a time: of all, and of those up to tomorrow."""
    ordered = sorted(paths, key=_name)
    tomorrow = f"{now + timedelta(days=1):%Y%m%dT%H%M%SZ}"
    return {*ordered[-_RUNS_READ:], *[path for path in ordered if _name(path) < tomorrow][-_RUNS_READ:]}


def _name(path: str) -> str:
    return path.rpartition("/")[2]
