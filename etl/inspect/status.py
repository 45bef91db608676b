"""What a status is: the state of a dataset as one value, with a verdict in one line and what to do next.

Pure: ``read_status.py`` finds the files of a dataset, reads it from them, and knows the time.
"""

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
from etl.model.findings import Finding, alarms, gravest
from etl.model.wording import ShownInLines, counted

NIGHTLY_HOURS = 26
"""How old the last complete export may be for a run every night, with two hours to spare."""
_RUN = "metrics-etl run"
_CHECK = f"metrics-etl check, then {_RUN}"
_AFTER = {"No space left on device": f"make room, then run {_RUN}", "--accept-deletions": "check the key's workspace"}
"""By the end of a problem: what comes next."""
_CHECK_FIRST = {*ExitCode} - {ExitCode.BUG, ExitCode.SIGINT, ExitCode.SIGTERM}
"""The exit codes after which ``check`` says more than another run would."""


@dataclass(frozen=True, slots=True)
class StatusVerdict:
    """Whether all is well."""

    is_good: bool
    """Everything that is configured was complete in time, and nothing is missing or unknown."""
    text: str
    """One line for people, which begins with ``Good: `` or ``Not good: ``."""
    next_step: str
    """What to do next: a command, or a sentence; empty if all is well."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One export run, as its row in the table ``runs`` has it."""

    export_run_id: str
    """Identifies the run; begins with the time at which it began."""
    started_at: datetime
    """When it began, by the clock of the source."""
    finished_at: datetime
    """When it ended."""
    outcome: str
    """How it ended, in a word that goes with the exit code."""
    exit_code: int
    """0 if it left nothing out, 3 if it did; another code if it did not get to its end."""
    executions: int
    """How many rows of ``executions`` were new or changed."""
    calls: int
    """How many rows of ``calls`` were new or changed."""
    evals: int
    """How many rows of ``evals`` were new or changed."""
    requests: int
    """How many requests it sent."""
    seconds: float
    """How long it took."""
    message: str | None = None
    """What was missing or unknown, or why it ended, one line each; null if it was complete."""
    call_requests: int | None = None
    """How many of its requests were for one call by itself; null if an older version ran."""


@dataclass(frozen=True, slots=True, repr=False)
class Status(ShownInLines):
    """The state of a dataset. Its fields are what ``status --json`` prints, beside the ``verdict``."""

    dataset: str
    """The path or URL of the dataset."""
    read_at: datetime
    """When it was read: ages are counted from here."""
    at_work: str | None
    """The process that is exporting, None if there is none."""
    complete_at: datetime | None
    """When a run last left nothing out of everything configured.

    None if no run did, or if a configured run test was never complete.
    """
    lost_run: Attempt | None
    """The last run, if ``runs`` has no row of it: it could not start (then it has an exit code), or it was killed."""
    run_tests: tuple[RunTestStatus, ...]
    """The run tests that are configured or have rows, by name."""
    tables: tuple[TableStatus, ...]
    """How much each table holds."""
    runs: tuple[RunStatus, ...]
    """Up to 7 runs: first the last one with these settings, then the newest with any."""
    findings: tuple[Finding, ...]
    """What is missing, unknown or worth knowing."""
    set_aside: int = 0
    """How many damaged files are in the quarantine."""
    last_load: LastLoad | None = None
    """How the last load into the configured warehouse went; None if there is none."""
    problems_now: tuple[str, ...] = ()
    """What would end an export that began now, as far as reading shows."""
    would_fail: bool = False
    """Whether an export that began now would fail. False if the settings do not name the run tests."""
    max_age_hours: float = NIGHTLY_HOURS
    """How old the last complete export may be."""
    sweep_days: int | None = None
    """How old the comparison of a final execution may get, 0 for any age; None if there are no settings."""

    @property
    def verdict(self) -> StatusVerdict:
        """Whether all is well, and what to do next; with the gravest problem if it is not good.

        Good means that everything configured was complete within ``max_age_hours``, that no run has failed since, that
        nothing is missing or unknown, and that an export that began now would not fail. An export at work changes only
        what to do next.
        """
        problem = next(_problems(self), None)
        if problem is None:
            text = f"Good: the last complete export was {_complete(self)}"
            return StatusVerdict(is_good=True, text=text, next_step="")
        text, next_step = problem
        if self.would_fail and next_step == _RUN:
            next_step = _CHECK
        if self.at_work:
            text, next_step = f"{text}. An export is running", "metrics-etl status"
        return StatusVerdict(is_good=False, text=f"Not good: {text}", next_step=next_step)

    def lines(self) -> Iterator[tuple[str, str]]:
        """The status as it is shown, each line with its label."""
        yield "verdict", self.verdict.text
        yield "dataset", self.dataset
        complete = sum(run_test.is_complete for run_test in self.run_tests)
        yield "run tests", f"{complete:,} of {len(self.run_tests):,} complete"
        yield "rows", ", ".join(counted(table.rows, table.name.removesuffix("s")) for table in self.tables)
        yield from self.problem_lines()
        if self.verdict.next_step:
            yield "next", self.verdict.next_step

    def problem_lines(self) -> Iterator[tuple[str, str]]:
        """The lines about what is missing or worth knowing, each with its label; what the verdict says is left out."""
        shown_elsewhere = "\n".join([self.verdict.text, *map(str, self.findings)])
        for line in (self.runs[0].message or "").splitlines() if self.runs else ():
            if line not in shown_elsewhere:
                yield "problem", f"in the last run: {line}"
        if not self.verdict.is_good:
            for problem in self.problems_now:
                if problem not in self.verdict.text:
                    yield "problem", f"an export would fail now: {problem}"
        yield from (("problem", str(each)) for each in alarms(self.findings) if str(each) not in self.verdict.text)
        yield from (("notice", str(finding)) for finding in self.findings if not finding.is_alarm)
        times = [run_test.compared_at for run_test in self.run_tests if run_test.is_configured and run_test.compared_at]
        if oldest := min(times, default=None):
            limit = f" (limit: {counted(self.sweep_days, 'day')})" if self.sweep_days else ""
            yield "final", f"all were compared with the API at most {ago(oldest, self.read_at)}{limit}"
        if self.set_aside:
            files = counted(self.set_aside, "damaged file")
            yield "notice", f"inspect and then delete {files} in {self.dataset}/{QUARANTINE}"

    def as_json(self) -> dict[str, Any]:
        """The status as a JSON object, as ``status --json`` prints it."""
        verdict = self.verdict
        judged = {"is_good": verdict.is_good, "verdict": verdict.text, "next": verdict.next_step}
        findings = [finding.as_json() for finding in self.findings]
        return {**judged, **msgspec.to_builtins(self), "findings": findings}


def _problems(status: Status) -> Iterator[tuple[str, str]]:
    """What is wrong, the gravest first, each with the next step."""
    yield from _of_last_run(status)
    if finding := gravest(status.findings):
        others = sum(1 for _ in alarms(status.findings)) - 1
        below = f" ({counted(others, 'more problem')} below)" if others else ""
        yield f"{finding}{below}", finding.next_step
    if status.runs and status.runs[0].exit_code:
        yield _ended(status.runs[0]), _RUN
    configured = [run_test for run_test in status.run_tests if run_test.is_configured]
    if incomplete := [run_test for run_test in configured if not run_test.is_complete]:
        have = "has" if len(incomplete) == 1 else "have"
        yield f"{len(incomplete)} of {counted(len(configured), 'run test')} {have} {_since(incomplete)}", _RUN
    for problem in status.problems_now if status.would_fail else ():
        yield f"an export would fail now: {problem}", _after(problem, _CHECK)
    if status.complete_at is None:
        yield "no run has fully exported all configured run tests yet", _RUN
    elif (status.read_at - status.complete_at).total_seconds() > status.max_age_hours * 3600:
        yield f"the last complete export was {_complete(status)}", _RUN


def _of_last_run(status: Status) -> Iterator[tuple[str, str]]:
    """Why the last run did not get to its end, with the next step.

    Nothing if it did, even if it left something out: then its findings say more. What ended a run comes before these
    in its message, and is none of them.
    """
    if lost := status.lost_run:
        if lost.exit_code is not None:
            yield f"the last run could not start: {lost.message}", _CHECK
        else:
            before = "" if status.complete_at else ", and no earlier run was complete"
            yield f"the last run was killed or crashed, or the disk was full{before}", _RUN
    elif status.runs and (last := status.runs[0]).exit_code:
        cause = (last.message or "").partition("\n")[0]
        if last.exit_code != ExitCode.PARTIAL or cause not in {"", *map(str, status.findings)}:
            yield cause or _ended(last), _after(cause, _CHECK if last.exit_code in _CHECK_FIRST else _RUN)


def _after(problem: str, otherwise: str) -> str:
    """What comes after this problem."""
    return next((step for end, step in _AFTER.items() if problem.endswith(end)), otherwise)


def _ended(run: RunStatus) -> str:
    """How the last run ended."""
    return f"the last run ended with code {run.exit_code} ({run.outcome})"


def _since(incomplete: Sequence[RunTestStatus]) -> str:
    """Since when these run tests are incomplete: ``been incomplete since 2026-11-23``, or ``never been complete``."""
    times = [run_test.complete_at for run_test in incomplete if run_test.complete_at]
    if never_complete := len(incomplete) - len(times):
        return f"been incomplete, {never_complete} of them always" if times else "never been complete"
    return f"been incomplete since {min(times):%Y-%m-%d}"


def _complete(status: Status) -> str:
    """How long ago everything configured was complete."""
    return ago(status.complete_at, status.read_at) if status.complete_at else "never"


def ago(then: datetime, now: datetime) -> str:
    """How long ago that was, in the unit that fits: ``5 h ago``."""
    minutes = max(int((now - then).total_seconds() // 60), 0)
    if minutes < 90:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 60 * 48 else f"{minutes // 60 // 24} days ago"
