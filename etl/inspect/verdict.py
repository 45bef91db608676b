"""Whether a dataset is as it should be, in one line, and what to do next. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from etl.errors import ExitCode
from etl.model.findings import alarms, gravest
from etl.model.wording import counted

if TYPE_CHECKING:
    from etl.inspect.status import Status
    from etl.inspect.status_run_tests import RunTestStatus

NIGHTLY_HOURS = 26
_CHECK, _RUN, _VERIFY = "metrics-etl check", "metrics-etl run", "metrics-etl verify"
_CHECK_FIRST = {ExitCode.CONFIGURATION, ExitCode.KEY_REFUSED, ExitCode.SOURCE_UNAVAILABLE, ExitCode.DESTINATION_FAILED}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``text`` begins with ``Good`` or ``Not good``; ``next_step`` is a command, or says more."""

    is_good: bool
    text: str
    next_step: str


def judge(status: "Status") -> Verdict:
    """Good when everything that is configured was complete in ``max_age_hours``, and no run has failed since.

    Nor may anything be missing or unknown, whatever the last run said, or stop an export that began now.
    """
    problem = next(_problems(status), None)  # the gravest is told
    if problem is None:
        return Verdict(is_good=True, text=f"Good: the last complete export was {_complete(status)}", next_step=_VERIFY)
    text, next_step = problem
    if status.at_work:
        text, next_step = f"{text}; an export is running", "metrics-etl status"
    return Verdict(is_good=False, text=f"Not good: {text}", next_step=next_step)


def _problems(status: "Status") -> Iterator[tuple[str, str]]:
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


def _of_last_run(status: "Status") -> Iterator[tuple[str, str]]:
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


def _since(incomplete: "Sequence[RunTestStatus]") -> str:
    """``never fully exported``, or since which day."""
    times = [each.complete_at for each in incomplete if each.complete_at]
    if never_complete := len(incomplete) - len(times):
        return f"incomplete, {never_complete} of them never fully exported" if times else "never fully exported"
    return f"incomplete since {min(times):%Y-%m-%d}"


def _complete(status: "Status") -> str:
    return ago(status.complete_at, status.read_at) if status.complete_at else "never"


def ago(then: datetime, now: datetime) -> str:
    """``5 h ago``."""
    minutes = max(int((now - then).total_seconds() // 60), 0)
    if minutes < 90:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 60 * 48 else f"{minutes // 60 // 24} days ago"
