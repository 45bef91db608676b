"""What ``status`` prints. Decides nothing."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from etl.cli.console import duration, make_table, print_line, printable, stdout_console
from etl.cli.show_run import print_alarms, print_notices
from etl.inspect.status import RunStatus, Status, TableStatus
from etl.inspect.status_run_tests import RunTestStatus
from etl.inspect.verdict import Verdict, ago
from etl.load.last_run import Attempt
from etl.load.layout import QUARANTINE
from etl.model.wording import counted


def print_status(status: Status, verdict: Verdict, problems_now: Sequence[str]) -> None:
    """One screen of 80 columns: the verdict, what is missing, tables, last runs, what to type next; to stdout.

    ``problems_now`` would end an export that began now.
    """
    console = stdout_console()
    complete = (
        f"everything was complete {ago(status.complete_at, status.read_at)}" if status.complete_at else "never complete"
    )
    style = "bold green" if verdict.is_good else "bold red"
    console.print(Text(verdict.text, style=style), soft_wrap=True)
    print_line(console, "dataset", status.dataset)
    print_line(console, "export", f"running: {status.at_work}" if status.at_work else "not running")
    print_line(console, "freshness", complete)
    if status.last_load:
        at = ago(status.last_load.tried_at, status.read_at)
        print_line(
            console,
            "warehouse",
            f"{status.last_load.warehouse}, {'tried' if status.last_load.problem else 'loaded'} {at}",
        )
    _print_run_tests(console, status.run_tests, status.read_at)
    _print_tables(console, status.tables)
    if status.runs:
        _print_runs(console, status.runs)
    _print_problems(console, status, problems_now)
    print_notices(console, status.findings)
    if status.set_aside:
        text = f"{counted(status.set_aside, 'damaged file')} in {status.dataset}/{QUARANTINE}: look at them, then remove them"
        print_line(console, "notice", text)
    print_line(console, "next", verdict.next_step)


def _print_problems(console: Console, status: Status, problems_now: Sequence[str]) -> None:
    lines = [_lost(status.lost_run)] if status.lost_run else []
    told = {*map(str, status.findings)}
    message = status.runs[0].message if status.runs else None
    lines += [f"in the last run: {line}" for line in (message or "").splitlines() if line not in told]
    if status.future_run_at:
        lines.append(
            f"a run ended at {status.future_run_at:%Y-%m-%d %H:%M} UTC, which is in the future, and does not count; check the "
            "clocks of this machine and of the one that exports"
        )
    lines += [f"an export would fail now: {problem}" for problem in problems_now]
    for line in lines:
        print_line(console, "problem", line, style="bold red")
    print_alarms(console, status.findings, has_next_step=False)


def _lost(attempt: Attempt) -> str:
    when = f"the run of {attempt.started_at:%Y-%m-%d %H:%M:%S} (UTC)"
    if attempt.exit_code is None:
        return (
            f"{when} ended without a summary: it was killed or crashed, the machine stopped, or the disk was full; what it had "
            "saved is kept"
        )
    return f"{when} could not start (exit {attempt.exit_code}): {attempt.message}"


def _print_run_tests(console: Console, run_tests: Sequence[RunTestStatus], now: datetime) -> None:
    table = make_table(console, "run test", ("executions", "calls"), ("newest", "complete", "state"))
    for each in run_tests:
        counts = {"waiting": each.waiting, "settling": each.settling, "incomplete": each.incomplete}
        counts["deleted"] = each.deleted
        table.add_row(
            printable(each.name),
            f"{each.executions:,}",
            f"{each.calls:,}",
            f"{each.newest_started_at:%Y-%m-%d}" if each.newest_started_at else "",
            ago(each.complete_at, now) if each.complete_at else "never" if each.is_configured else "left out",
            "\n".join(f"{count:,} {state}" for state, count in counts.items() if count),
        )
    console.print()
    console.print(table)


def _print_tables(console: Console, tables: Sequence[TableStatus]) -> None:
    table = make_table(console, "table", ("rows", "files", "size"))
    for each in tables:
        table.add_row(each.name, f"{each.rows:,}", f"{each.files:,}", _size(each.size_bytes))
    console.print()
    console.print(table)


def _print_runs(console: Console, runs: Sequence[RunStatus]) -> None:
    table = make_table(console, "last runs (UTC)", ("exit",), ("outcome",), ("executions", "calls", "requests", "time"))
    for each in runs:
        table.add_row(
            f"{each.started_at:%Y-%m-%d %H:%M:%S}",
            str(each.exit_code),
            printable(each.outcome),
            f"{each.executions:,}",
            f"{each.calls:,}",
            f"{each.requests:,}",
            duration(each.seconds),
        )
    console.print()
    console.print(table)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**10:,.1f} KiB" if size_bytes < 2**20 else f"{size_bytes / 2**20:,.1f} MiB"
