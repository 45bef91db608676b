"""Check a dataset against what the exporter promises, from its files alone: without a key, the network or a lock.

Each file is as a run wrote it, can be read, has unique keys and no unknown columns. Each row lies beside its execution,
and each execution has exactly the calls and evals that were exported. What is wrong is a finding, and does not keep the
rest from being read. Nothing is changed. Large datasets are read by as many processes as there are processors.
"""

import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date
from typing import Any

import pyarrow as pa

from etl.dataset.index import index_if_readable
from etl.dataset.last_run import read_last_run
from etl.dataset.layout import Part, Scope, parse_part_path, part_path, run_part
from etl.dataset.parquet import OpenPart, UnreadableError
from etl.errors import DestinationError, ExitCode
from etl.files.interface import Entry, Files
from etl.files.names import QUARANTINE
from etl.files.open import open_files
from etl.inspect.processes import in_processes
from etl.inspect.read_tables import find_scope, open_dataset
from etl.inspect.rules import Placement, doubled_rows
from etl.inspect.stored import TableStatus, find_lost
from etl.inspect.verify_warehouse import WarehouseReport
from etl.model import schema
from etl.model.findings import Finding, Kind
from etl.model.lifecycle import ExportState
from etl.model.values import fields_of
from etl.model.wording import counted
from etl.settings import Settings
from etl.settings.sections import Destination

_SHARE_BYTES = 16 * 1024 * 1024
"""Less than so much is read sooner than a process has started that reads it."""
_Parts = list[tuple[Part, dict[str, str]]]
"""Parts in their order, each with the paths of its files by table."""


@dataclass(slots=True)
class VerifyReport:
    """What ``verify`` read and found, and what a comparison with a warehouse added."""

    dataset: str
    """The path or URL of the dataset."""
    tables: dict[str, TableStatus] = field(default_factory=lambda: {name: TableStatus(name) for name in schema.TABLES})
    """By table, how much was read."""
    findings: list[Finding] = field(default_factory=list)
    """What is wrong."""
    notices: list[str] = field(default_factory=list)
    """What else people should know, one line each."""
    export_at_work: str | None = None
    """The process that was exporting meanwhile, None if there was none."""
    warehouse: WarehouseReport | None = None
    """The comparison with the warehouse, if there was one."""

    @property
    def exit_code(self) -> ExitCode:
        """3 if anything is wrong, else 0."""
        return ExitCode.PARTIAL if self.findings else ExitCode.COMPLETE

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object, as ``verify --json`` prints it."""
        return {
            **fields_of(self, "dataset", "exit_code", "export_at_work"),
            "tables": [
                {"name": name, "files": table.files, "rows": table.rows, "bytes": table.size_bytes}
                for name, table in self.tables.items()
            ],
            "findings": [finding.as_json() for finding in self.findings],
            "notices": self.notices,
            "warehouse": self.warehouse.as_json() if self.warehouse else None,
        }


def verify(settings: Settings, scope: Scope) -> VerifyReport:
    """Read the files in the scope, and say what is wrong with them, and whether they changed meanwhile.

    Raises:
        ConfigurationError: the destination in the settings is wrong.
        DestinationError: there is no dataset, or it cannot be reached.
    """
    files = open_dataset(settings.destination.path, settings.destination.options)
    at_work = files.lock_holder()
    index = index_if_readable(files, [])  # before the files: a run may replace it meanwhile
    entries = _entries(files)
    reading = _Reading(VerifyReport(settings.destination.path))
    parts = reading.sort(entries, scope)
    size = sum(entry.size_bytes for entry in entries)
    count = max(1, min(os.cpu_count() or 1, size // _SHARE_BYTES))
    shares = [(settings.destination, parts[number::count]) for number in range(count)]
    for share in in_processes(_read_share, shares) if count > 1 else map(_read_share, shares):
        reading.add(share)
    report = reading.report
    report.findings += reading.placement.findings()
    report.findings += find_lost(index, reading.rows, scope)
    report.export_at_work = at_work or files.lock_holder()
    if report.export_at_work is None:
        reading.compare_hashes(read_last_run(files, note=lambda _: None).last_writer)  # after the files: one may begin
    report.findings.sort(key=lambda finding: (finding.subject, finding.kind))
    if report.export_at_work:
        report.notices.append(f"an export is running on this dataset ({report.export_at_work})")
    if damaged := files.entries(QUARANTINE):
        report.notices.append(f"inspect and then delete {counted(len(damaged), 'damaged file')} in {QUARANTINE}")
    if report.findings and [entry.version for entry in entries] != [entry.version for entry in _entries(files)]:
        report.notices.append("files changed while they were read. Verify again when the export has ended")
    return report


def stored_scope(settings: Settings, run_tests: Collection[str], since: date | None) -> Scope:
    """The scope of everything under the keys of these run tests, from the day on.

    Run tests are given by name or key; all if there are none.

    Raises:
        ConfigurationError: the settings or the dataset do not have a run test, or the day is in the future.
    """
    narrowed = settings.only(run_tests, since=since)
    files = open_dataset(settings.destination.path, settings.destination.options)
    names = [run_test.name for run_test in narrowed.run_tests] if run_tests else None
    return replace(find_scope(files, schema.EXECUTIONS, names, since, None), names={})


@dataclass(slots=True)
class _Reading:
    """What reading parts has found."""

    report: VerifyReport
    """The findings, and how much was read."""
    rows: dict[str, int | None] = field(default_factory=dict)
    """By path, how many rows each file has; None if it cannot be read."""
    placement: Placement = field(default_factory=Placement)
    """Whether the rows of each execution lie together."""
    hashes: dict[str, str] = field(default_factory=dict)
    """By path, the SHA-256 of each file that can be read, except for those of export runs."""
    receipts: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """By the id of the run, its receipt; None if it left none."""

    def sort(self, entries: Iterable[Entry], scope: Scope) -> _Parts:
        """The parts in the scope; what else lies there is a finding."""
        parts: dict[Part, dict[str, str]] = defaultdict(dict)
        for entry in entries:
            if entry.oddity:
                self._find(Kind.FOREIGN_FILE, entry.path, entry.oddity)
            elif parsed := parse_part_path(entry.path):
                table_name, part = parsed
                parts[part][table_name] = entry.path
            else:
                self._find(Kind.FOREIGN_FILE, entry.path, "is not a file of this dataset")
        return [(part, paths) for part, paths in sorted(parts.items()) if scope.has(part)]

    def read(self, files: Files, part: Part, paths: Mapping[str, str]) -> None:
        """Read the files of one part, each once."""
        rows = {name: self._read(files, schema.TABLES[name], path) for name, path in paths.items()}
        if part.run_test_key:
            self._check_part(part, rows)
        elif (run_rows := rows[schema.RUNS_TABLE.name]) is not None:
            self._check_run(part, run_rows)

    def add(self, other: "_Reading") -> None:
        """Add what was found in other parts."""
        for name, figures in self.report.tables.items():
            read = other.report.tables[name]
            figures.files += read.files
            figures.rows += read.rows
            figures.size_bytes += read.size_bytes
        self.report.findings += other.report.findings
        self.rows |= other.rows
        self.placement.update(other.placement)
        self.hashes |= other.hashes
        self.receipts |= other.receipts

    def compare_hashes(self, writer: str | None) -> None:
        """Compare the files with the newest receipts that name them, from the run ``writer``, the last one, backwards.

        Where a run left no receipt, nobody knows what it wrote, and older receipts say nothing.
        """
        recorded: dict[str, str] = {}
        while receipt := self.receipts.get(writer or ""):
            recorded = {file["path"]: file["sha256"] for file in receipt["written"]} | recorded
            writer = None if receipt["not_listed"] else receipt["follows"]
        for path in recorded.keys() - {finding.subject for finding in self.report.findings}:
            if self.hashes.get(path, recorded[path]) != recorded[path]:
                text = "has changed since a run wrote it, because its SHA-256 is not the one in the run's receipt"
                self._find(Kind.UNREADABLE, path, text)
        if unknown := len(self.hashes.keys() - recorded.keys()):
            text = "could not be compared with a SHA-256, because no receipt has one, or a run was killed since"
            self.report.notices.append(f"{counted(unknown, 'file')} {text}")

    def _find(self, kind: Kind, subject: str, text: str) -> None:
        """Add a finding to the report."""
        self.report.findings.append(Finding(kind, subject, text))

    def _read(self, files: Files, table: schema.Table, path: str) -> pa.Table | None:
        """The rows of one file, with each value checked; None, and a finding, if it cannot be read."""
        figures = self.report.tables[table.name]
        figures.files += 1
        self.rows[path] = None
        try:
            part = OpenPart(files, table, path)
            if part.unknown:
                self._find(Kind.SCHEMA, path, f"has unknown columns: {', '.join(part.unknown)}")
                return None
            rows = part.read_thoroughly()
        except UnreadableError as exc:
            self._find(Kind.UNREADABLE, path, f"cannot be read: {exc.reason}")
            return None
        except DestinationError as exc:
            self._find(Kind.NOT_READ, path, f"was not read: {exc}")
            return None
        self.rows[path] = len(rows)
        if table is not schema.RUNS_TABLE:
            self.hashes[path] = part.sha256
        figures.rows += len(rows)
        figures.size_bytes += part.size_bytes
        self.report.findings += doubled_rows(table, path, rows)
        return rows

    def _check_part(self, part: Part, rows: Mapping[str, pa.Table | None]) -> None:
        """Check a part with executions: where its rows lie, and which requests for them failed for good."""
        self.placement.add(part, rows)
        stored = rows.get(schema.EXECUTIONS.name)
        executions = [] if stored is None else stored.select(("execution_id", "export_state", "deleted_at")).to_pylist()
        # A waiting execution is fetched when it has finished, and a deleted one never: what failed of these does not
        # count.
        not_due = {
            row["execution_id"] for row in executions if row["export_state"] == ExportState.WAITING or row["deleted_at"]
        }
        errors = rows.get(schema.ERRORS.name)
        letters = [] if errors is None else errors.to_pylist()
        letters = [letter for letter in letters if letter["execution_id"] not in not_due]
        if letters:
            text = f"{counted(len(letters), 'dead letter')}: {letters[0]['message']}"
            self._find(Kind.DEAD_LETTER, part_path(schema.ERRORS.name, part), text)

    def _check_run(self, part: Part, rows: pa.Table) -> None:
        """Check that the part of an export run has the row of this run, and no other."""
        started = [(row["started_at"], row["export_run_id"]) for row in rows.to_pylist()]
        self.receipts |= {row["export_run_id"]: json.loads(row["receipt"] or "null") for row in rows.to_pylist()}
        if [run_part(at.astimezone(UTC).date(), run_id) for at, run_id in started] != [part]:
            text = "should hold exactly one run, the run in the file's name"
            self._find(Kind.MISPLACED, part_path(schema.RUNS_TABLE.name, part), text)


def _read_share(share: tuple[Destination, _Parts]) -> _Reading:
    """Read these parts of the dataset, perhaps in a process of its own."""
    destination, parts = share
    files = open_files(destination.path, destination.options)
    reading = _Reading(VerifyReport(destination.path))
    for part, paths in parts:
        reading.read(files, part, paths)
    return reading


def _entries(files: Files) -> list[Entry]:
    """The files in the folders of the tables, ours and others."""
    return [entry for name in schema.TABLES for entry in files.entries(name)]
