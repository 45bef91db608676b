"""What an export run did, as one value: the exit code, the findings, the row of the runs table, the JSON summary.

The lines that a person reads after a run are put together here, from its findings and errors; the sentence for a load
that failed is ``Summary._load_problem``. Nothing here sends a request or writes a file.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from etl.dataset.last_run import RUN_TESTS, LastRun
from etl.dataset.receipt import Receipt
from etl.errors import ExitCode, ExporterError, SourceUnavailableError
from etl.extract.endpoints import Purpose, no_requests
from etl.load.synchronize import LoadResult
from etl.model.findings import LOSSES, Finding, Kind, alarm_lines, alarms
from etl.model.schema import RUNS_TABLE, TABLES
from etl.model.values import fields_of
from etl.model.wording import ShownInLines, by_purpose, counted, duration
from etl.settings import Settings


@dataclass(slots=True)
class RunTestSummary:
    """What a run did for one run test. Calls, evals and executions are counted as they arrived, changed or not."""

    name: str
    """The run test's name at the source."""
    key: str
    """The name of its folder: ``run_test=KEY``."""
    is_complete: bool = False
    """Whether everything in the run test was exported."""
    listed: int = 0
    """Executions in its list."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Listed executions by the ``Reason`` for which they were fetched or skipped."""
    missed: int = 0
    """Executions that were due, and are left to the next run because this one ended early."""
    previewed: int = 0
    """Executions that have the rows of their lists until the next run fetches their calls."""
    deleted: int = 0
    """Executions that were marked as deleted."""
    executions: int = 0
    """Executions that arrived."""
    calls: int = 0
    """Calls that arrived."""
    evals: int = 0
    """Evals that arrived."""
    dead_letters: int = 0
    """Requests that failed for good."""
    misfits: int = 0
    """Values that did not fit their columns."""
    error: str | None = None
    """Why the run test could not be exported; None if it could."""


@dataclass(slots=True, repr=False)
class Summary(ShownInLines):
    """What one export run did. Times are UTC by the source's clock, except for ``finished_here_at``.

    ``conclude`` makes it and sets ``completeness``; a load into the warehouse adds its result.
    """

    export_run_id: str
    """The run's id, which all rows that it wrote hold."""
    version: str
    """The version of the exporter."""
    dataset: str
    """The path or URL of the dataset."""
    started_at: datetime
    """When the run began."""
    finished_at: datetime
    """When the export ended; a load into the warehouse comes afterwards."""
    finished_here_at: datetime | None = None
    """``finished_at`` by this machine's clock."""
    run_tests: list[RunTestSummary] = field(default_factory=list)
    """What was done for each run test of this run."""
    findings: list[Finding] = field(default_factory=list)
    """Everything missing, unknown or worth knowing; what a load left out is among them."""
    requests_by_purpose: dict[Purpose, int] = field(default_factory=no_requests)
    """Requests that were sent to the API, retries included."""
    call_requests: int = 0
    """How many of these were for one call by itself; all others were for lists."""
    retries: int = 0
    """Requests that were sent again."""
    rejections: int = 0
    """Requests that the rate limit refused."""
    requests_per_minute: int | None = None
    """The rate limit that the run kept to; None if none was known."""
    files: int = 0
    """How many files were written."""
    size_bytes: int = 0
    """How many bytes were written."""
    store_requests: dict[str, int] = field(default_factory=dict)
    """Requests to a bucket so far, by kind; empty for a folder."""
    rows: dict[str, int] = field(default_factory=dict)
    """Written rows, new or changed, by table."""
    receipt: Receipt = field(default_factory=Receipt)
    """Which files the run wrote or set aside, and which executions changed."""
    completeness: LastRun = field(default_factory=LastRun)
    """What is complete after this run, for ``status`` and the next run; set by ``carry_on``."""
    is_first: bool = False
    """Whether no run, and no attempt at one, came before."""
    failure: ExporterError | None = None
    """What ended the run early; None if it did everything."""
    load: LoadResult | None = None
    """What was loaded into the warehouse; None if there is none, or the load failed or was not tried."""
    load_failure: ExporterError | None = None
    """Why nothing was loaded."""

    @property
    def requests(self) -> int:
        """All requests, for any purpose."""
        return sum(self.requests_by_purpose.values())

    @property
    def exit_code(self) -> ExitCode:
        """What the command exits with; docs/failed-night.md explains each code.

        What ended the run decides, then an alarm, then the error of a load that failed, whose sentence is
        ``_load_problem``. A load that left something out has added an alarm.
        """
        if self.failure is not None:
            has_exported = isinstance(self.failure, SourceUnavailableError) and any(self.rows.values())
            return ExitCode.PARTIAL if has_exported else self.failure.exit_code
        if any(alarms(self.findings)):
            return ExitCode.PARTIAL
        return self.load_failure.exit_code if self.load_failure else ExitCode.COMPLETE

    @property
    def _load_problem(self) -> str | None:
        """What a person is told of a load that failed; None if none did."""
        return f"the warehouse was not loaded: {self.load_failure}" if self.load_failure else None

    @property
    def counts_from(self) -> datetime:
        """When the run ended, by the earlier of the two clocks: the age of its data counts from there."""
        return min(self.finished_at, self.finished_here_at or self.finished_at)

    def carry_on(self, before: LastRun, settings: Settings) -> None:
        """Set ``completeness``: what is complete after this run, given what was before it in the same scope.

        A run test is complete after a run without ``--since`` that left nothing of it out; the dataset, after one run
        that left nothing out of everything configured. Run tests that are no longer configured are dropped. Call it
        again when ``failure`` or the findings have changed.
        """
        unknown = {finding.subject for finding in self.findings if finding.kind is Kind.NO_SUCH_RUN_TEST}
        tried = {run_test.key for run_test in self.run_tests if run_test.name not in unknown}
        whole = {run_test.key for run_test in self.run_tests if run_test.is_complete and self.failure is None}
        completed = whole if settings.since is None else set[str]()
        has_listed = bool(self.run_tests) and not settings.is_part
        knows_all = has_listed and not any(finding.kind is Kind.RUN_TESTS_UNKNOWN for finding in self.findings)
        # With run_tests = "all" none is configured: then those count that are known.
        known = tried if knows_all else {*before.last_complete_at} | tried
        keys = {run_test.key for run_test in settings.configured} or known
        last = {key: self.counts_from if key in completed else before.last_complete_at.get(key) for key in sorted(keys)}
        left_out = {*before.incomplete} | (tried - whole)
        incomplete = {key for key in keys - completed if last[key] is None or key in left_out}
        is_list_open = RUN_TESTS in before.incomplete if settings.is_part else not knows_all
        if is_list_open and not settings.configured:
            incomplete.add(RUN_TESTS)
        is_complete = self.exit_code == ExitCode.COMPLETE and not settings.is_part
        names = [run_test.name for run_test in self.run_tests] if has_listed else before.run_test_names
        # An alarm comes before what is odd in single executions. A run that was stopped has not judged everything.
        told = [each for kind in LOSSES for each in self.findings if each.kind is kind]
        judged = {each.subject for each in told} | {each.name for each in self.run_tests if self.failure is None}
        self.completeness = LastRun(
            scope=settings.scope,
            complete_at=self.counts_from if is_complete else before.complete_at,
            last_complete_at=last,
            incomplete=tuple(sorted(incomplete)),
            run_test_names=tuple(names),
            leave_out=tuple(settings.export.leave_out),
            answers=(*told, *(each for each in before.answers if each.subject not in judged)),
        )

    @property
    def outcome(self) -> str:
        """The exit code as a word."""
        return self.exit_code.outcome

    @property
    def seconds(self) -> float:
        """How long the export took."""
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def problems(self) -> list[str]:
        """One line for each alarm, and for what ended the run; empty when the run is complete."""
        lines = [str(self.failure)] if self.failure else []
        if not isinstance(self.failure, SourceUnavailableError):  # else each run test would tell of the same failure
            lines += map(str, alarms(self.findings))
        if self._load_problem:
            lines.append(self._load_problem)
        return lines

    @property
    def notices(self) -> list[str]:
        """One line for each finding that is worth knowing, although nothing is missing."""
        return [str(finding) for finding in self.findings if not finding.is_alarm]

    def lines(self) -> Iterator[tuple[str, str]]:
        """What the run did, and what is missing, as it is printed: a label and a text for each line."""
        yield "written", self._written()
        yield "requests", self._requests()
        if self.store_requests:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.store_requests.items()))
            yield "bucket", f"{counted(sum(self.store_requests.values()), 'request')} to the store so far: {kinds}"
        yield "dataset", f"{self.dataset} (new)" if self.is_first else self.dataset
        if self.load:
            yield "warehouse", f"{self.load.warehouse}: {self.load.in_words}"
            yield from (("notice", notice) for notice in self.load.notices)
        if misfits := sum(run_test.misfits for run_test in self.run_tests):
            yield "misfits", f'{counted(misfits, "value")} did not fit the columns, and went into the column "extra"'
        yield from (("notice", notice) for notice in self.notices)
        if self.failure:
            yield "problem", str(self.failure)
        if not isinstance(self.failure, SourceUnavailableError):
            yield from alarm_lines(self.findings, has_next_step=self.failure is None)
        if self._load_problem:
            yield "problem", self._load_problem
        yield "outcome", f"{self.outcome} (exit {self.exit_code})"

    def _written(self) -> str:
        rows = ", ".join(counted(self.rows[name], name.removesuffix("s")) for name in TABLES if self.rows.get(name))
        if rows:
            return f"{rows} (new or changed rows)"
        if self.files:
            return f"no new rows, but marks, names or states in {counted(self.files, 'file')}"
        return "nothing" if self.exit_code else "nothing, because everything is up to date"

    def _requests(self) -> str:
        text = f"{counted(self.requests, 'request')} in {duration(self.seconds)}"
        if self.retries or self.rejections:
            text += f" ({self.retries:,} sent again, {self.rejections:,} refused by the rate limit)"
        if self.requests:
            text += f": {by_purpose(self.requests_by_purpose, self.call_requests)}"
        return text

    def as_json(self) -> dict[str, Any]:
        """The summary as a JSON object; the shape of ``_state/last_run.json``."""
        return {
            **fields_of(self, "export_run_id", "version", "dataset"),
            "started_at": self.started_at.isoformat(timespec="milliseconds"),
            "finished_at": self.finished_at.isoformat(timespec="milliseconds"),
            "seconds": round(self.seconds, 3),
            "outcome": self.outcome,
            "exit_code": int(self.exit_code),
            **fields_of(self, "problems", "notices"),
            "findings": [finding.as_json() for finding in self.findings],
            "requests": self.requests,
            "requests_by_purpose": {purpose.value: sent for purpose, sent in self.requests_by_purpose.items()},
            **fields_of(self, "call_requests", "retries", "rejections", "requests_per_minute", "files"),
            "bytes": self.size_bytes,
            "store_requests": self.store_requests,
            "warehouse": self.load.as_json() if self.load else None,
            "rows": self.rows,
            "scope": self.completeness.scope,
            "complete_at": _iso(self.completeness.complete_at),
            "last_complete_at": {key: _iso(at) for key, at in self.completeness.last_complete_at.items()},
            "incomplete": list(self.completeness.incomplete),
            "run_test_names": list(self.completeness.run_test_names),
            "leave_out": list(self.completeness.leave_out),
            "answers": [finding.as_json() for finding in self.completeness.answers],
            "run_tests": msgspec.to_builtins(self.run_tests),
            "receipt": self.receipt.as_json(),
        }

    def as_row(self) -> dict[str, Any]:
        """The summary as a row of the ``runs`` table."""
        document = self.as_json()
        row = document | {
            **fields_of(self, "started_at", "finished_at", "seconds"),
            **{table: self.rows.get(table, 0) for table in ("executions", "calls", "evals")},
            "dead_letters": sum(run_test.dead_letters for run_test in self.run_tests),
            "misfits": sum(run_test.misfits for run_test in self.run_tests),
            "message": "\n".join(self.problems) or None,
            **{name: msgspec.json.encode(document[name]).decode() for name in ("run_tests", "receipt")},
        }
        return {name: row[name] for name in RUNS_TABLE.names}


def _iso(at: datetime | None) -> str | None:
    return at.isoformat(timespec="milliseconds") if at else None
