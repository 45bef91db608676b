"""Check a dataset against what the exporter promises, from its files alone: no key, no network, no lock, nothing is changed.

Each file is readable, has the declared schema, unique keys, and the values that were hashed. Each row lies beside its execution,
and each execution has exactly the calls and evals that were exported.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date
from pathlib import Path
from typing import Any

import pyarrow as pa

from etl.errors import ConfigurationError, DestinationError, ExitCode
from etl.inspect.gone import rows_gone
from etl.inspect.inventory import Inventory, list_dataset, read_file
from etl.inspect.placement import Placement
from etl.inspect.reconcile import Exported, Reconciliation
from etl.inspect.rules import Finding, Kind, row_faults
from etl.inspect.verify_warehouse import WarehouseReport
from etl.load.files.contract import Files
from etl.load.files.open import open_files
from etl.load.identity import read_identity
from etl.load.index import index_if_readable
from etl.load.later_starts import with_later_starts
from etl.load.layout import INDEX, QUARANTINE, STAGING, Part, Scope, days_of, parse_part_path
from etl.model import schema
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
_MOST_PASSES = 3


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
            "findings": [
                {"kind": each.kind.value, "place": each.place, "text": each.text, "fix": each.fix}
                for each in self.findings
            ],
            "notices": self.notices,
            "against_api": self.reconciliation.as_json() if self.reconciliation else None,
            "warehouse": self.warehouse.as_json() if self.warehouse else None,
        }


def verify(settings: Settings, scope: Scope, *, needs_aggregates: bool = False) -> Report:
    """Read the dataset, and say what is wrong with it. Where files change meanwhile and something looks wrong, read again.

    Raises:
        ConfigurationError: with "all" run tests, it has no rows of one that the scope names.
        DestinationError: there is no dataset, or its folders cannot be read.
    """
    files = open_files(settings.destination.path, settings.destination.options)
    if not any(files.has(name) for name in schema.TABLES):
        raise DestinationError(
            f"{files.where()}: no dataset there: check [destination] path, or run metrics-etl run first"
        )
    read_identity(files)
    may_be_mistyped = () if settings.configured else settings.run_tests  # the settings name no others
    for run_test in may_be_mistyped:
        labels = frozenset((run_test.key, run_test.name)) & (scope.run_test_keys or frozenset())
        if labels and not (list_dataset(files, Scope(labels)).parts or rows_gone(files, labels)):
            raise ConfigurationError(
                f"{files.where()} holds no rows of run test {quoted(run_test.name)}: see metrics-etl status"
            )
    at_work = files.lock_holder()
    scope = with_later_starts(files, scope, is_strict=True)
    inventory = list_dataset(files, scope)
    for _ in range(_MOST_PASSES):
        report = _Pass(files, settings, scope, inventory, needs_aggregates=needs_aggregates).run()
        before, inventory = inventory, list_dataset(files, scope)
        is_steady = before.versions == inventory.versions
        if is_steady or not report.findings:
            break
    # Of which days they were, nothing tells; what was found says it better.
    if not (report.findings or scope.has_bounds) and (gone := rows_gone(files, scope.run_test_keys)):
        report.findings.append(Finding(Kind.GONE, files.where(), f"{', '.join(gone)} gone"))
    if not index_if_readable(files, []).is_there:
        report.notices.append(
            f"{files.where(INDEX)} is missing, damaged or of another version: nothing tells whether files are gone; "
            "metrics-etl run writes another"
        )
    report.export_at_work = at_work or files.lock_holder()
    if report.export_at_work:
        report.notices.append(f"an export is running on this dataset ({report.export_at_work})")
    if report.findings and not is_steady:
        report.notices.append("files changed while they were read: verify again once the export has ended")
    return report


class _Pass:
    """One pass over the files of an inventory."""

    def __init__(
        self, files: Files, settings: Settings, scope: Scope, inventory: Inventory, *, needs_aggregates: bool
    ) -> None:
        self._files = files
        self._scope = scope
        self._inventory = inventory
        self._needs_aggregates = needs_aggregates
        self._keys = {run_test.name: run_test.key for run_test in settings.run_tests}
        self._report = Report(settings.destination.path)
        self._placement = Placement(files, inventory)
        self._older: list[str] = []
        self._pinned = 0
        self._misnamed: Counter[tuple[str, str]] = Counter()

    def run(self) -> Report:
        """What was found."""
        report = self._report
        for part, paths in sorted(self._inventory.parts.items()):
            self._check_part(part, paths)
        seen: set[str] = set()
        for path in sorted(self._inventory.runs):
            rows, export_run_id = self._read(schema.RUNS_TABLE, path), Path(path).stem
            if export_run_id in seen:
                report.findings.append(Finding(Kind.DOUBLED, path, "holds a run that another file holds, too"))
            seen.add(export_run_id)
            if rows is not None and rows["export_run_id"].to_pylist() != [export_run_id]:
                report.findings.append(
                    Finding(Kind.MISPLACED, path, "does not hold the one run that it is named after")
                )
        report.findings += [*self._inventory.findings, *self._placement.findings()]
        report.findings.sort(key=lambda finding: (finding.place, finding.kind))
        report.unsound = self._unsound()
        self._note()
        return report

    def _unsound(self) -> set[Part]:
        # A dead letter says nothing against the rows that are there.
        parsed = [parse_part_path(each.place) for each in self._report.findings if each.kind != Kind.DEAD_LETTER]
        hidden = {part for part in self._inventory.parts if self._inventory.is_hidden(part)}
        return {found[1] for found in parsed if found} | hidden | self._placement.incomplete

    def _check_part(self, part: Part, paths: dict[str, str]) -> None:
        read_rows = {name: self._read(schema.TABLES[name], path) for name, path in paths.items()}
        rows = {name: found for name, found in read_rows.items() if found is not None}
        self._placement.add(part, rows)
        executions = rows.get(schema.EXECUTIONS.name, schema.EXECUTIONS.no_rows).select(_SHOWN).to_pylist()
        waiting = {row["execution_id"] for row in executions if row["export_state"] == ExportState.WAITING}
        letters = rows.get(schema.ERRORS.name, schema.ERRORS.no_rows).to_pylist()
        letters = [letter for letter in letters if letter["execution_id"] not in waiting]
        if letters:
            text = f"{counted(len(letters), 'dead letter')}: {letters[0]['message']}"
            self._report.findings.append(Finding(Kind.DEAD_LETTER, paths[schema.ERRORS.name], text))
        for row in executions:
            self._check_name_and_day(row, part)
        if self._needs_aggregates:
            sick = {letter["execution_id"] for letter in letters}
            self._note_exported(part, executions, sick, rows.get(schema.CALLS.name))

    def _read(self, table: schema.Table, path: str) -> pa.Table | None:
        """The rows of one file; None when it cannot be read, which is then a finding."""
        found = read_file(self._files, table, path)
        figures = self._report.tables[table.name]
        figures.files += 1
        if isinstance(found, Finding):
            self._report.findings.append(found)
            return None
        figures.rows += len(found.rows)
        figures.size_bytes += found.size_bytes
        if found.is_outdated:
            self._older.append(path)
        self._report.findings += [Finding(fault.kind, path, fault.text) for fault in row_faults(table, found.rows)]
        return found.rows

    def _check_name_and_day(self, row: dict[str, Any], part: Part) -> None:
        """Note where they are not the part's. Both may be right: the place is pinned, deleted executions keep an old name."""
        first, last = days_of(part.folder)
        started_on = _day(row)
        self._pinned += started_on is not None and not first <= started_on <= last
        key = self._keys.get(row["run_test_name"])
        is_elsewhere = key != part.run_test_key and (key or part.run_test_key in self._keys.values())
        if is_elsewhere and row["run_test_name"] is not None:
            self._misnamed[part.run_test_key, row["run_test_name"]] += 1

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
        if self._pinned:
            notices.append(
                f"{counted(self._pinned, 'execution')} in the folder of another month than the start: executions stay where "
                "they were first saved"
            )
        for (key, name), count in sorted(self._misnamed.items()):
            notices.append(
                f"{counted(count, 'execution')} of run test {quoted(name)} under run_test={key}, but the settings give it "
                "another key: the next run moves what the API still lists"
            )
        for folder, what in _LEFTOVERS.items():
            if left := self._files.entries(folder):
                notices.append(f"{counted(len(left), 'file')} in {folder}, {what}")


def _day(row: dict[str, Any]) -> date | None:
    started_at = row["started_at"]
    return None if started_at is None else started_at.astimezone(UTC).date()
