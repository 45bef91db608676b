"""What ``status`` and ``verify`` print. Decides nothing."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from etl.cli.console import print_line, print_lines, print_result, print_table, stdout_console
from etl.inspect.status import ago
from etl.model.findings import Finding
from etl.model.wording import counted, duration, first_few, shown

if TYPE_CHECKING:
    from etl.inspect.reconcile import Reconciliation
    from etl.inspect.status import RunStatus, Status
    from etl.inspect.status_run_tests import RunTestStatus
    from etl.inspect.stored import TableStatus
    from etl.inspect.verify import VerifyReport
    from etl.inspect.verify_warehouse import WarehouseReport

_SHOWN_STATES = ("waiting", "listed", "settling", "incomplete", "deleted")


def print_status(status: "Status") -> None:
    """One screen of 80 columns, to stdout."""
    now, at, load, verdict = status.read_at, status.complete_at, status.last_load, status.verdict
    style = "bold green" if verdict.is_good else "bold red"
    stdout_console().print(Text(verdict.text, style=style), soft_wrap=True)
    print_line("dataset", status.dataset)
    print_line("export", f"running: {status.at_work}" if status.at_work else "not running")
    print_line("freshness", f"last complete export {ago(at, now)}" if at else "no complete export yet")
    if load:
        print_line("warehouse", f"{load.warehouse}, {'tried' if load.problem else 'loaded'} {ago(load.tried_at, now)}")
    print_result("")
    _print_run_tests(status.run_tests, now)
    print_result("")
    _print_tables(status.tables)
    if status.runs:
        _print_runs(status.runs)
    print_lines(status.problem_lines())
    print_line("next", verdict.next_step)


def _print_run_tests(run_tests: Sequence["RunTestStatus"], now: datetime) -> None:
    titles = ("run test", "executions", "calls", "newest", "complete", "state")
    rows = []
    for each in run_tests:
        newest = f"{each.newest_started_at:%Y-%m-%d}" if each.newest_started_at else ""
        complete = ago(each.complete_at, now) if each.complete_at else "never" if each.is_configured else "left out"
        lines = "\n".join(f"{count:,} {state}" for state in _SHOWN_STATES if (count := getattr(each, state)))
        rows.append((each.name, each.executions, each.calls, newest, complete, lines))
    print_table(titles, rows, words=titles[3:])


def _print_tables(tables: Iterable["TableStatus"]) -> None:
    rows = ((each.name, each.rows, each.files, _size(each.size_bytes)) for each in tables)
    print_table(("table", "rows", "files", "size"), rows)


def _print_runs(runs: Sequence["RunStatus"]) -> None:
    titles = ("last runs (UTC)", "exit", "outcome", "executions", "calls", "requests", "time")
    rows = (
        (
            f"{each.started_at:%Y-%m-%d %H:%M:%S}",
            *(each.exit_code, each.outcome, each.executions, each.calls, each.requests, duration(each.seconds)),
        )
        for each in runs
    )
    print_result("")
    print_table(titles, rows, words={"outcome"})


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**10:,.1f} KiB" if size_bytes < 2**20 else f"{size_bytes / 2**20:,.1f} MiB"


def print_report(report: "VerifyReport") -> None:
    """The whole report; to stdout."""
    _print_tables(report.tables.values())
    print_line("dataset", report.dataset)
    print_line(
        "checked", "page checksums, columns, keys, row hashes, each row's file, and each execution's calls and evals"
    )
    if report.reconciliation:
        _print_reconciliation(report.reconciliation)
    if report.warehouse:
        _print_warehouse(report.warehouse)
    print_line("notice", *report.notices)
    print_line("finding", *map(finding_text, report.findings))
    outcome = counted(len(report.findings), "finding") if report.findings else "nothing is wrong"
    print_line("outcome", f"{outcome} (exit {report.exit_code})")


def finding_text(finding: Finding) -> str:
    """One line: the kind, what was found, and what to do."""
    return shown(f"{finding.kind.value}: {finding}: {finding.next_step}")


def _print_warehouse(report: "WarehouseReport") -> None:
    rows = ", ".join(
        f"{counted(count, 'row')} of {name}"
        + (f" (the warehouse has {there:,})" if (there := report.loaded_rows[name]) != count else "")
        for name, count in report.rows.items()
    )
    print_line("warehouse", f"{report.warehouse}: compared {rows}")
    for day in report.days:
        where = f"{day.table} of {day.run_test} on {day.day}" if day.run_test else f"{day.table} on {day.day}"
        print_line("differs", f"{where}: {counted(day.rows, 'row')}, {day.loaded_rows:,} in the warehouse")
    if report.held_back:
        executions = counted(report.held_back, "execution")
        print_line("left out", f"{executions} with rows missing from the dataset: metrics-etl run exports them again")


def _print_reconciliation(result: "Reconciliation") -> None:
    print_line(
        "api",
        f"{counted(result.compared, 'execution')} compared in {counted(result.requests, 'request')}: "
        f"{counted(result.values, 'value')}: {result.same:,} equal, "
        f"{sum(result.explained.values()):,} different for a known reason, {result.unexplained:,} for no known reason",
    )
    print_line("explained", *(f"{count:,} {each}: {each.meaning}" for each, count in result.explained.most_common()))
    skipped = sorted(result.skipped.items())
    print_line("left out", *(f"{len(ids):,} {each.value}: {each.meaning} ({first_few(ids)})" for each, ids in skipped))
