"""What ``status`` and ``verify`` print. Decides nothing."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from etl.cli.console import print_line, print_lines, print_result, print_table, stdout_console
from etl.inspect.status import RunStatus, Status, ago
from etl.model.findings import Finding
from etl.model.metrics import METRICS
from etl.model.wording import counted, duration, nearest, shown

if TYPE_CHECKING:
    from etl.inspect.status_run_tests import RunTestStatus
    from etl.inspect.stored import TableStatus
    from etl.inspect.verify import VerifyReport
    from etl.inspect.verify_warehouse import WarehouseReport

_SHOWN_STATES = ("waiting", "listed", "settling", "incomplete", "deleted", "forgotten")


def print_status(status: Status, accepted: Mapping[str, date], config: Path | None = None) -> None:
    """Print the state of the dataset to stdout: one screen of 80 columns, the verdict first.

    ``accepted`` are the levels that the settings call normal. ``config`` is the settings file, None for the default.
    """
    now = status.read_at
    style = "bold green" if status.verdict.is_good else "bold red"
    stdout_console().print(Text(status.verdict.text, style=style), soft_wrap=True)
    print_line("dataset", status.dataset)
    print_line("export", f"running: {status.at_work}" if status.at_work else "not running")
    complete_at = status.complete_at
    freshness = f"last complete export {ago(complete_at, now)}" if complete_at else "no complete export yet"
    print_line("freshness", freshness)
    if load := status.last_load:
        print_line("warehouse", f"{load.warehouse}, {'tried' if load.problem else 'loaded'} {ago(load.tried_at, now)}")
    print_result("")
    _print_run_tests(status.run_tests, now)
    print_result("")
    print_tables(status.tables)
    if status.runs:
        _print_runs(status.runs)
    metrics = ("", *(f"/{metric}" for metric in METRICS))
    known = [f"{run_test.name}{metric}" for run_test in status.run_tests for metric in metrics]
    for name, day in accepted.items():
        is_known = name.split("/eval_")[0] in known
        print_line("accepted", f"{name} since {day}{'' if is_known else f': not found. {nearest(name, known)}'}")
    print_lines(status.problem_lines())
    if step := status.verdict.next_step:
        print_line("next", f"{step} (with --config {config})" if config and "metrics-etl" in step else step)


def _print_run_tests(run_tests: Sequence["RunTestStatus"], now: datetime) -> None:
    rows = []
    for run_test in run_tests:
        newest = f"{run_test.newest_started_at:%Y-%m-%d}" if run_test.newest_started_at else ""
        complete = "never" if run_test.is_configured else "left out"
        if run_test.complete_at:
            complete = ago(run_test.complete_at, now)
        states = "\n".join(f"{count:,} {state}" for state in _SHOWN_STATES if (count := getattr(run_test, state)))
        rows.append((run_test.name, run_test.executions, run_test.calls, newest, complete, states))
    titles = ("run test", "executions", "calls", "newest", "complete", "state")
    print_table(titles, rows, words={"newest", "complete", "state"})


def print_tables(tables: Iterable["TableStatus"]) -> None:
    """Print how much each table holds to stdout."""
    rows = ((table.name, table.rows, table.files, _size_text(table.size_bytes)) for table in tables)
    print_table(("table", "rows", "files", "size"), rows)


def _print_runs(runs: Sequence[RunStatus]) -> None:
    titles = ("last runs (UTC)", "outcome", "executions", "calls", "requests", "for calls", "time")
    rows = []
    for run in runs:
        counts = (run.executions, run.calls, run.requests, "" if run.call_requests is None else run.call_requests)
        outcome = f"{run.outcome} ({run.exit_code})"
        rows.append((f"{run.started_at:%Y-%m-%d %H:%M}", outcome, *counts, duration(run.seconds)))
    print_result("")
    print_table(titles, rows, words={"outcome"})


def _size_text(size_bytes: int) -> str:
    return f"{size_bytes / 2**10:,.1f} KiB" if size_bytes < 2**20 else f"{size_bytes / 2**20:,.1f} MiB"


def print_report(report: "VerifyReport") -> None:
    """Print what was checked and everything that was found to stdout."""
    print_tables(report.tables.values())
    print_line("dataset", report.dataset)
    print_line(
        "checked", "hashes of files, columns, keys, row hashes, each row's file, and each execution's calls and evals"
    )
    if report.warehouse:
        _print_warehouse(report.warehouse)
    print_line("notice", *report.notices)
    print_line("finding", *map(finding_text, report.findings))
    outcome = counted(len(report.findings), "finding") if report.findings else "nothing is wrong"
    print_line("outcome", f"{outcome} (exit {report.exit_code})")


def finding_text(finding: Finding) -> str:
    """A finding in one line: its kind, what was found, and what to do."""
    return shown(f"{finding.kind.value}: {str(finding).rstrip('.')}; next: {finding.next_step}")


def _print_warehouse(report: "WarehouseReport") -> None:
    compared = []
    for table, count in report.rows.items():
        loaded = report.loaded_rows[table]
        differs = f" (the warehouse has {loaded:,} rows)" if loaded != count else ""
        compared.append(f"{counted(count, 'row')} of {table}{differs}")
    print_line("warehouse", f"{report.warehouse}: compared {', '.join(compared)}")
    if report.held_back:
        executions = counted(report.held_back, "execution")
        print_line("left out", f"{executions} with rows missing from the dataset. Restore them with metrics-etl run")
