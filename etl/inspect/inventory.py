"""What lies in a dataset's folders, sorted by partition, and each file's rows as they were declared. Reads; changes nothing.

What is no file of the dataset, and what cannot be read as one, is a finding, and the rest is read nevertheless.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import DestinationError
from etl.inspect.rules import Finding, Kind, is_of_another_version, schema_fault
from etl.load.files.open import Files
from etl.load.layout import Partition, parse_partition_path, partition_path
from etl.model import schema

_RUN_PATH = re.compile(r"runs/date=([0-9]{4}-[0-9]{2}-[0-9]{2})/[0-9A-Za-z-]+\.parquet", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which partitions are looked at: of which run tests (None: all that there are), and from which day on."""

    run_test_keys: frozenset[str] | None = None
    since: date | None = None

    def has(self, partition: Partition) -> bool:
        """Whether the partition is in the scope."""
        return self.has_day(partition.date) and (
            self.run_test_keys is None or partition.run_test_key in self.run_test_keys
        )

    def has_day(self, day: str) -> bool:
        """Whether the day is in the scope."""
        return self.since is None or day >= self.since.isoformat()


@dataclass(slots=True)
class Inventory:
    """The files in the scope: of each partition by table, and of export runs; ``outside`` are executions of other partitions."""

    partitions: dict[Partition, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    runs: list[str] = field(default_factory=list)
    outside: dict[str, Partition] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def is_hidden(self, partition: Partition) -> bool:
        """Whether a link or the like stands where something of the partition should be."""
        odd = [Path(each.place) for each in self.findings if each.kind is Kind.ODDITY]
        paths = (Path(partition_path(name, partition)) for name in schema.TABLES)
        return any(each in (path, *path.parents) for path in paths for each in odd)


def take(files: Files, scope: Scope) -> Inventory:
    """The inventory as it is now.

    Raises:
        DestinationError: a folder cannot be listed.
    """
    inventory = Inventory()
    for entry in (entry for name in schema.TABLES for entry in files.entries(name)):
        if entry.oddity:
            inventory.findings.append(Finding(Kind.ODDITY, entry.path, entry.oddity))
        elif parsed := parse_partition_path(entry.path):
            table, partition = parsed
            if scope.has(partition):
                inventory.partitions[partition][table] = entry.path
            elif table == schema.EXECUTIONS.name:
                inventory.outside[entry.path] = partition
        elif match := _RUN_PATH.fullmatch(entry.path):
            inventory.runs += [entry.path] if scope.has_day(match[1]) else []
        else:
            inventory.findings.append(Finding(Kind.STRAY_FILE, entry.path, "is no file of this dataset"))
    return inventory


def versions(files: Files) -> dict[str, str]:
    """The version of each file of a table: whatever is written, removed or added meanwhile makes another."""
    return {entry.path: entry.version for name in schema.TABLES for entry in files.entries(name)}


@dataclass(frozen=True, slots=True)
class Read:
    """The rows of one file in exactly the declared columns; ``is_of_another_version``: the file has not exactly these."""

    rows: pa.Table
    size_bytes: int
    is_of_another_version: bool


def read(files: Files, table: schema.Table, path: str) -> Read | Finding:
    """One file, read whole, with the checksums of its pages."""
    try:
        data = files.read(path)
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if fault := schema_fault(table, file.schema_arrow):
            return Finding(fault.kind, path, fault.text)
        rows = file.read()
        rows.validate(full=True)
    except (DestinationError, pa.ArrowException, OSError) as exc:
        return Finding(Kind.UNREADABLE, path, f"cannot be read: {str(exc).partition(chr(10))[0]}")
    arrays = [
        rows[each.name] if each.name in rows.column_names else pa.nulls(len(rows), each.type)
        for each in table.arrow_schema
    ]
    return Read(
        rows=pa.Table.from_arrays(arrays, schema=table.arrow_schema),
        size_bytes=len(data),
        is_of_another_version=is_of_another_version(table, file.schema_arrow),
    )
