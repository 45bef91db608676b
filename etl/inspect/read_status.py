"""What the dataset holds, how fresh it is, and what is missing. Reads the dataset alone, and only the columns that it needs.

An export may run meanwhile: a file that it replaces is read as it was or as it will be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from etl.dataset.index import index_if_readable
from etl.dataset.last_run import RUN_TESTS, Attempt, LastRun, lacks_of_warehouse, read_last_run
from etl.dataset.layout import Scope
from etl.dataset.parts import read_identity
from etl.errors import DestinationError
from etl.files.interface import Files
from etl.files.names import QUARANTINE
from etl.inspect.status import RunStatus, Status
from etl.inspect.status_run_tests import (
    EXECUTION_COLUMNS,
    execution_rows,
    missing_of,
    places_of,
    run_tests_of,
)
from etl.inspect.stored import StoredFile, TableStatus, find_lost, stored_files
from etl.model import schema
from etl.model.findings import Finding, Kind, alarms
from etl.model.values import fields_of, python_values
from etl.settings import RunTest
from etl.settings.read import scope_of

_LAST_RUNS = 7
_SHOWN_BY_ROWS = {Kind.DEAD_LETTER, Kind.NOT_LOADED}


_COLUMNS: dict[str, Sequence[str]] = {
    "executions": EXECUTION_COLUMNS,
    "errors": ("execution_id", "run_test_name", "message"),
    "runs": [each.name for each in fields(RunStatus)],
}


def read_status(
    files: Files, *, now: datetime, configured: Sequence[RunTest] | None = None, warehouse: str | None = None
) -> Status:
    """The dataset as it is now.

    ``configured`` are the run tests of the settings, none for "all". None when no settings tell: those that the last run knew.
    ``warehouse``: the place of the one that the settings name.

    Raises:
        DestinationError: there is no dataset, or it cannot be read.
    """
    ignored = list[str]()
    read_identity(files, note=ignored.append)
    # The record is read before the lock: a run takes the lock before it notes its attempt, and gives it back when all is done.
    record = read_last_run(files, note=ignored.append)
    last_run = record if configured is None else record.of(scope_of(configured))
    attempt, at_work = last_run.attempt, files.lock_holder()
    index = index_if_readable(files, ignored)  # before the files: a run may replace it meanwhile
    found = list[Finding]()
    tables = {
        name: stored_files(files, table, index, found, _COLUMNS.get(name, ())) for name, table in schema.TABLES.items()
    }
    if at_work is None and not any(tables.values()) and not found and attempt is None:
        raise DestinationError(
            f"{files.where()}: no dataset there yet: create it with metrics-etl run, or fix [destination] path"
        )
    runs = _runs(tables["runs"], last_run)
    is_over = at_work is None or (attempt is not None and attempt.exit_code is not None) or attempt != record.attempt
    is_told = attempt is not None and attempt.export_run_id in {run.export_run_id for run in runs}
    lost_run = attempt if is_over and not is_told else None
    last_run = last_run.after(lost_run)
    executions = execution_rows(tables["executions"])
    known = {each.name: each.key for each in configured or ()} or _known_run_tests(last_run, executions)
    run_tests = tuple(run_tests_of(executions, known, last_run))
    letters = [row for file in tables["errors"] for row in file.columns.to_pylist()]
    counts: dict[str, int | None] = {each.subject: None for each in found}
    counts |= {file.path: file.rows for of_table in tables.values() for file in of_table}
    findings = [*_of_lost_run(lost_run), *find_lost(index, counts, Scope()), *found, *_of_last_run(last_run)]
    told = {(each.kind, each.subject) for each in findings}
    findings += [each for each in missing_of(executions, letters, known) if (each.kind, each.subject) not in told]
    last_load = last_run.loads.get(warehouse) if warehouse else None
    if warehouse:
        export_runs = {file.path.rpartition("/")[2].removesuffix(".parquet") for file in tables["runs"]}
        # The row of a run at work is there before its load.
        loading = {record.attempt.export_run_id} if at_work and record.attempt else set[str | None]()
        if lack := lacks_of_warehouse(last_load, export_runs, export_runs - loading):
            findings.append(Finding(Kind.NOT_LOADED, "", lack))
    findings += [Finding(Kind.DOCUMENT_SET_ASIDE, "", text) for text in ignored]
    return Status(
        dataset=files.where(),
        read_at=now,
        at_work=at_work,
        complete_at=last_run.complete_at if all(each.complete_at for each in run_tests if each.is_configured) else None,
        lost_run=lost_run,
        run_tests=run_tests,
        tables=tuple(
            TableStatus(name, sum(each.rows for each in of), len(of), sum(each.size_bytes for each in of))
            for name, of in tables.items()
        ),
        runs=tuple(runs[:_LAST_RUNS]),
        findings=tuple(findings),
        set_aside=len(files.entries(QUARANTINE)),
        last_load=last_load,
    )


def _runs(found: Sequence[StoredFile], last_run: LastRun) -> list[RunStatus]:
    """The newest export runs: first the one that came last, whatever the clocks said, then by the times in their ids.

    Each run replaces the note of an attempt, and the record of the last run; one at work, or that was killed, the note alone.
    """
    rows = (row for file in found for row in zip(*map(python_values, file.columns.columns), strict=True))
    runs = [RunStatus(**dict(zip(_COLUMNS["runs"], row, strict=True))) for row in rows]
    if last_run.export_run_id not in {run.export_run_id for run in runs}:
        runs += _run_without_row(last_run)
    ids = (last_run.attempt and last_run.attempt.export_run_id, last_run.export_run_id)
    newest = next((each for each in ids if each in {run.export_run_id for run in runs}), None)

    def order(run: RunStatus) -> tuple[bool, str, datetime]:
        # An id begins with this machine's time, in whole seconds; started_at is by the source's clock.
        return run.export_run_id == newest, run.export_run_id.partition("-")[0], run.started_at

    return sorted(runs, key=order, reverse=True)


def _run_without_row(last_run: LastRun) -> Iterator[RunStatus]:
    """The last run, which could not write its row in ``runs``; nothing for an empty record."""
    if last_run.export_run_id and last_run.started_at and last_run.finished_at:
        names = ("export_run_id", "started_at", "finished_at", "outcome", "exit_code", "requests", "seconds")
        told = fields_of(last_run, *names)
        told |= {name: last_run.rows.get(name, 0) for name in ("executions", "calls", "evals")}
        yield RunStatus(**told, message="\n".join(last_run.problems))


def _known_run_tests(last_run: LastRun, executions: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The keys of the run tests that the last run knew, by name: as it says, or as the rows under the key do.

    All that there are where it does not say, as after a first run that was killed.
    """
    names = {key: name for _, key, name in places_of(executions)} | {each.key: each.name for each in last_run.run_tests}
    return {names.get(key, key): key for key in last_run.last_complete_at or names}


def _of_lost_run(lost_run: Attempt | None) -> Iterator[Finding]:
    if lost_run:
        text = f"could not start (exit {lost_run.exit_code}): {lost_run.message}"
        if lost_run.exit_code is None:
            text = (
                "ended without a summary: it was killed or crashed, the machine stopped, or the disk was full; what it had "
                "saved is kept"
            )
        yield Finding(Kind.RUN_LOST, "", f"the run of {lost_run.started_at:%Y-%m-%d %H:%M:%S} (UTC) {text}")


def _of_last_run(last_run: LastRun) -> Iterator[Finding]:
    """What the last run found missing or unknown, as far as no row shows it."""
    found = [each for each in alarms(last_run.findings) if each.kind not in _SHOWN_BY_ROWS]
    yield from (each for each in last_run.findings if each.kind is Kind.LISTS_ALONE)
    yield from found
    if RUN_TESTS in last_run.incomplete and not any(each.kind is Kind.RUN_TESTS_UNKNOWN for each in found):
        yield Finding(Kind.RUN_TESTS_UNKNOWN, "", "the list of run tests was not complete when it was last read")
