"""What an export run did, as one value: the exit code, the row of the runs table, the JSON summary, problems and notices."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from etl.errors import ExitCode, ExporterError, SourceUnavailableError

_OUTCOMES = {
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


@dataclass(slots=True)
class RunTestSummary:
    """One run test's share: executions by reason, rows that arrived, and what went wrong."""

    name: str
    key: str
    listed: int = 0
    is_complete: bool = False
    reasons: Counter[str] = field(default_factory=Counter)
    not_listed: int = 0
    not_answered: int = 0
    deleted: int = 0
    moved: int = 0
    missed: int = 0
    doubted: int = 0
    lost: int = 0
    unreadable: list[str] = field(default_factory=list)
    unknown_statuses: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    calls: int = 0
    evals: int = 0
    dead_letters: int = 0
    misfits: int = 0
    error: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the run test is missing."""
        return self.is_complete and self.error is None and not self.dead_letters and not self.missed

    def problems(self, *, is_cut_short: bool = False) -> list[str]:
        """One line for each thing that is missing or wrong. In a run that was cut short an unproved list is not a problem."""
        if self.error:
            return [f"{self.name!r}: {self.error}"]
        lines = []
        if self.unreadable:
            lines.append(
                f"{self.name!r}: {len(self.unreadable)} rows of its list cannot be read: {self.unreadable[-1]}"
            )
        elif not (self.is_complete or is_cut_short):
            lines.append(f"{self.name!r}: its list kept changing while it was read; run again to complete it")
        if self.doubted:
            lines.append(
                f"{self.name!r}: {self.doubted} executions list far fewer calls than they had or count; the stored ones were kept: "
                "run again, or with --accept-deletions if they were deleted on purpose"
            )
        if given_up := self.dead_letters - self.doubted:
            lines.append(
                f"{self.name!r}: {given_up} requests given up, see the errors table; the next run tries them again"
            )
        return lines


@dataclass(slots=True)
class Summary:
    """One export run. Times are aware UTC; ``rows`` are those written, by table.

    ``last_complete_at`` says, by the key of the run test, when everything in it was last exported.
    """

    export_run_id: str
    version: str
    dataset: str
    started_at: datetime
    finished_at: datetime
    run_tests: list[RunTestSummary] = field(default_factory=list)
    requests: int = 0
    necessary_requests: int = 0
    retries: int = 0
    rejections: int = 0
    requests_per_minute: int | None = None
    redactions: int = 0
    files: int = 0
    size_bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    quarantined: list[str] = field(default_factory=list)
    completed_files: int = 0
    left_behind: dict[str, int] = field(default_factory=dict)
    moved_calls: int = 0
    last_complete_at: dict[str, datetime] = field(default_factory=dict)
    undiscovered: list[str] = field(default_factory=list)
    namesakes: dict[str, int] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)
    failure: ExporterError | None = None

    @property
    def exit_code(self) -> ExitCode:
        """What the command answers with; see the README for the meanings."""
        is_whole = all(run_test.is_whole for run_test in self.run_tests) and not (self.quarantined or self.undiscovered)
        if self.failure is None:
            return ExitCode.COMPLETE if is_whole else ExitCode.PARTIAL
        is_partial = isinstance(self.failure, SourceUnavailableError) and any(self.rows.values())
        return ExitCode.PARTIAL if is_partial else self.failure.exit_code

    def carry_on(self, last_complete_at: Mapping[str, datetime], *, is_part: bool) -> None:
        """Carry over ``last_complete_at`` from the run before, and update the run tests that this run completed.

        Run tests that are no longer configured are dropped, unless this run was narrowed to a part of them.
        """
        completed = not (self.failure or self.quarantined)
        mine = {run_test.key for run_test in self.run_tests}
        self.last_complete_at = {key: at for key, at in last_complete_at.items() if is_part or key in mine} | {
            run_test.key: self.finished_at for run_test in self.run_tests if completed and run_test.is_whole
        }

    @property
    def outcome(self) -> str:
        """The exit code as a word."""
        return _OUTCOMES[self.exit_code]

    @property
    def seconds(self) -> float:
        """Duration of the run."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def problems(self) -> list[str]:
        """One line for each thing that is missing or wrong; empty when the run is complete."""
        is_told = isinstance(self.failure, SourceUnavailableError)
        lines = [str(self.failure)] if self.failure else []
        lines += self.undiscovered
        for run_test in self.run_tests:
            lines += [] if is_told and run_test.error else run_test.problems(is_cut_short=self.failure is not None)
        lines += [
            f"unreadable file set aside: {path}; what the API still lists of it is fetched again"
            for path in self.quarantined
        ]
        return lines

    @property
    def notices(self) -> list[str]:
        """One line for each thing that is worth knowing although nothing is missing."""
        lines = []
        if self.redactions:
            lines.append(
                f"{self.redactions} answers contained one of the keys; the dataset has [key] in its place: rotate that key"
            )
        if self.completed_files:
            lines.append(
                f"{self.completed_files} files of an older version now have all columns; the new ones are null until "
                "fetched again: see --full-refresh"
            )
        lines += [
            f"run_test={key}: {count} executions stay there, since no list has them: they were deleted or moved elsewhere"
            for key, count in self.left_behind.items()
            if count
        ]
        moved = f"{self.moved_calls} calls belong to another execution now; their old rows were removed"
        lines += [moved] if self.moved_calls else []
        if self.unlisted:
            others = f" and {len(self.unlisted) - 5} more" if len(self.unlisted) > 5 else ""
            lines.append(
                f"the API no longer lists a run test for run_test={', '.join(self.unlisted[:5])}{others}: deleted, or in another "
                "workspace; the rows stay"
            )
        lines += [
            f"{name!r}: {count} run tests have this name; the API lists their executions as one"
            for name, count in self.namesakes.items()
        ]
        for run_test in self.run_tests:
            name = repr(run_test.name)
            if run_test.deleted:
                lines.append(
                    f"{name}: {run_test.deleted} executions were deleted at the source; their rows are kept, see deleted_at"
                )
            if run_test.not_listed and not run_test.error:
                lines.append(
                    f"{name}: {run_test.not_listed} stored executions are no longer listed, although they exist"
                )
            if run_test.not_answered:
                lines.append(
                    f"{name}: {run_test.not_answered} stored executions are no longer listed, and could not be looked up"
                )
            if run_test.moved:
                lines.append(f"{name}: {run_test.moved} stored executions moved here from another run test or name")
            if run_test.lost:
                lines.append(
                    f"{name}: {run_test.lost} executions that the API no longer lists are missing rows: "
                    "restore their files from a backup"
                )
            lines += [
                f"{name}: {count} executions or calls have the status {status!r}, which this version does not know: they "
                "count as not finished"
                for status, count in sorted(run_test.unknown_statuses.items())
            ]
        return lines

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
            "necessary_requests": self.necessary_requests,
            "retries": self.retries,
            "rejections": self.rejections,
            "requests_per_minute": self.requests_per_minute,
            "redactions": self.redactions,
            "files": self.files,
            "bytes": self.size_bytes,
            "rows": self.rows,
            "last_complete_at": {
                key: at.isoformat(timespec="milliseconds") for key, at in sorted(self.last_complete_at.items())
            },
            "run_tests": [_run_test_json(run_test) for run_test in self.run_tests],
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


def _run_test_json(run_test: RunTestSummary) -> dict[str, Any]:
    return {
        "name": run_test.name,
        "key": run_test.key,
        "is_complete": run_test.is_whole,
        "listed": run_test.listed,
        "reasons": dict(run_test.reasons),
        "missed": run_test.missed,
        "not_listed": run_test.not_listed,
        "deleted": run_test.deleted,
        "moved": run_test.moved,
        "executions": run_test.executions,
        "calls": run_test.calls,
        "evals": run_test.evals,
        "dead_letters": run_test.dead_letters,
        "misfits": run_test.misfits,
        "error": run_test.error,
    }
