"""The files of a dataset by part, the rows of each file, read strictly, and what somebody took away. Changes nothing.

A file that does not belong to the dataset, or cannot be read, is a finding; the rest is read nevertheless. No run removes a row of
executions, calls or evals: what the index says of them and is gone was taken away, even while a run is at work.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from etl.errors import DestinationError, FileMissingError
from etl.inspect.rules import schema_fault
from etl.load.files.contract import Entry, Files, data_files
from etl.load.index import Index, index_if_readable
from etl.load.layout import Part, Scope, parse_part_path, parse_run_path, part_path
from etl.load.parquet import UnreadableError, open_part, read_footer
from etl.model import schema
from etl.model.findings import Finding, Kind
from etl.model.wording import counted


@dataclass(slots=True)
class Inventory:
    """The files in the scope, of each part by table, and of export runs; ``versions`` are those of all files."""

    parts: dict[Part, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    runs: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def is_hidden(self, part: Part) -> bool:
        """Whether a link or the like stands where a file or folder of the part should be."""
        odd = [Path(each.subject) for each in self.findings]
        paths = (Path(part_path(name, part)) for name in schema.TABLES)
        return any(each in (path, *path.parents) for path in paths for each in odd)


def list_dataset(files: Files, scope: Scope) -> Inventory:
    """The files as they are now.

    Raises:
        DestinationError: a folder cannot be listed.
    """
    inventory = Inventory()
    for entry in (entry for name in schema.TABLES for entry in files.entries(name)):
        inventory.versions[entry.path] = entry.version
        if entry.oddity:
            inventory.findings.append(Finding(Kind.FOREIGN_FILE, entry.path, entry.oddity))
        elif parsed := parse_part_path(entry.path):
            table, part = parsed
            if scope.has(part):
                inventory.parts[part][table] = entry.path
        elif run := parse_run_path(entry.path):
            inventory.runs += [entry.path] if scope.overlaps(run[0]) else []
        else:
            inventory.findings.append(Finding(Kind.FOREIGN_FILE, entry.path, "is not a file of this dataset"))
    return inventory


@dataclass(frozen=True, slots=True)
class FileRows:
    """The rows of one file in exactly the declared columns; ``is_outdated``: the file itself has other ones."""

    rows: pa.Table
    size_bytes: int
    is_outdated: bool


def read_file(files: Files, table: schema.Table, path: str) -> FileRows | Finding:
    """All rows of one file, each value checked, or what is wrong with the file."""
    try:
        part = open_part(files, table, path)
        if fault := schema_fault(table, part.footer.schema):
            return Finding(fault.kind, path, fault.text)
        rows = part.read_thoroughly()
    except UnreadableError as exc:
        return Finding(Kind.UNREADABLE, path, f"cannot be read: {exc.reason}")
    except DestinationError as exc:
        return Finding(Kind.NOT_READ, path, f"was not read: {exc}")
    return FileRows(rows=rows, size_bytes=part.footer.size_bytes, is_outdated=part.is_outdated)


def find_lost(index: Index, rows: Mapping[str, int | None], scope: Scope | None = None) -> list[Finding]:
    """A finding for each file that has fewer ``rows`` (by path) than the index says, or is missing. Pure.

    None is for a file that cannot be read, which is a finding of its own. ``scope``: only files that are in it.
    """
    findings = []
    for part, known in sorted(index.parts.items()):
        for table, before in zip(schema.OF_EXECUTIONS, known.counts, strict=True):
            path = part_path(table.name, part)
            now = rows.get(path, 0)
            is_wanted = table is not schema.ERRORS and (scope is None or scope.has(part))
            if is_wanted and now is not None and now < before:
                text = (
                    f"{counted(before - now, 'row')} missing; the last run left {before:,}"
                    if path in rows
                    else f"the file is missing; the last run left {counted(before, 'row')} in it"
                )
                findings.append(Finding(Kind.LOST_ROWS, path, text))
    return findings


def read_lost(files: Files, keys: Collection[str]) -> list[Finding]:
    """What ``find_lost`` finds under these keys of run tests.

    Raises:
        DestinationError: a folder or a file cannot be read.
    """
    index = index_if_readable(files, [])  # before the files: a run may replace it meanwhile
    rows = {
        entry.path: _rows(files, index, table, entry)
        for table in (schema.EXECUTIONS, schema.CALLS, schema.EVALS)
        for entry in data_files(files, table.name)
        if (parsed := parse_part_path(entry.path)) and parsed[1].run_test_key in keys
    }
    return find_lost(index, rows, Scope(frozenset(keys)))


def _rows(files: Files, index: Index, table: schema.Table, entry: Entry) -> int | None:
    """How many rows the file has, as the index says of this version of it, or else its footer."""
    if (known := index.count(table, entry)) is not None:
        return known
    try:
        return read_footer(files, entry.path).rows
    except FileMissingError:
        return 0
    except UnreadableError:
        return None
