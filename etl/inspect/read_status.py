"""How a status is read: from settings, from the path of a settings file, or from the dataset alone.

It reads the dataset alone, without a lock, and only the columns that it needs; ``status.py`` says what a status is and
judges it. An export may run meanwhile: a file that it replaces is read as it was or as it will be.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etl.dataset.comparisons import read_compared
from etl.dataset.index import index_if_readable
from etl.dataset.last_run import RUN_TESTS, Attempt, LastRun, lacks_of_warehouse, read_last_run
from etl.dataset.layout import Scope
from etl.dataset.parts import require_whole
from etl.errors import ConfigurationError, DestinationError
from etl.files.interface import Files
from etl.files.names import QUARANTINE
from etl.files.open import open_files
from etl.inspect.status import NIGHTLY_HOURS, RunStatus, Status
from etl.inspect.status_run_tests import EXECUTION_COLUMNS, execution_rows, missing_of, places_of, run_tests_of
from etl.inspect.stored import StoredFile, TableStatus, find_lost, stored_files
from etl.model import schema
from etl.model.findings import Finding, Kind, alarms
from etl.model.locations import Options
from etl.model.values import fields_of, python_values
from etl.settings import Settings

_LAST_RUNS = 7
"""How many export runs a status shows."""
_SHOWN_BY_ROWS = {Kind.DEAD_LETTER, Kind.NOT_LOADED}
"""Findings of the last run that are made anew, from rows and from the record of the load."""
_COLUMNS: dict[str, Sequence[str]] = {
    "executions": EXECUTION_COLUMNS,
    "errors": ("execution_id", "run_test_name", "message"),
    "runs": [run_field.name for run_field in fields(RunStatus)],
}
"""The columns that are read of each table; of the other tables, rows are only counted."""
_Given = Settings | str | os.PathLike[str] | None


def status(settings: _Given = None, *, max_age_hours: float = NIGHTLY_HOURS, options: Options | None = None) -> Status:
    """Whether all is well, and what to do next.

    Reads only the dataset, as ``metrics-etl status`` does: needs no key and changes nothing. ``settings`` may also be
    the path of a settings file (``.toml``) or of the dataset: its folder, or its URL in a bucket, with ``options`` as
    in ``[destination.options]``. The verdict is good only if the last complete export is at most ``max_age_hours`` old.

    Raises:
        ConfigurationError: a mistake in the settings.
        DestinationError: there is no dataset, or it cannot be read.
    """
    if isinstance(settings, str | os.PathLike) and not os.fspath(settings).endswith(".toml"):
        of_dataset = read_status(open_files(os.fspath(settings), options), now=datetime.now(UTC))
        return replace(of_dataset, max_age_hours=max_age_hours)
    return read_now(settings, max_age_hours)[2]


def read_now(given: _Given, max_age_hours: float = NIGHTLY_HOURS) -> tuple[Settings, Files, Status]:
    """The settings, the files of their dataset, and its status with ``problems_now``.

    ``given`` are settings or the path of their file; None for where the file is by default. Problems are found by
    reading alone, without the API, the keys or the rows. If the settings name no run tests, those that the last run
    knew count as configured.

    Raises:
        ConfigurationError: a mistake in the settings that hides where the dataset is.
        DestinationError: there is no dataset, or it cannot be read.
    """
    path = None if given is None or isinstance(given, Settings) else Path(given)
    known = None
    problems = list[str]()
    try:
        settings = known = given if isinstance(given, Settings) else Settings.load(path, needs_keys=False)
    except ConfigurationError as error:
        problems = str(error).split("\n")
        settings = Settings.load(path, needs_keys=False, needs_run_tests=False)
    files = open_files(settings.destination.path, settings.destination.options)
    try:
        found = read_status(files, now=datetime.now(UTC), settings=known)
    except DestinationError as error:
        if problems:
            raise DestinationError(f"{error}. Also, {problems[0]}") from None
        raise
    try:
        files.examine()
    except (ConfigurationError, DestinationError) as error:
        problems += str(error).split("\n")
    would_fail = known is not None and bool(problems)
    found = replace(found, max_age_hours=max_age_hours, sweep_days=settings.export.sweep_days)
    return settings, files, replace(found, problems_now=tuple(problems), would_fail=would_fail)


def read_status(files: Files, *, now: datetime, settings: Settings | None = None) -> Status:
    """The status of the dataset. Ages are counted from ``now``.

    Without settings, or if these are for all run tests, those that the last run knew count as configured. The warehouse
    is that of the settings.

    Raises:
        DestinationError: there is no dataset, or it cannot be read.
    """
    ignored = list[str]()
    require_whole(files, note=ignored.append)
    # The record is read before the lock: a run takes the lock before it notes its attempt, and gives it back when all
    # is done.
    record = read_last_run(files, note=ignored.append)
    last_run = record.of(settings.scope) if settings else record
    configured, warehouse = (settings.configured, settings.warehouse.place) if settings else ((), None)
    attempt = last_run.attempt
    at_work = files.lock_holder()
    index = index_if_readable(files, ignored)  # before the files: a run may replace it meanwhile
    of_files = list[Finding]()
    tables = {
        name: stored_files(files, table, index, of_files, _COLUMNS.get(name, ()))
        for name, table in schema.TABLES.items()
    }
    if at_work is None and not any(tables.values()) and not of_files and attempt is None:
        raise DestinationError(
            f"there is no dataset at {files.where()} yet. Create one with metrics-etl run, or fix [destination] path"
        )
    runs = _runs(tables["runs"], last_run)
    is_over = at_work is None or (attempt is not None and attempt.exit_code is not None) or attempt != record.attempt
    has_row = attempt is not None and attempt.export_run_id in {run.export_run_id for run in runs}
    lost_run = attempt if is_over and not has_row else None
    last_run = last_run.after(lost_run)
    compared = {key: each.at for key, each in read_compared(files).items()}
    executions = execution_rows(tables["executions"], compared)
    known = {run_test.name: run_test.key for run_test in configured} or _known_run_tests(last_run, executions)
    run_tests = tuple(run_tests_of(executions, known, last_run))
    letters = [row for file in tables["errors"] for row in file.columns.to_pylist()]
    counts: dict[str, int | None] = {finding.subject: None for finding in of_files}
    counts |= {file.path: file.rows for stored in tables.values() for file in stored}
    findings = [*_of_lost_run(lost_run), *find_lost(index, counts, Scope()), *of_files, *_of_last_run(last_run)]
    reported = {(finding.kind, finding.subject) for finding in findings}
    missing = missing_of(executions, letters, known)
    findings += [finding for finding in missing if (finding.kind, finding.subject) not in reported]
    was_each_complete = all(run_test.complete_at for run_test in run_tests if run_test.is_configured)
    last_load = last_run.loads.get(warehouse) if warehouse else None
    if warehouse:
        export_runs = {file.path.rpartition("/")[2].removesuffix(".parquet") for file in tables["runs"]}
        # A run writes its row before it loads the warehouse, so the row of a run at work may not be loaded yet.
        loading = {record.attempt.export_run_id} if at_work and record.attempt else set[str | None]()
        if lack := lacks_of_warehouse(last_load, export_runs, export_runs - loading):
            findings.append(Finding(Kind.NOT_LOADED, "", lack))
    findings += [Finding(Kind.DOCUMENT_SET_ASIDE, "", text) for text in ignored]
    return Status(
        dataset=files.where(),
        read_at=now,
        at_work=at_work,
        complete_at=last_run.complete_at if was_each_complete else None,
        lost_run=lost_run,
        run_tests=run_tests,
        tables=tuple(
            TableStatus(name, sum(file.rows for file in stored), len(stored), sum(file.size_bytes for file in stored))
            for name, stored in tables.items()
        ),
        runs=tuple(runs[:_LAST_RUNS]),
        findings=tuple(findings),
        set_aside=len(files.entries(QUARANTINE)),
        last_load=last_load,
    )


def _runs(stored: Sequence[StoredFile], last_run: LastRun) -> list[RunStatus]:
    """The export runs, newest first: the one that came last, whatever the clocks said; then by the times in their ids.

    The record of the last run names the one that came last. So does the note of an attempt, which a run makes when it
    begins: a run at work, or one that was killed, has only this note.
    """
    rows = (row for file in stored for row in zip(*map(python_values, file.columns.columns), strict=True))
    runs = [RunStatus(**dict(zip(_COLUMNS["runs"], row, strict=True))) for row in rows]
    if last_run.export_run_id not in {run.export_run_id for run in runs}:
        runs += _run_without_row(last_run)
    last_ids = (last_run.attempt and last_run.attempt.export_run_id, last_run.export_run_id)
    newest = next((id_ for id_ in last_ids if id_ in {run.export_run_id for run in runs}), None)

    def order(run: RunStatus) -> tuple[bool, str, datetime]:
        # An id begins with this machine's time, in whole seconds; started_at is by the clock of the source.
        return run.export_run_id == newest, run.export_run_id.partition("-")[0], run.started_at

    return sorted(runs, key=order, reverse=True)


def _run_without_row(last_run: LastRun) -> Iterator[RunStatus]:
    """The last run by its record, if it could not write its row in ``runs``; nothing if the record is empty."""
    if last_run.export_run_id and last_run.started_at and last_run.finished_at:
        names = ("export_run_id", "started_at", "finished_at", "outcome", "exit_code", "requests", "seconds")
        rows: dict[str, Any] = {name: last_run.rows.get(name, 0) for name in ("executions", "calls", "evals")}
        yield RunStatus(**fields_of(last_run, *names), **rows, message="\n".join(last_run.problems))


def _known_run_tests(last_run: LastRun, executions: Sequence[dict[str, Any]]) -> dict[str, str]:
    """By name, the keys of the run tests that the last run knew.

    If it knew none, as a first run that was killed, those of all that have rows. The name of a key is the one in the
    record, or else the one that the newest row under the key has.
    """
    names = {key: name for _, key, name in places_of(executions)}
    names |= {run_test.key: run_test.name for run_test in last_run.run_tests}
    return {names.get(key, key): key for key in last_run.last_complete_at or names}


def _of_lost_run(lost_run: Attempt | None) -> Iterator[Finding]:
    """The finding about a run that could not start, or was killed."""
    if lost_run:
        text = f"could not start (exit {lost_run.exit_code}): {lost_run.message}"
        if lost_run.exit_code is None:
            text = (
                "ended without a summary, because it was killed or crashed, the machine stopped, or the disk was full. "
                "Everything that the run had saved is kept"
            )
        yield Finding(Kind.RUN_LOST, "", f"the run of {lost_run.started_at:%Y-%m-%d %H:%M:%S} (UTC) {text}")


def _of_last_run(last_run: LastRun) -> Iterator[Finding]:
    """The findings of the last run that no row shows."""
    unseen = [finding for finding in alarms(last_run.findings) if finding.kind not in _SHOWN_BY_ROWS]
    yield from unseen
    if RUN_TESTS in last_run.incomplete and not any(finding.kind is Kind.RUN_TESTS_UNKNOWN for finding in unseen):
        yield Finding(Kind.RUN_TESTS_UNKNOWN, "", "the last run over all run tests could not list them all")
