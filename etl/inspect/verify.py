"""Check a dataset against what the exporter promises, from its files alone: no key, no network, no lock, nothing is changed.

Each file is readable, has the declared schema, unique keys, and the values that were hashed. Each row lies beside its execution,
and each execution has exactly the calls and evals that were exported.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, date
from pathlib import Path
from typing import Any

import pyarrow as pa

from etl.errors import ConfigurationError, DestinationError, ExitCode
from etl.inspect.inventory import Inventory, find_lost, list_dataset, read_file
from etl.inspect.placement import Placement
from etl.inspect.reconcile import Exported, Reconciliation
from etl.inspect.rules import row_faults
from etl.inspect.tables import names_in
from etl.inspect.verify_warehouse import WarehouseReport
from etl.load.dataset import read_identity
from etl.load.files.contract import Files
from etl.load.files.open import open_files
from etl.load.index import Index, index_if_readable
from etl.load.layout import QUARANTINE, STAGING, Part, Scope, days_of, parse_part_path
from etl.model import schema
from etl.model.findings import Finding, Kind
from etl.model.lifecycle import ExportState
from etl.model.wording import counted, first_few, quoted
from etl.settings import Settings
from etl.transform.aggregates import recompute

_SHOWN = (
    "execution_id", "run_test_name", "started_at", "export_state", "fingerprint", "deleted_at",
)  # fmt: skip
_LEFTOVERS = {
    STAGING: "left by runs that were killed; the next run removes them",
    QUARANTINE: "set aside because they could not be read; remove them once you have looked at them",
}


@dataclass(slots=True)
class Figures:
    """What was read of one table."""

    files: int = 0
    rows: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class Report:
    """What was read and what was found; ``export_at_work`` names the export that was running meanwhile.

    ``executions`` are those of the dataset by id, with the aggregates of their calls if these were wanted. ``unsound`` are the
    parts with missing or wrong rows.
    """

    dataset: str
    tables: dict[str, Figures] = field(default_factory=lambda: {name: Figures() for name in schema.TABLES})
    findings: list[Finding] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    export_at_work: str | None = None
    executions: dict[str, Exported] = field(default_factory=dict)
    unsound: set[Part] = field(default_factory=set)
    reconciliation: Reconciliation | None = None
    warehouse: WarehouseReport | None = None

    @property
    def exit_code(self) -> ExitCode:
        """3 when anything was found, else 0."""
        return ExitCode.PARTIAL if self.findings else ExitCode.COMPLETE

    def add(self, reconciliation: Reconciliation) -> None:
        """Add the findings of the comparison with the API."""
        self.reconciliation = reconciliation
        self.findings += reconciliation.findings

    def add_warehouse(self, warehouse: WarehouseReport) -> None:
        """Add the findings of the comparison with the warehouse."""
        self.warehouse = warehouse
        self.findings += warehouse.findings

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "dataset": self.dataset,
            "exit_code": self.exit_code,
            "export_at_work": self.export_at_work,
            "tables": [
                {"name": name, "files": each.files, "rows": each.rows, "bytes": each.size_bytes}
                for name, each in self.tables.items()
            ],
            "findings": [finding.as_json() for finding in self.findings],
            "notices": self.notices,
            "against_api": self.reconciliation.as_json() if self.reconciliation else None,
            "warehouse": self.warehouse.as_json() if self.warehouse else None,
        }


def verify(settings: Settings, scope: Scope, *, needs_aggregates: bool = False) -> Report:
    """Read the dataset, and say what is wrong with it, and whether files changed meanwhile.

    Raises:
        DestinationError: there is no dataset, or its folders cannot be read.
    """
    files = open_files(settings.destination.path, settings.destination.options)
    if not any(files.has(name) for name in schema.TABLES):
        raise DestinationError(
            f"{files.where()}: no dataset there: check [destination] path, or run metrics-etl run first"
        )
    read_identity(files)
    at_work = files.lock_holder()
    index = index_if_readable(files, [])  # before the files: a run may replace it meanwhile
    inventory = list_dataset(files, scope)
    report = _Reading(files, settings, scope, inventory, index, needs_aggregates=needs_aggregates).run()
    report.export_at_work = at_work or files.lock_holder()
    if report.export_at_work:
        report.notices.append(f"an export is running on this dataset ({report.export_at_work})")
    if report.findings and inventory.versions != list_dataset(files, scope).versions:
        report.notices.append("files changed while they were read: verify again once the export has ended")
    return report


def stored_scope(settings: Settings, run_tests: Collection[str], since: date | None) -> Scope:
    """Where rows of these run tests lie, each given by its name or key (none: of all), from the day on.

    Raises:
        ConfigurationError: with "all" run tests, there are no rows of one.
        DestinationError: there is no dataset, or a file of it cannot be read.
    """
    if not run_tests:
        return Scope(None, since or date.min)
    files = open_files(settings.destination.path, settings.destination.options)
    names, keys = names_in(files), set[str]()
    present = names.keys() | {part.run_test_key for part in list_dataset(files, Scope()).parts}
    for run_test in settings.only(run_tests).run_tests:
        labels = {run_test.key, run_test.name}
        mine = (present & labels) | {key for key, there in names.items() if run_test.name in there}
        if not (mine or settings.configured):  # which name no others
            raise ConfigurationError(
                f"{files.where()} holds no rows of run test {quoted(run_test.name)}: see metrics-etl status"
            )
        keys |= mine
    return Scope(frozenset(keys), since or date.min)


class _Reading:
    """Reads the files of an inventory."""

    def __init__(
        self,
        files: Files,
        settings: Settings,
        scope: Scope,
        inventory: Inventory,
        index: Index,
        *,
        needs_aggregates: bool,
    ) -> None:
        self._files = files
        self._scope = scope
        self._inventory = inventory
        self._index = index
        self._needs_aggregates = needs_aggregates
        self._report = Report(settings.destination.path)
        self._placement = Placement(inventory)
        self._older: list[str] = []
        self._rows: dict[str, int | None] = {}

    def run(self) -> Report:
        """What was found."""
        report = self._report
        for part, paths in sorted(self._inventory.parts.items()):
            self._check_part(part, paths)
        seen: set[str] = set()
        for path in sorted(self._inventory.runs):
            rows, export_run_id = self._read(schema.RUNS_TABLE, path), Path(path).stem
            if export_run_id in seen:
                report.findings.append(Finding(Kind.MISPLACED, path, "holds a run that another file holds, too"))
            seen.add(export_run_id)
            if rows is not None and rows["export_run_id"].to_pylist() != [export_run_id]:
                report.findings.append(
                    Finding(Kind.MISPLACED, path, "does not hold the one run that it is named after")
                )
        report.findings += [*self._inventory.findings, *self._placement.findings()]
        unread: dict[str, int | None] = {each.subject: None for each in self._inventory.findings}
        report.findings += find_lost(self._index, unread | self._rows, self._scope)
        report.findings.sort(key=lambda finding: (finding.subject, finding.kind))
        report.unsound = self._unsound()
        self._note()
        return report

    def _unsound(self) -> set[Part]:
        # A dead letter says nothing against the rows that are there.
        parsed = [parse_part_path(each.subject) for each in self._report.findings if each.kind != Kind.DEAD_LETTER]
        hidden = {part for part in self._inventory.parts if self._inventory.is_hidden(part)}
        return {found[1] for found in parsed if found} | hidden

    def _check_part(self, part: Part, paths: dict[str, str]) -> None:
        read_rows = {name: self._read(schema.TABLES[name], path) for name, path in paths.items()}
        rows = {name: found for name, found in read_rows.items() if found is not None}
        self._placement.add(part, rows)
        executions = rows.get(schema.EXECUTIONS.name, schema.EXECUTIONS.no_rows).select(_SHOWN).to_pylist()
        is_later = {
            row["execution_id"]
            for row in executions
            if row["export_state"] == ExportState.WAITING or row["deleted_at"] is not None
        }
        letters = rows.get(schema.ERRORS.name, schema.ERRORS.no_rows).to_pylist()
        letters = [letter for letter in letters if letter["execution_id"] not in is_later]
        if letters:
            text = f"{counted(len(letters), 'dead letter')}: {letters[0]['message']}"
            self._report.findings.append(Finding(Kind.DEAD_LETTER, paths[schema.ERRORS.name], text))
        if self._needs_aggregates:
            sick = {letter["execution_id"] for letter in letters}
            self._note_exported(part, executions, sick, rows.get(schema.CALLS.name))

    def _read(self, table: schema.Table, path: str) -> pa.Table | None:
        """The rows of one file; None when it cannot be read, which is then a finding."""
        found = read_file(self._files, table, path)
        figures = self._report.tables[table.name]
        figures.files += 1
        self._rows[path] = None if isinstance(found, Finding) else len(found.rows)
        if isinstance(found, Finding):
            self._report.findings.append(found)
            return None
        figures.rows += len(found.rows)
        figures.size_bytes += found.size_bytes
        if found.is_outdated:
            self._older.append(path)
        self._report.findings += [Finding(fault.kind, path, fault.text) for fault in row_faults(table, found.rows)]
        return found.rows

    def _note_exported(
        self, part: Part, executions: list[dict[str, Any]], sick: set[str], calls: pa.Table | None
    ) -> None:
        recomputed = recompute(calls) if calls is not None else {}
        for row in executions:
            execution_id, started_on = row["execution_id"], _day(row)
            if started_on and not self._scope.since <= started_on <= self._scope.until:
                continue
            self._report.executions[execution_id] = Exported(
                part=part,
                run_test_name=row["run_test_name"] or "",
                started_on=started_on or days_of(part.folder)[0],
                export_state=row["export_state"],
                fingerprint=row["fingerprint"],
                is_deleted=row["deleted_at"] is not None,
                has_letters=execution_id in sick,
                recomputed=recomputed.get(execution_id),
            )

    def _note(self) -> None:
        notices = self._report.notices
        if self._older:
            notices.append(
                f"{counted(len(self._older), 'file')} written by another version of the exporter; columns that they do not have "
                f"read as null: {first_few(self._older)}"
            )
        for folder, what in _LEFTOVERS.items():
            if left := self._files.entries(folder):
                notices.append(f"{counted(len(left), 'file')} in {folder}, {what}")


def _day(row: dict[str, Any]) -> date | None:
    started_at = row["started_at"]
    return None if started_at is None else started_at.astimezone(UTC).date()
