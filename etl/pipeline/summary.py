"""What an export run did, as one value: the exit code, the row of the runs table, the JSON summary, problems and notices."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from etl.errors import ExitCode, ExporterError, SourceUnavailableError
from etl.extract.purpose import Purpose, no_requests
from etl.load.last_run import LastRun
from etl.load.receipt import Receipt
from etl.load.warehouse.load import Result
from etl.model.wording import counted, quoted
from etl.pipeline.run_test_summary import RunTestSummary
from etl.settings import Settings

OUTCOMES = {
    ExitCode.COMPLETE: "complete",
    ExitCode.BUG: "error",
    ExitCode.CONFIGURATION: "configuration",
    ExitCode.PARTIAL: "partial",
    ExitCode.KEY_REFUSED: "refused",
    ExitCode.SOURCE_UNAVAILABLE: "unavailable",
    ExitCode.DESTINATION_FAILED: "destination",
    ExitCode.SIGINT: "interrupted",
    ExitCode.SIGTERM: "interrupted",
}

_MANY = 10
"""From so many executions on, what happened to each of them is worth a notice."""


@dataclass(slots=True)
class Summary:
    """One export run. Times are aware UTC, by the source's clock; ``rows`` are those written, by table, and ``removed`` others.

    ``complete_at`` and the five after it are those of ``LastRun``, this run included. ``is_first``: no run was on the dataset
    before. ``knows_all``: no run test is missing from the list of run tests. ``finished_here_at``: by this machine's clock.
    ``receipt`` grows until the run's record is written. ``lost``: by key the name of the run test, and how many executions that a
    run left are gone and were not exported again; ``damaged``: the same for those of which a part is gone; ``damaged_unfinished``:
    the keys where some still run. ``load``: what was loaded, or ``load_failure``: why nothing was. ``warehouse_loaded_at``: when a
    load last left nothing out, 1970 for never.
    """

    export_run_id: str
    version: str
    dataset: str
    started_at: datetime
    finished_at: datetime
    finished_here_at: datetime | None = None
    run_tests: list[RunTestSummary] = field(default_factory=list)
    requests_by_purpose: dict[Purpose, int] = field(default_factory=no_requests)
    necessary_requests: int = 0
    retries: int = 0
    rejections: int = 0
    requests_per_minute: int | None = None
    redactions: int = 0
    files: int = 0
    size_bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    removed: Counter[str] = field(default_factory=Counter)
    quarantined: list[str] = field(default_factory=list)
    lost: dict[str, tuple[str, int]] = field(default_factory=dict)
    damaged: dict[str, tuple[str, int]] = field(default_factory=dict)
    damaged_unfinished: set[str] = field(default_factory=set)
    forgotten: int = 0
    accepted: int = 0
    completed_files: int = 0
    left_behind: dict[str, int] = field(default_factory=dict)
    deleted_elsewhere: dict[str, int] = field(default_factory=dict)
    asked_for: list[str] = field(default_factory=list)
    ask_again: list[str] = field(default_factory=list)
    moved_calls: int = 0
    dropped: int = 0
    compared: int = 0
    saved_requests: int = 0
    store_requests: dict[str, int] = field(default_factory=dict)
    listed_differently: int = 0
    fetched_whole: int = 0
    why_whole: str | None = None
    complete_at: datetime | None = None
    last_complete_at: dict[str, datetime | None] = field(default_factory=dict)
    incomplete: list[str] = field(default_factory=list)
    not_listed: dict[str, int] = field(default_factory=dict)
    is_all: bool = False
    complete_since: dict[str, date | None] = field(default_factory=dict)
    knows_all: bool = True
    undiscovered: list[str] = field(default_factory=list)
    undiscovered_before: list[str] = field(default_factory=list)
    not_looked_up: list[str] = field(default_factory=list)
    namesakes: dict[str, int] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    is_first: bool = False
    receipt: Receipt = field(default_factory=Receipt, repr=False)
    failure: ExporterError | None = None
    load: Result | None = None
    warehouse_loaded_at: datetime | None = None
    load_failure: ExporterError | None = None

    @property
    def requests(self) -> int:
        """All requests, whatever they were for."""
        return sum(self.requests_by_purpose.values())

    @property
    def exit_code(self) -> ExitCode:
        """What the command answers with; see the README for the meanings."""
        if not (code := self._exit_code_of_export):
            left_out = self.load is not None and self.load.problems
            code = self.load_failure.exit_code if self.load_failure else ExitCode.PARTIAL if left_out else code
        return code

    @property
    def _exit_code_of_export(self) -> ExitCode:
        lacks = [self.quarantined, self.undiscovered, self.not_looked_up, self.lost, self.damaged]
        if self.failure is None:
            is_whole = all(run_test.is_whole for run_test in self.run_tests) and not any(lacks)
            return ExitCode.COMPLETE if is_whole else ExitCode.PARTIAL
        is_partial = isinstance(self.failure, SourceUnavailableError) and any(self.rows.values())
        return ExitCode.PARTIAL if is_partial else self.failure.exit_code

    @property
    def counts_from(self) -> datetime:
        """The time from which on the age of what it exported counts: the earlier of the two clocks', since one may be ahead."""
        return min(self.finished_at, self.finished_here_at or self.finished_at)

    def carry_on(self, before: LastRun, settings: Settings) -> None:
        """Say what is complete after this run, given what was before it.

        A run test is complete when a run left nothing of it out, ``--since`` being no such run; the dataset, when one run left
        nothing out of all that is configured. Run tests that are no longer configured are dropped.
        """
        before = before.within({each.key: each.since for each in settings.configured}, is_all=not settings.configured)
        days = {each.key: each.since for each in settings.run_tests}
        did_all = not (self.failure or self.quarantined)
        whole = {run_test.key for run_test in self.run_tests if did_all and run_test.is_whole}
        whole -= self.lost.keys() | self.damaged.keys()
        completed = whole if settings.since is None else set()
        keys = {run_test.key for run_test in settings.configured or self.run_tests}
        knows_all = bool(self.run_tests) and self.knows_all and self.failure is None
        if not settings.configured and (settings.is_part or not knows_all):
            # Of "all", a run that was narrowed, or could not list every run test, does not know the others.
            keys = before.last_complete_at.keys() | (completed if settings.is_part else keys)
        tried = {run_test.key for run_test in self.run_tests} if knows_all else keys
        self.last_complete_at = {
            key: self.counts_from if key in completed else before.last_complete_at.get(key) for key in sorted(keys)
        }
        self.complete_since = {
            key: days.get(key) if key in completed else before.complete_since.get(key) for key in self.last_complete_at
        }
        self.incomplete = [
            key
            for key, at in self.last_complete_at.items()
            if at is None or (key not in completed and (key in before.incomplete or key in tried - whole))
        ]
        has_discovered = self.failure is None and not settings.run_tests
        self.undiscovered_before = [] if has_discovered or settings.configured else [*before.undiscovered]
        compared = {each.key for each in self.run_tests if each.is_compared}
        back = {each.key for each in self.run_tests if each.listed}
        self.ask_again = sorted({*before.ask_again, *self.ask_again} - {*self.asked_for} - compared - back)
        self.asked_for = sorted({*before.asked_for, *self.asked_for} - {*self.ask_again} - compared - back)
        read = {each.key: each.not_listed for each in self.run_tests if each.is_compared}
        self.not_listed = {key: count for key, count in (before.not_listed | read).items() if count}
        is_complete = self.exit_code == ExitCode.COMPLETE and not settings.is_part
        self.complete_at = self.counts_from if is_complete else before.complete_at
        self.is_all = not settings.configured if is_complete else before.is_all

    @property
    def outcome(self) -> str:
        """The exit code as a word."""
        return OUTCOMES[self.exit_code]

    @property
    def seconds(self) -> float:
        """Duration of the run."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def problems(self) -> list[str]:
        """One line for each thing that is missing or wrong; empty when the run is complete."""
        is_told = isinstance(self.failure, SourceUnavailableError)
        lines = [*([str(self.failure)] if self.failure else []), *self.undiscovered, *self.not_looked_up]
        for run_test in self.run_tests:
            lines += [] if is_told and run_test.error else run_test.problems(is_cut_short=self.failure is not None)
        lines += [
            f"unreadable file set aside: {path}; its rows are fetched again if the API still lists them"
            for path in self.quarantined
        ]
        lines += [
            f"{quoted(name)}: the rows of {counted(count, 'execution')} are gone, and this run did not export them again: run "
            "again, without --run-test and since; if that does not help, restore their files from a backup; "
            "--accept-deletions forgets them"
            for name, count in self.lost.values()
        ]
        lines += [
            f"{quoted(name)}: {counted(count, 'execution')} with missing rows, and this run did not export them again: run "
            f"again{' once they have finished' if key in self.damaged_unfinished else ''}, without --run-test; if that does not "
            "help, restore their files from a backup; --accept-deletions keeps what is left"
            for key, (name, count) in self.damaged.items()
        ]
        lines += [f"not loaded: {self.load_failure}; metrics-etl load tries again"] if self.load_failure else []
        lines += self.load.problems if self.load else []
        return lines

    @property
    def notices(self) -> list[str]:
        """One line for each thing that is worth knowing although nothing is missing."""
        lines = [*self.ignored]
        forgotten = f"{counted(self.forgotten, 'execution')} whose rows are gone: forgotten, as --accept-deletions says"
        lines += [forgotten] if self.forgotten else []
        accepted = (
            f"{counted(self.accepted, 'execution')} with rows missing: what is left is kept, as --accept-deletions says"
        )
        lines += [accepted] if self.accepted else []
        if self.redactions:
            lines.append(
                f"{counted(self.redactions, 'answer')} contained one of the keys; the dataset has [key] in its place: "
                "rotate that key"
            )
        if self.completed_files:
            lines.append(
                f"{counted(self.completed_files, 'file')} of an older version got the columns of this one; new columns are null "
                "until their rows are fetched again: see --full-refresh"
            )
        lines += [
            f"run_test={key}: {counted(count, 'execution')} left there, no longer in any list: deleted or moved elsewhere"
            for key, count in self.left_behind.items()
            if count
        ]
        lines += [
            f"run_test={key}: {counted(count, 'execution')} deleted at the source; the rows are kept, see deleted_at"
            for key, count in self.deleted_elsewhere.items()
        ]
        moved = f"{counted(self.moved_calls, 'call')} moved to another execution; the old rows were removed"
        lines += [moved] if self.moved_calls else []
        removed = [counted(self.removed[f"{what}s"], what) for what in ("call", "eval") if self.removed[f"{what}s"]]
        lines += [f"{' and '.join(removed)} removed, which the source no longer lists"] if removed else []
        twice = f"rows of {counted(self.dropped, 'execution')} stood twice: those that are whole, or else the newer ones, were kept"
        lines += [twice] if self.dropped else []
        whole = (
            f"{counted(self.fetched_whole, 'settling execution')} fetched in full, because details could not be read: "
            f"{self.why_whole}"
        )
        lines += [whole] if self.fetched_whole else []
        differently = (
            f"{counted(self.listed_differently, 'execution')} listed differently than before, although the calls are the same, "
            "which cost two requests each, and will once more: the API may have changed how it writes a field"
        )
        lines += [differently] if self.listed_differently >= _MANY else []
        if self.unlisted:
            others = f" and {len(self.unlisted) - 5} more" if len(self.unlisted) > 5 else ""
            lines.append(
                f"the API no longer lists a run test for run_test={', '.join(self.unlisted[:5])}{others}: deleted, or in another "
                "workspace; the rows stay"
            )
        lines += [
            f"{quoted(name)}: {count} run tests have this name; the API lists their executions as one"
            for name, count in self.namesakes.items()
        ]
        return [*lines, *(notice for run_test in self.run_tests for notice in run_test.notices())]

    def as_json(self) -> dict[str, Any]:
        """The summary as a JSON object; the shape of ``_state/last_run.json``."""
        return {
            "export_run_id": self.export_run_id,
            "version": self.version,
            "dataset": self.dataset,
            "started_at": self.started_at.isoformat(timespec="milliseconds"),
            "finished_at": self.finished_at.isoformat(timespec="milliseconds"),
            "seconds": round(self.seconds, 3),
            "outcome": self.outcome,
            "exit_code": int(self.exit_code),
            "problems": self.problems,
            "notices": self.notices,
            "requests": self.requests,
            "requests_by_purpose": {purpose.value: sent for purpose, sent in self.requests_by_purpose.items()},
            "saved_requests": self.saved_requests,
            "necessary_requests": self.necessary_requests,
            "retries": self.retries,
            "rejections": self.rejections,
            "requests_per_minute": self.requests_per_minute,
            "redactions": self.redactions,
            "files": self.files,
            "bytes": self.size_bytes,
            "store_requests": self.store_requests,
            "warehouse": self.load.as_json() if self.load else None,
            "rows": self.rows,
            "complete_at": _iso(self.complete_at),
            "last_complete_at": {key: _iso(at) for key, at in self.last_complete_at.items()},
            "incomplete": self.incomplete,
            "undiscovered": list(dict.fromkeys([*self.undiscovered, *self.undiscovered_before])),
            "asked_for": self.asked_for,
            "ask_again": self.ask_again,
            "not_listed": self.not_listed,
            "is_all": self.is_all,
            "complete_since": {key: day.isoformat() if day else None for key, day in self.complete_since.items()},
            "run_tests": [run_test.as_json() for run_test in self.run_tests],
            "receipt": self.receipt.as_json(),
        }

    def as_row(self, run_tests_json: str) -> dict[str, Any]:
        """The summary as a row of the ``runs`` table."""
        return {
            "export_run_id": self.export_run_id,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "outcome": self.outcome,
            "exit_code": int(self.exit_code),
            "version": self.version,
            "seconds": self.seconds,
            "requests": self.requests,
            "retries": self.retries,
            "rejections": self.rejections,
            "executions": self.rows.get("executions", 0),
            "calls": self.rows.get("calls", 0),
            "evals": self.rows.get("evals", 0),
            "dead_letters": sum(run_test.dead_letters for run_test in self.run_tests),
            "misfits": sum(run_test.misfits for run_test in self.run_tests),
            "files": self.files,
            "bytes": self.size_bytes,
            "message": "\n".join(self.problems) or None,
            "run_tests": run_tests_json,
        }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat(timespec="milliseconds") if at else None
