"""The state of a dataset as one value, whether it is as it should be, in one line, and what to do next. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from etl.dataset.last_run import Attempt, LastLoad
from etl.errors import ExitCode
from etl.files.names import QUARANTINE
from etl.inspect.status_run_tests import RunTestStatus
from etl.inspect.stored import TableStatus
from etl.model.findings import Finding, alarm_lines, alarms, gravest
from etl.model.wording import ShownInLines, counted

NIGHTLY_HOURS = 26
_CHECK, _RUN, _VERIFY = "metrics-etl check", "metrics-etl run", "metrics-etl verify"
_CHECK_FIRST = {ExitCode.CONFIGURATION, ExitCode.KEY_REFUSED, ExitCode.SOURCE_UNAVAILABLE, ExitCode.DESTINATION_FAILED}


@dataclass(frozen=True, slots=True)
class StatusVerdict:
    """``text`` begins with ``Good`` or ``Not good``; ``next_step`` is a command, or says more."""

    is_good: bool
    text: str
    next_step: str


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


@dataclass(frozen=True, slots=True, repr=False)
class Status(ShownInLines):
    """The dataset at ``read_at``, and the ``verdict`` on it. Its fields are what ``status --json`` prints.

    ``at_work``: the process that is exporting. ``complete_at``: when a run last left nothing out of everything configured; None
    if none did, or if a configured run test was never complete. ``lost_run``: the last run, if ``runs`` has no row of it because
    it could not start (it has an exit code) or was killed. ``runs``: the last one with these settings, then the newest with any,
    up to 7. ``set_aside``: files in quarantine. ``last_load``: how the last load into the warehouse went. ``problems_now``: what
    would end an export that began now; it ``would_fail`` if the settings name the run tests.
    """

    dataset: str
    read_at: datetime
    at_work: str | None
    complete_at: datetime | None
    lost_run: Attempt | None
    run_tests: tuple[RunTestStatus, ...]
    tables: tuple[TableStatus, ...]
    runs: tuple[RunStatus, ...]
    findings: tuple[Finding, ...]
    set_aside: int = 0
    last_load: LastLoad | None = None
    problems_now: tuple[str, ...] = ()
    would_fail: bool = False
    max_age_hours: float = NIGHTLY_HOURS

    @property
    def verdict(self) -> StatusVerdict:
        """Whether all is well, in one line, and what to do next."""
        return judge_status(self)

    def lines(self) -> Iterator[tuple[str, str]]:
        """The verdict, what there is, and what is missing."""
        yield "verdict", self.verdict.text
        yield "dataset", self.dataset
        complete = sum(each.is_complete for each in self.run_tests)
        yield "run tests", f"{complete:,} of {len(self.run_tests):,} complete"
        yield "rows", ", ".join(counted(each.rows, each.name.removesuffix("s")) for each in self.tables)
        yield from self.problem_lines()
        yield "next", self.verdict.next_step

    def problem_lines(self) -> Iterator[tuple[str, str]]:
        """What is missing, and what is worth knowing."""
        told = {*map(str, self.findings)}
        message = self.runs[0].message if self.runs else None
        for line in (message or "").splitlines():
            if line not in told:
                yield "problem", f"in the last run: {line}"
        for problem in () if self.verdict.is_good else self.problems_now:
            yield "problem", f"an export would fail now: {problem}"
        yield from alarm_lines(self.findings, has_next_step=False)
        yield from (("notice", str(finding)) for finding in self.findings if not finding.is_alarm)
        if verified := min((each.verified_at for each in self.run_tests if each.verified_at), default=None):
            yield "final", f"last verified up to {ago(verified, self.read_at)}; later evals need --full-refresh"
        if self.set_aside:
            files = counted(self.set_aside, "damaged file")
            yield "notice", f"{files} in {self.dataset}/{QUARANTINE}: inspect, then delete"

    def as_json(self) -> dict[str, Any]:
        """The status as a JSON object."""
        verdict = self.verdict
        told: dict[str, Any] = {"is_good": verdict.is_good, "verdict": verdict.text, "next": verdict.next_step}
        told |= msgspec.to_builtins(self)
        return told | {"findings": [finding.as_json() for finding in self.findings]}


def judge_status(status: Status) -> StatusVerdict:
    """Good when everything that is configured was complete in ``max_age_hours``, and no run has failed since.

    Nor may anything be missing or unknown, whatever the last run said, or stop an export that began now.
    """
    problem = next(_problems(status), None)  # the gravest is told
    if problem is None:
        return StatusVerdict(
            is_good=True, text=f"Good: the last complete export was {_complete(status)}", next_step=_VERIFY
        )
    text, next_step = problem
    if status.at_work:
        text, next_step = f"{text}; an export is running", "metrics-etl status"
    return StatusVerdict(is_good=False, text=f"Not good: {text}", next_step=next_step)


def _problems(status: Status) -> Iterator[tuple[str, str]]:
    """What is wrong, the gravest first, each with what to do."""
    yield from _of_last_run(status)
    if finding := gravest(status.findings):
        others = sum(1 for _ in alarms(status.findings)) - 1
        yield f"{finding}{f' (and {others:,} more)' if others else ''}", finding.next_step
    if status.runs and (last := status.runs[0]).exit_code:
        yield f"the last run ended with code {last.exit_code} ({last.outcome})", _RUN
    configured = [each for each in status.run_tests if each.is_configured]
    if incomplete := [each for each in configured if not each.is_complete]:
        yield f"{len(incomplete)} of {counted(len(configured), 'run test')} {_since(incomplete)}", _RUN
    if status.would_fail:
        yield "an export would fail now", _CHECK
    if status.complete_at is None:
        yield "no run has completed all configured run tests yet", _RUN
    elif (status.read_at - status.complete_at).total_seconds() > status.max_age_hours * 3600:
        yield f"the last complete export was {_complete(status)}", _RUN


def _of_last_run(status: Status) -> Iterator[tuple[str, str]]:
    """Why the last run did not get to its end; one that did, and left something out, is told by what it found."""
    if lost := status.lost_run:
        before = "" if status.complete_at else ", and no earlier run was complete"
        is_killed = lost.exit_code is None
        text = f"killed or crashed{before}" if is_killed else f"could not start: {lost.message}"
        yield f"the last run {'was ' if is_killed else ''}{text}", _RUN if is_killed else _CHECK
    elif status.runs and (last := status.runs[0]).exit_code not in (ExitCode.COMPLETE, ExitCode.PARTIAL):
        cause = (last.message or "").partition("\n")[0]
        is_checked = last.exit_code in _CHECK_FIRST
        yield cause or f"the last run ended with code {last.exit_code} ({last.outcome})", _CHECK if is_checked else _RUN


def _since(incomplete: Sequence[RunTestStatus]) -> str:
    """``never fully exported``, or since which day."""
    times = [each.complete_at for each in incomplete if each.complete_at]
    if never_complete := len(incomplete) - len(times):
        return f"incomplete, {never_complete} of them never fully exported" if times else "never fully exported"
    return f"incomplete since {min(times):%Y-%m-%d}"


def _complete(status: Status) -> str:
    return ago(status.complete_at, status.read_at) if status.complete_at else "never"


def ago(then: datetime, now: datetime) -> str:
    """``5 h ago``."""
    minutes = max(int((now - then).total_seconds() // 60), 0)
    if minutes < 90:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 60 * 48 else f"{minutes // 60 // 24} days ago"
