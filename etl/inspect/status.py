"""What the dataset holds, how fresh it is, and what is missing. Reads the dataset alone, and only the columns that it needs.

An export may run meanwhile: a file that it replaces is read as it was or as it will be, and one that it removes is left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import DestinationError
from etl.inspect.status_files import COLUMNS, FilePart, changed_counts, count_doubled, table_files, unmatched_calls
from etl.inspect.status_runs import is_of_a_run, newest, order, row_of, still_open
from etl.load.attempt import Attempt, Exporter, who_exports
from etl.load.files.contract import Files
from etl.load.identity import read_identity
from etl.load.index import Index, index_if_readable
from etl.load.last_run import LastRun, read_last_run
from etl.load.layout import QUARANTINE
from etl.load.warehouse.last_load import LastLoad, lacks_of_warehouse, read_last_load
from etl.model import schema
from etl.model.lifecycle import CLOCKS_DIFFER, ExportState
from etl.model.wording import counted
from etl.settings import RunTest

_LAST_RUNS = 7
_LOAD_TAKES = timedelta(hours=1)
_TRIES = 3


@dataclass(frozen=True, slots=True)
class RunTestStatus:
    """One run test in the dataset. ``deleted`` executions count in no other state.

    ``newest_started_at``: when its newest execution was created. ``exported_at``: the last time that a row of its executions
    changed, in the run ``export_run_id``. ``complete_at``: the last time that everything in it was exported; None when it never
    was, or when it is not exported any more. ``is_complete``: the last run over it left nothing out. ``dead_letters``: its rows
    of ``errors``, but for waiting executions, which are asked for when they have finished. ``missing_calls``: those that were
    exported, as its executions say, and are not there; ``stray_calls``: those that are there beyond that. ``error``: why the last
    run could export nothing of it.
    """

    name: str
    key: str
    executions: int
    exported: int
    settling: int
    waiting: int
    incomplete: int
    deleted: int
    calls: int
    evals: int
    newest_started_at: datetime | None
    exported_at: datetime | None
    export_run_id: str | None
    complete_at: datetime | None
    is_configured: bool
    is_complete: bool
    dead_letters: int
    missing_calls: int
    stray_calls: int
    error: str | None = None


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


@dataclass(frozen=True, slots=True)
class LetterStatus:
    """Dead letters of one endpoint and HTTP status; the status is 0 when there was no answer."""

    endpoint: str
    status: int
    count: int
    first_seen_at: datetime | None
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class Status:
    """The dataset at ``read_at``; its fields are what ``status --json`` prints.

    ``at_work`` names the holder of the lock. ``complete_at``: when a run over all that is configured last left nothing out; None
    when none did, or a configured run test was never complete. ``future_run_at``: the latest time at which a run ended that has
    not come yet, by this machine's clock. ``runs``: the newest, whatever its times, and the last that have come, up to 7.
    ``problems``: those of the newest.
    ``lost_run``: the last run, if it left no row in ``runs``, since it could not begin (it has an exit code) or was killed.
    ``unreadable``: files that are damaged or do not belong here. ``ignored``: what is wrong with the exporter's own files.
    ``set_aside``: how many files are in the quarantine. ``missing_executions``, ``missing_calls`` and ``missing_evals``: how many
    of their rows the dataset held at the end of the last run, as its index says, and does not any more. ``lost_executions``: how
    many were gone by then, and are not exported again; ``damaged_executions``, of how many a part was. ``doubled_executions``: how
    many stand twice; ``surplus_rows``: how many rows there are beyond what the last run left. ``has_index``: the index is there,
    without which nobody knows what that was. ``last_load``: how the last load into a warehouse went; ``warehouse_lacks``: what the
    one of the settings does not have, in words.
    ``still_open``: what an earlier run could not find out, and no run since, in words.
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
    problems: tuple[str, ...]
    dead_letters: tuple[LetterStatus, ...]
    unreadable: tuple[str, ...]
    ignored: tuple[str, ...]
    set_aside: int
    missing_executions: int
    missing_calls: int
    missing_evals: int
    lost_executions: int
    damaged_executions: int
    doubled_executions: int
    surplus_rows: int
    has_index: bool = True
    last_load: LastLoad | None = None
    warehouse_lacks: str | None = None
    still_open: tuple[str, ...] = ()

    def is_older_than(self, hours: float) -> bool:
        """Whether everything that is configured was last complete more than so many hours ago, or never."""
        return self.complete_at is None or (self.read_at - self.complete_at).total_seconds() > hours * 3600


def read_status(
    files: Files, *, now: datetime, configured: Sequence[RunTest] | None = None, warehouse: str | None = None
) -> Status:
    """The dataset as it is now.

    ``configured`` are the run tests of the settings, none for "all". None when no settings tell: those that the last run knew.
    ``warehouse``: the place of the one that the settings name.

    Raises:
        DestinationError: there is no dataset, or it cannot be read.
    """
    read_identity(files)
    for _ in range(_TRIES):
        status = _read_at_once(files, before := who_exports(files), now, configured, warehouse)
        is_missing = status.missing_executions or status.missing_calls or status.missing_evals
        if who_exports(files) == before and not (before.is_exporting and is_missing):
            break  # else files may have moved from where was not looked yet to where was looked
    return status


def _read_at_once(
    files: Files, exporter: Exporter, now: datetime, configured: Sequence[RunTest] | None, warehouse: str | None
) -> Status:
    """The dataset as long as this is who exports: files that another run changes meanwhile would contradict each other."""
    attempt, at_work, is_exporting = exporter.attempt, exporter.at_work, exporter.is_exporting
    ignored, unreadable = [*exporter.ignored], list[str]()
    index = index_if_readable(files, ignored)
    parts = {name: table_files(files, table, index, unreadable, now=now) for name, table in schema.TABLES.items()}
    if at_work is None and not any(parts.values()) and not unreadable and attempt is None:
        raise DestinationError(
            f"{files.where()}: no dataset there yet: create it with metrics-etl run, or fix [destination] path"
        )
    rows = _rows(parts["runs"]).to_pylist() if parts["runs"] else []
    runs = list(filter(is_of_a_run, rows))
    if others := len(rows) - len(runs):
        ignored.append(f"{files.where('runs')}: {counted(others, 'row')} not written by the exporter, ignored")
    last_load = read_last_load(files, note=ignored.append) if warehouse else None
    latest = now + CLOCKS_DIFFER
    last_run = read_last_run(files, note=ignored.append)
    if last_run.export_run_id not in {run["export_run_id"] for run in runs}:
        runs += row_of(last_run)
    last = newest(runs, attempt, last_run)
    runs.sort(key=order, reverse=True)
    come = [*last, *(run for run in runs if run["finished_at"] <= latest and run not in last)]
    last_run = _up_to(latest, last_run)
    if configured is not None:
        last_run = last_run.within({each.key: each.since for each in configured}, is_all=not configured)
    configured_names = {each.key: each.name for each in configured or ()} or dict.fromkeys(
        last_run.last_complete_at, ""
    )
    run_tests = tuple(_run_tests(parts, index, last_run, configured_names, is_exporting=is_exporting))
    # The row of a run at work is there before its load, which may hang.
    of_lock = [run for run in runs if is_exporting and attempt and run["export_run_id"] == attempt.export_run_id]
    loading = {run["export_run_id"] for run in of_lock if now - _LOAD_TAKES < run["finished_at"] <= latest}
    export_runs = {part.key for part in parts["runs"]}
    told = {run["export_run_id"] for run in runs}  # each later run would have replaced the note
    is_over = not is_exporting or (attempt is not None and attempt.exit_code is not None)
    gone, come_since = changed_counts(index, parts, unreadable, is_exporting=is_exporting)
    problems = tuple((come[0]["message"] or "").splitlines()) if come else ()
    return Status(
        dataset=files.where(),
        read_at=now,
        at_work=at_work,
        complete_at=last_run.complete_at if all(each.complete_at for each in run_tests if each.is_configured) else None,
        future_run_at=max((run["finished_at"] for run in runs if run["finished_at"] > latest), default=None),
        lost_run=attempt if attempt and is_over and attempt.export_run_id not in told else None,
        run_tests=run_tests,
        tables=tuple(
            TableStatus(name, sum(each.rows for each in found), len(found), sum(each.size_bytes for each in found))
            for name, found in parts.items()
        ),
        runs=tuple(map(_run, come[:_LAST_RUNS])),
        problems=problems,
        still_open=still_open(last_run, problems),
        dead_letters=tuple(_letters(parts["errors"])),
        unreadable=tuple(unreadable),
        ignored=tuple(ignored),
        set_aside=len(files.entries(QUARANTINE)),
        missing_executions=gone[0].total(),
        missing_calls=gone[1].total(),
        missing_evals=gone[2].total(),
        lost_executions=sum(map(len, index.lost.values())),
        damaged_executions=sum(map(len, index.damaged().values())),
        doubled_executions=0 if is_exporting else count_doubled(parts["executions"]),
        surplus_rows=sum(each.total() for each in come_since),
        has_index=index.is_there,
        last_load=last_load,
        warehouse_lacks=lacks_of_warehouse(last_load, warehouse, export_runs, export_runs - loading)
        if warehouse
        else None,
    )


def _up_to(latest: datetime, last_run: LastRun) -> LastRun:
    """The record without times that have not come yet: a clock was wrong, and they say nothing."""
    times = {key: at if at and at <= latest else None for key, at in last_run.last_complete_at.items()}
    complete_at = last_run.complete_at
    return msgspec.structs.replace(
        last_run, complete_at=complete_at if complete_at and complete_at <= latest else None, last_complete_at=times
    )


def _rows(parts: Sequence[FilePart]) -> pa.Table:
    return pa.concat_tables([part.columns for part in parts if part.columns is not None])


def _run_tests(
    parts: Mapping[str, Sequence[FilePart]],
    index: Index,
    last_run: LastRun,
    configured: Mapping[str, str],
    *,
    is_exporting: bool,
) -> Iterator[RunTestStatus]:
    """Those that are configured, and those that the dataset holds beside them. An export writes and moves table by table."""
    executions, letters = (_by_key(parts[name]) for name in ("executions", "errors"))
    counts: Counter[tuple[str, str]] = Counter()
    for table in ("calls", "evals"):
        for part in parts[table]:
            counts[table, part.key] += part.rows
    errors = {each.key: each.error for each in last_run.run_tests}
    no_rows = schema.EXECUTIONS.no_rows.select(COLUMNS["executions"])
    for key in sorted(executions.keys() | configured.keys()):
        rows = _rows(executions[key]) if key in executions else no_rows
        lives = rows.filter(pc.is_null(rows["deleted_at"]))
        states = {each["values"]: each["counts"] for each in pc.value_counts(lives["export_state"]).to_pylist()}
        last: dict[str, Any] = next(iter(rows.sort_by([("exported_at", "descending")]).slice(0, 1).to_pylist()), {})
        complete_at = last_run.last_complete_at.get(key) if key in configured else None
        waiting = lives.filter(pc.equal(lives["export_state"], ExportState.WAITING.value))["execution_id"]
        unmatched = 0 if is_exporting else unmatched_calls(key, executions.get(key, ()), counts["calls", key], index)
        yield RunTestStatus(
            name=configured.get(key) or last.get("run_test_name") or key,
            key=key,
            executions=len(rows),
            **{state.value: states.get(state.value, 0) for state in ExportState},
            deleted=len(rows) - len(lives),
            calls=counts["calls", key],
            evals=counts["evals", key],
            newest_started_at=pc.max(rows["started_at"]).as_py(),
            exported_at=last.get("exported_at"),
            export_run_id=last.get("export_run_id"),
            complete_at=complete_at,
            is_configured=key in configured,
            is_complete=complete_at is not None and key not in last_run.incomplete,
            dead_letters=sum(_count_others(part, waiting) for part in letters.get(key, ())),
            missing_calls=max(unmatched, 0),
            stray_calls=max(-unmatched, 0),
            error=errors.get(key),
        )


def _by_key(parts: Iterable[FilePart]) -> dict[str, list[FilePart]]:
    found: dict[str, list[FilePart]] = {}
    for part in parts:
        found.setdefault(part.key, []).append(part)
    return found


def _count_others(letters: FilePart, executions: pa.ChunkedArray) -> int:
    """How many of a file's dead letters are of other executions than these."""
    if letters.columns is None:
        return 0
    return int(pc.is_in(letters.columns["execution_id"], value_set=executions).to_pylist().count(False))


def _run(row: Mapping[str, Any]) -> RunStatus:
    return RunStatus(
        **{name: row[name] for name in ("export_run_id", "started_at", "finished_at", "outcome", "exit_code")},
        **{name: row[name] for name in ("executions", "calls", "evals", "requests", "seconds")},
    )


def _letters(parts: Sequence[FilePart]) -> Iterator[LetterStatus]:
    """By endpoint and status, the most frequent first."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in _rows(parts).to_pylist() if parts else ():
        groups.setdefault((row["endpoint"], row["status"]), []).append(row)
    for (endpoint, status), rows in sorted(groups.items(), key=lambda group: -len(group[1])):
        yield LetterStatus(
            endpoint=endpoint,
            status=status,
            count=len(rows),
            first_seen_at=min((row["first_seen_at"] for row in rows if row["first_seen_at"]), default=None),
            last_seen_at=max((row["last_seen_at"] for row in rows if row["last_seen_at"]), default=None),
        )
