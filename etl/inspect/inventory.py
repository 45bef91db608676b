"""The files of a dataset by part, and the rows of each file, read strictly. Changes nothing.

A file that does not belong to the dataset, or cannot be read, is a finding; the rest is read nevertheless.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from etl.errors import DestinationError
from etl.inspect.rules import Finding, Kind, schema_fault
from etl.load.files.contract import Files
from etl.load.layout import Part, Scope, parse_part_path, parse_run_path, part_path
from etl.load.parquet import UnreadableError, open_part
from etl.model import schema


@dataclass(slots=True)
class Inventory:
    """The files in the scope: of each part by table, and of export runs.

    ``outside`` are the files of executions out of the scope, ``versions`` those of all files.
    """

    parts: dict[Part, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    runs: list[str] = field(default_factory=list)
    outside: dict[str, Part] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def is_hidden(self, part: Part) -> bool:
        """Whether a link or the like stands where a file or folder of the part should be."""
        odd = [Path(each.place) for each in self.findings if each.kind is Kind.ODDITY]
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
            inventory.findings.append(Finding(Kind.ODDITY, entry.path, entry.oddity))
        elif parsed := parse_part_path(entry.path):
            table, part = parsed
            if scope.has(part):
                inventory.parts[part][table] = entry.path
            elif table == schema.EXECUTIONS.name:
                inventory.outside[entry.path] = part
        elif run := parse_run_path(entry.path):
            inventory.runs += [entry.path] if scope.overlaps(run[0]) else []
        else:
            inventory.findings.append(Finding(Kind.STRAY_FILE, entry.path, "is not a file of this dataset"))
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
