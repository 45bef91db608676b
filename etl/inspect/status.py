"""What the dataset holds, how fresh it is, and what is missing. Reads the dataset alone, and only the columns that it needs.

An export may run meanwhile: a file that it replaces is read as it was or as it will be.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa

from etl.errors import DestinationError
from etl.inspect.inventory import find_lost
from etl.inspect.status_files import table_files
from etl.inspect.status_run_tests import RunTestStatus, execution_rows, missing_of, names_by_key, run_tests_of
from etl.load.dataset import read_identity
from etl.load.files.contract import Files
from etl.load.index import index_if_readable
from etl.load.last_run import RUN_TESTS, Attempt, LastLoad, LastRun, lacks_of_warehouse, read_last_run
from etl.load.layout import QUARANTINE
from etl.model import schema
from etl.model.findings import Finding, Kind, alarms
from etl.model.lifecycle import CLOCKS_DIFFER
from etl.settings import RunTest
from etl.settings.read import scope_of

_LAST_RUNS = 7
_LOAD_TAKES = timedelta(hours=1)
_SHOWN_BY_ROWS = {Kind.DEAD_LETTER, Kind.NOT_LOADED}


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table: its rows, and the files that hold them."""

    name: str
    rows: int
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One export run; ``executions``, ``calls`` and ``evals`` are the new or changed rows."""

    export_run_id: str
    started_at: datetime
    finished_at: datetime
    outcome: str
    exit_code: int
    executions: int
    calls: int
    evals: int
    requests: int
    seconds: float
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The dataset at ``read_at``; its fields are what ``status --json`` prints.

    ``at_work`` names the holder of the lock. ``complete_at``: when a run over all that is configured last left nothing out; None
    when none did, or a configured run test was never complete. ``future_run_at``: the latest time at which a run ended that has
    not come yet, by this machine's clock. ``lost_run``: the last run, if it left no row in ``runs``, since it could not begin (it
    has an exit code) or was killed. ``runs``: the newest, whatever its times, and the last that have come, up to 7. ``set_aside``:
    how many files are in the quarantine. ``last_load``: how the last load into a warehouse went.
    """

    dataset: str
    read_at: datetime
    at_work: str | None
    complete_at: datetime | None
    future_run_at: datetime | None
    lost_run: Attempt | None
    run_tests: tuple[RunTestStatus, ...]
    tables: tuple[TableStatus, ...]
    runs: tuple[RunStatus, ...]
    findings: tuple[Finding, ...]
    set_aside: int = 0
    last_load: LastLoad | None = None

    def is_older_than(self, hours: float) -> bool:
        """Whether everything that is configured was last complete more than so many hours ago, or never."""
        return self.complete_at is None or (self.read_at - self.complete_at).total_seconds() > hours * 3600

    def as_json(self) -> dict[str, Any]:
        """The status as a JSON object."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return told | {"findings": [finding.as_json() for finding in self.findings]}


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
    latest = now + CLOCKS_DIFFER
    # The record is read before the lock: a run takes the lock before it notes its attempt, and gives it back when all is done.
    last_run = _up_to(latest, read_last_run(files, note=ignored.append))
    attempt, at_work = last_run.attempt, files.lock_holder()
    is_exporting = _is_exporting(attempt, at_work)
    index = index_if_readable(files, ignored)  # before the files: a run may replace it meanwhile
    found = list[Finding]()
    tables = {name: table_files(files, table, index, found, now=now) for name, table in schema.TABLES.items()}
    if at_work is None and not any(tables.values()) and not found and attempt is None:
        raise DestinationError(
            f"{files.where()}: no dataset there yet: create it with metrics-etl run, or fix [destination] path"
        )
    if configured is not None:
        last_run = last_run.of(scope_of(configured))
    last_load = last_run.load if warehouse else None
    runs = [row for file in tables["runs"] if file.columns is not None for row in file.columns.to_pylist()]
    if last_run.export_run_id not in {run["export_run_id"] for run in runs}:
        runs += _row_of(last_run)
    last = _newest(runs, attempt, last_run)
    runs.sort(key=_order, reverse=True)
    come = [*last, *(run for run in runs if run["finished_at"] <= latest and run not in last)]
    is_over = not is_exporting or (attempt is not None and attempt.exit_code is not None)
    is_told = attempt is not None and attempt.export_run_id in {run["export_run_id"] for run in runs}
    lost_run = attempt if is_over and not is_told else None
    last_run = last_run.after(lost_run)
    executions = execution_rows(tables["executions"])
    known = {each.name: each.key for each in configured or ()} or _known_run_tests(last_run, executions)
    run_tests = tuple(run_tests_of(executions, known, last_run))
    letters = [row for file in tables["errors"] if file.columns is not None for row in file.columns.to_pylist()]
    counts: dict[str, int | None] = {file.path: file.rows for of_table in tables.values() for file in of_table}
    findings = [*find_lost(index, counts | {each.subject: None for each in found}), *found]
    findings += _of_last_run(last_run)
    told = {(each.kind, each.subject) for each in findings}
    findings += [each for each in missing_of(executions, letters, known) if (each.kind, each.subject) not in told]
    if warehouse:
        # The row of a run at work is there before its load, which may hang.
        of_lock = [run for run in runs if is_exporting and attempt and run["export_run_id"] == attempt.export_run_id]
        loading = {run["export_run_id"] for run in of_lock if now - _LOAD_TAKES < run["finished_at"] <= latest}
        export_runs = {file.path.rpartition("/")[2].removesuffix(".parquet") for file in tables["runs"]}
        if lack := lacks_of_warehouse(last_load, warehouse, export_runs, export_runs - loading):
            findings.append(Finding(Kind.NOT_LOADED, "", lack))
    findings += [Finding(Kind.DOCUMENT_SET_ASIDE, "", text) for text in ignored]
    return Status(
        dataset=files.where(),
        read_at=now,
        at_work=at_work,
        complete_at=last_run.complete_at if all(each.complete_at for each in run_tests if each.is_configured) else None,
        future_run_at=max((run["finished_at"] for run in runs if run["finished_at"] > latest), default=None),
        lost_run=lost_run,
        run_tests=run_tests,
        tables=tuple(
            TableStatus(name, sum(each.rows for each in of), len(of), sum(each.size_bytes for each in of))
            for name, of in tables.items()
        ),
        runs=tuple(map(_run, come[:_LAST_RUNS])),
        findings=tuple(findings),
        set_aside=len(files.entries(QUARANTINE)),
        last_load=last_load,
    )


def _is_exporting(attempt: Attempt | None, at_work: str | None) -> bool:
    """Whether a run may hold the lock: not a load, which took it later than the last attempt."""
    if at_work is None or attempt is None:
        return at_work is not None
    return at_work.endswith((f"since {attempt.started_at.isoformat(timespec='seconds')}", "holder unknown"))


def _up_to(latest: datetime, last_run: LastRun) -> LastRun:
    """The record without times that have not come yet: a clock was wrong, and they say nothing."""
    times = {key: at if at and at <= latest else None for key, at in last_run.last_complete_at.items()}
    complete_at = last_run.complete_at
    return msgspec.structs.replace(
        last_run, complete_at=complete_at if complete_at and complete_at <= latest else None, last_complete_at=times
    )


def _known_run_tests(last_run: LastRun, executions: pa.Table) -> dict[str, str]:
    """The keys of the run tests that the last run knew, by name: as it says, or as the rows under the key do."""
    names = names_by_key(executions) | {each.key: each.name for each in last_run.run_tests}
    return {names.get(key, key): key for key in last_run.last_complete_at}


def _of_last_run(last_run: LastRun) -> Iterator[Finding]:
    """What the last run found missing or unknown, as far as no row shows it."""
    found = [each for each in alarms(last_run.findings) if each.kind not in _SHOWN_BY_ROWS]
    yield from found
    if RUN_TESTS in last_run.incomplete and not any(each.kind is Kind.RUN_TESTS_UNKNOWN for each in found):
        yield Finding(Kind.RUN_TESTS_UNKNOWN, "", "the list of run tests was not complete when it was last read")


def _run(row: Mapping[str, Any]) -> RunStatus:
    return RunStatus(**{each.name: row[each.name] for each in fields(RunStatus)})


def _newest(runs: Sequence[Mapping[str, Any]], attempt: Attempt | None, last_run: LastRun) -> list[Mapping[str, Any]]:
    """The run that came last, whatever the clocks said: each run replaces the note of an attempt, and the record of the last run.

    A run at work, or one that was killed, has replaced the note alone.
    """
    for run_id in (attempt and attempt.export_run_id, last_run.export_run_id):
        if found := [run for run in runs if run["export_run_id"] == run_id]:
            return found
    return []


def _order(run: Mapping[str, Any]) -> tuple[str, datetime]:
    """Their ids begin with this machine's time, in whole seconds; ``started_at`` is by the source's clock."""
    return run["export_run_id"].partition("-")[0], run["started_at"]


def _row_of(last_run: LastRun) -> list[dict[str, Any]]:
    """The row of ``runs`` that the last run could not write, none for an empty record."""
    if last_run.export_run_id is None or last_run.started_at is None or last_run.finished_at is None:
        return []
    names = ("export_run_id", "started_at", "finished_at", "outcome", "exit_code", "seconds", "requests")
    rows = {name: last_run.rows.get(name, 0) for name in ("executions", "calls", "evals")}
    return [{name: getattr(last_run, name) for name in names} | rows | {"message": "\n".join(last_run.problems)}]
