"""What ``status`` prints. Decides nothing."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from etl.cli.console import add_name_column, duration, print_line, printable, stdout_console
from etl.inspect.status import LetterStatus, RunStatus, RunTestStatus, Status, TableStatus
from etl.inspect.verdict import Verdict, after_load, ago, missing_rows
from etl.load.attempt import Attempt
from etl.load.layout import QUARANTINE, parse_part_path, parse_run_path
from etl.model.wording import counted

FIELDS = {
    "is_good": "whether all is well: everything configured was complete within `--max-age-hours` (26 by default), nothing is "
    "missing, and no run has failed since or would fail now",
    "verdict": "the same in one line",
    "next": "the command to type next",
    "problems_now": "what would stop an export that started now, such as a full disk",
    "dataset": "folder or bucket",
    "read_at": "when it was read",
    "at_work": "the process that is exporting now; otherwise null",
    "complete_at": "when a run last exported everything that is configured now; null when none did",
    "future_run_at": "the end of a run, if it is in the future because a clock is wrong; otherwise null",
    "lost_run": "the last run, if it could not start or was killed; otherwise null",
    "lost_run.started_at": "when it started",
    "lost_run.export_run_id": "its id; null when it could not start",
    "lost_run.exit_code": "its exit code; null when it was killed",
    "lost_run.message": "why it could not start; null when it was killed",
    "run_tests[].name": "name of the run test",
    "run_tests[].key": "its key, as in the folder `run_test=KEY`",
    "run_tests[].executions": "its executions: those exported, settling, waiting, incomplete and deleted",
    "run_tests[].exported": "final executions",
    "run_tests[].settling": "finished executions that may still get late data",
    "run_tests[].waiting": "executions that are still running at the source",
    "run_tests[].incomplete": "executions with something missing; the next run tries again",
    "run_tests[].deleted": "executions that were deleted at the source",
    "run_tests[].calls": "rows of `calls`",
    "run_tests[].evals": "rows of `evals`",
    "run_tests[].newest_started_at": "when its newest execution was created",
    "run_tests[].exported_at": "when a row of its executions last changed",
    "run_tests[].export_run_id": "the run that changed it",
    "run_tests[].complete_at": "when everything in it was last exported; null when it never was or is no longer configured",
    "run_tests[].is_configured": "whether the settings name it",
    "run_tests[].is_complete": "whether the last run that included it exported everything",
    "run_tests[].dead_letters": "its rows of `errors`, but for waiting executions",
    "run_tests[].missing_calls": "calls that were exported and are no longer there",
    "run_tests[].stray_calls": "calls without an execution",
    "run_tests[].error": "why the last run could not export it; otherwise null",
    "tables[].name": "a table",
    "tables[].rows": "its rows",
    "tables[].files": "its files",
    "tables[].size_bytes": "their size",
    "runs[].export_run_id": "one of the last seven runs, newest first",
    "runs[].started_at": "when it started",
    "runs[].finished_at": "when it ended",
    "runs[].outcome": "how it ended",
    "runs[].exit_code": "its exit code",
    "runs[].executions": "new or changed rows of `executions`",
    "runs[].calls": "new or changed rows of `calls`",
    "runs[].evals": "new or changed rows of `evals`",
    "runs[].requests": "requests sent to the API",
    "runs[].seconds": "how long it took",
    "problems": "what was missing or wrong after the newest run",
    "still_open": "what an earlier run could not find out, and no run since, in words",
    "dead_letters[].endpoint": "the request that was given up",
    "dead_letters[].status": "its HTTP status; 0 without an answer",
    "dead_letters[].count": "how many there are",
    "dead_letters[].first_seen_at": "when the first one was given up",
    "dead_letters[].last_seen_at": "when the last one was given up",
    "unreadable": "damaged files, and foreign files that end with `.parquet`",
    "ignored": "files of metrics-etl in `_state` that could not be used",
    "set_aside": "damaged files in `_state/quarantine`",
    "missing_executions": "executions that disappeared from the dataset since the last run",
    "missing_calls": "calls that disappeared since the last run",
    "missing_evals": "evals that disappeared since the last run",
    "lost_executions": "executions that disappeared earlier and were not exported again",
    "damaged_executions": "executions that lost some of their rows earlier and were not exported again",
    "doubled_executions": "executions whose rows are there twice",
    "surplus_rows": "executions, calls and evals that came since the last run, without one",
    "has_index": "`_state/index.parquet` is there, which tells what the last run left",
    "last_load": "the last load into the warehouse; null without one",
    "last_load.warehouse": "which warehouse, and its schema",
    "last_load.tried_at": "when it was loaded, or the attempt failed",
    "last_load.export_run_id": "the newest run that it has",
    "last_load.runs_digest": "a digest of all runs that it has",
    "last_load.loaded_at": "when a load last left nothing out; null for never",
    "last_load.problem": "why the load failed, or what it left out; otherwise null",
    "warehouse_lacks": "what the warehouse is missing, in words; null when it is up to date or there is none",
}
"""What each field of the JSON means."""


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
    if status.dead_letters:
        _print_letters(console, status.dead_letters)
    _print_problems(console, status, problems_now)
    for line in status.ignored:
        print_line(console, "notice", line)
    if status.set_aside:
        text = f"{counted(status.set_aside, 'damaged file')} in {status.dataset}/{QUARANTINE}: look at them, then remove them"
        print_line(console, "notice", text)
    print_line(console, "next", verdict.next_step)


def _print_problems(console: Console, status: Status, problems_now: Sequence[str]) -> None:
    if status.lost_run:
        print_line(console, "problem", _lost(status.lost_run), style="bold red")
    for problem in status.problems:
        print_line(console, "problem", f"in the last run: {problem}", style="bold red")
    for problem in status.still_open:
        print_line(console, "problem", f"in a run before: {problem}", style="bold red")
    if status.future_run_at:
        print_line(
            console,
            "problem",
            f"a run ended at {status.future_run_at:%Y-%m-%d %H:%M} UTC, which is in the future, and does not count; check the "
            "clocks of this machine and of the one that exports",
            style="bold red",
        )
    for problem in missing_rows(status):
        print_line(console, "problem", f"{problem}; next: metrics-etl run", style="bold red")
    if lack := status.warehouse_lacks:
        print_line(console, "problem", f"{lack}; next: {after_load(lack)}", style="bold red")
    for problem in problems_now:
        print_line(console, "problem", f"an export would fail now: {problem}", style="bold red")
    for path in status.unreadable:
        is_ours = parse_part_path(path) or parse_run_path(path)
        fault = "cannot be read" if is_ours else "is not a file of this dataset"
        fate = "the next run sets it aside" if parse_part_path(path) else "no run needs it: move it elsewhere"
        print_line(console, "problem", f"{path} {fault}; {fate}", style="bold red")


def _lost(attempt: Attempt) -> str:
    when = f"the run of {attempt.started_at:%Y-%m-%d %H:%M:%S} (UTC)"
    if attempt.exit_code is None:
        return (
            f"{when} ended without a summary: it was killed or crashed, the machine stopped, or the disk was full; what it had "
            "saved is kept"
        )
    return f"{when} could not start (exit {attempt.exit_code}): {attempt.message}"


def _print_run_tests(console: Console, run_tests: Sequence[RunTestStatus], now: datetime) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    add_name_column(console, table, "run test")
    _add_columns(table, ("executions", "calls"), ("newest", "complete", "state"))
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
    table = _table("table", ("rows", "files", "size"))
    for each in tables:
        table.add_row(each.name, f"{each.rows:,}", f"{each.files:,}", _size(each.size_bytes))
    console.print()
    console.print(table)


def _print_runs(console: Console, runs: Sequence[RunStatus]) -> None:
    table = _table("last runs (UTC)", ("exit",), ("outcome",), ("executions", "calls", "requests", "time"))
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


def _print_letters(console: Console, letters: Sequence[LetterStatus]) -> None:
    table = _table("dead letters", ("count", "status"), ("first seen", "last seen"))
    for each in letters:
        days = (f"{at:%Y-%m-%d}" if at else "" for at in (each.first_seen_at, each.last_seen_at))
        table.add_row(printable(each.endpoint), f"{each.count:,}", str(each.status), *days)
    console.print()
    console.print(table)


def _table(first: str, numbers: Sequence[str], words: Sequence[str] = (), more: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold", max_width=40)
    _add_columns(table, numbers, words, more)
    return table


def _add_columns(table: Table, numbers: Sequence[str], words: Sequence[str], more: Sequence[str] = ()) -> None:
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for name in words:
        table.add_column(name, overflow="fold")
    for name in more:
        table.add_column(name, justify="right", no_wrap=True)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**10:,.1f} KiB" if size_bytes < 2**20 else f"{size_bytes / 2**20:,.1f} MiB"
