"""Whether a dataset is as it should be, in one line, and what to type next. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from etl.errors import ExitCode
from etl.inspect.status import RunTestStatus, Status
from etl.load.layout import INDEX, parse_part_path
from etl.model.wording import counted, first_few, quoted

NIGHTLY_HOURS = 26
_CHECK, _RUN, _VERIFY, _LOAD = "metrics-etl check", "metrics-etl run", "metrics-etl verify", "metrics-etl load"
_CHECKED_FIRST = {
    ExitCode.CONFIGURATION,
    ExitCode.KEY_REFUSED,
    ExitCode.SOURCE_UNAVAILABLE,
    ExitCode.DESTINATION_FAILED,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``text`` begins with ``Good`` or ``Not good``; ``next_step`` is a command."""

    is_good: bool
    text: str
    next_step: str


def judge(status: Status, *, max_age_hours: float | None = None, would_fail: bool = False) -> Verdict:
    """Good when everything that is configured was complete in so many hours, by default a night, and no run has failed since.

    Nor may a configured run test lack anything, whatever the last run said.
    ``would_fail``: an export that began now would.
    """
    hours = NIGHTLY_HOURS if max_age_hours is None else max_age_hours
    for problem, next_step in _problems(status, hours, would_fail=would_fail):  # the gravest is told
        if status.at_work:
            return Verdict(
                is_good=False, text=f"Not good: {problem}; an export is running", next_step="metrics-etl status"
            )
        return Verdict(is_good=False, text=f"Not good: {problem}", next_step=next_step)
    return Verdict(is_good=True, text=f"Good: everything complete {_complete(status)}", next_step=_VERIFY)


def _problems(status: Status, max_age_hours: float, *, would_fail: bool) -> Iterator[tuple[str, str]]:
    """What is wrong, the gravest first, each with what to type."""
    configured = [each for each in status.run_tests if each.is_configured]
    incomplete = [each for each in configured if not each.is_complete]
    last = status.runs[0] if status.runs else None
    # Another run does not help a name that the API does not know.
    is_checked = (last and last.exit_code in _CHECKED_FIRST) or any(each.error for each in incomplete)
    next_step = _CHECK if is_checked else _RUN
    if status.lost_run and status.lost_run.exit_code is None:
        yield "the last run was killed or crashed", _RUN
    if status.lost_run:
        yield "the last run could not start", _CHECK
    if incomplete:
        yield (
            f"{len(incomplete)} of {counted(len(configured), 'run test')} {_since(incomplete, status.read_at)}",
            next_step,
        )
    if last and last.exit_code:
        yield f"the last run ended with exit {last.exit_code} ({last.outcome})", next_step
    yield from ((problem, _RUN) for problem in status.still_open)
    if would_fail:
        yield "an export would fail now", _CHECK
    if status.complete_at is None and status.future_run_at:
        yield f"a run ended at {status.future_run_at:%Y-%m-%d %H:%M}, which is in the future: a clock is wrong", _RUN
    if status.complete_at is None:
        yield "no run over everything that is configured was ever complete", _RUN
    if status.is_older_than(max_age_hours):
        yield f"everything was complete {_complete(status)}, and not since", _RUN
    yield from ((lack, _RUN) for lack in (*missing_rows(status), *lacks(configured)))
    if status.unreadable:
        is_set_aside = any(map(parse_part_path, status.unreadable))
        yield counted(len(status.unreadable), "damaged or foreign file"), _RUN if is_set_aside else _VERIFY
    # The last, since a run loads at its end, and a load may fail for what is damaged.
    yield from ((lack, after_load(lack)) for lack in [status.warehouse_lacks] if lack)


def after_load(warehouse_lacks: str) -> str:
    """What to type when the warehouse lacks something: another load, but where it says that only a run helps."""
    return _RUN if f"{_RUN} " in warehouse_lacks else _LOAD


def missing_rows(status: Status) -> Iterator[str]:
    """What is gone of the tables, as far as they contradict each other or what the last run left."""
    configured = [each for each in status.run_tests if each.is_configured]
    for each in configured:
        if each.missing_calls:
            yield f"{counted(each.missing_calls, 'call')} of {quoted(each.name)} that were exported are not there"
        if each.stray_calls:
            yield f"the executions of {counted(each.stray_calls, 'call')} of {quoted(each.name)} are not there"
    calls = status.missing_calls - sum(each.missing_calls for each in configured)
    for what, gone in (("execution", status.missing_executions), ("call", calls), ("eval", status.missing_evals)):
        if gone > 0:
            yield f"{counted(gone, what)} gone since the last run"
    yield from _unexpected(status)
    if status.lost_executions:
        yield f"{counted(status.lost_executions, 'execution')} gone before the last run, and not exported again"
    if status.damaged_executions:
        executions = counted(status.damaged_executions, "execution")
        yield f"rows of {executions} gone before the last run, and not exported again"


def _unexpected(status: Status) -> Iterator[str]:
    """What the last run did not leave as it is, and where nothing tells."""
    if status.doubled_executions:
        yield f"rows of {counted(status.doubled_executions, 'execution')} stand twice: a move was interrupted, or files were copied"
    if status.surplus_rows:
        yield f"{counted(status.surplus_rows, 'row')} more than the last run left"
    if status.complete_at and not status.has_index:
        yield f"whether rows are gone is not known, since {INDEX} is missing, damaged or of another version"


def lacks(run_tests: Sequence[RunTestStatus]) -> Iterator[str]:
    """What the rows themselves say is missing, and of which run tests."""
    for what, counts in (
        ("incomplete execution", [each.incomplete for each in run_tests]),
        ("dead letter", [each.dead_letters for each in run_tests]),
    ):
        if any(counts):
            names = [quoted(each.name) for each, count in zip(run_tests, counts, strict=True) if count]
            yield f"{counted(sum(counts), what)} in {first_few(names)}"


def _since(incomplete: Sequence[RunTestStatus], now: datetime) -> str:
    """``never complete``, or since when: the day of the week is clear for six days, but not on that day itself."""
    times = [each.complete_at for each in incomplete if each.complete_at]
    if never_complete := len(incomplete) - len(times):
        return f"incomplete, {never_complete} of them never complete" if times else "never complete"
    since = min(times)
    if since.date() == now.date():
        return "incomplete since today"
    return f"incomplete since {since:%A}" if (now - since).days < 6 else f"incomplete since {since:%Y-%m-%d}"


def _complete(status: Status) -> str:
    return ago(status.complete_at, status.read_at) if status.complete_at else "never"


def ago(then: datetime, now: datetime) -> str:
    """``5 h ago``."""
    minutes = max(int((now - then).total_seconds() // 60), 0)
    if minutes < 90:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 60 * 48 else f"{minutes // 60 // 24} days ago"
