"""What ``verify`` prints: figures, notices, the comparison with the API, and a line for each finding."""

from rich.console import Console
from rich.table import Table

from etl.cli.console import print_line, stdout_console
from etl.inspect.reconcile import SKIPPED_MEANINGS, Reconciliation
from etl.inspect.verify import Report
from etl.inspect.verify_warehouse import WarehouseReport
from etl.model.wording import counted, first_few
from etl.transform.aggregates import CAUSE_MEANINGS, Cause

FIELDS = {
    "dataset": "folder or bucket",
    "exit_code": "exit code",
    "export_at_work": "the process that was exporting meanwhile; otherwise null",
    "tables[].name": "a table",
    "tables[].files": "its files",
    "tables[].rows": "its rows",
    "tables[].bytes": "size of its files",
    "findings[].kind": "see the findings below",
    "findings[].place": "the file, execution or run test",
    "findings[].text": "what is wrong",
    "findings[].fix": "how to fix it",
    "notices": "one line for each thing worth knowing, such as files in quarantine",
    "against_api": "null without `--against-api`",
    "against_api.requests": "requests sent to the API",
    "against_api.compared": "executions that were compared",
    "against_api.not_compared": "ids of the executions that were not compared, by reason",
    "against_api.values": "values that were compared",
    "against_api.same": "values that are the same",
    "against_api.explained": "values that differ for a known cause, by cause",
    "against_api.unexplained": "values that differ without one: these are findings",
    "warehouse": "null without `--warehouse`",
    "warehouse.warehouse": "which warehouse, and its schema",
    "warehouse.tables[].name": "a table",
    "warehouse.tables[].rows": "its rows in the dataset",
    "warehouse.tables[].loaded_rows": "its rows in the warehouse",
    "warehouse.days[].table": "table, run test and day (UTC) where the numbers of rows differ",
    "warehouse.days[].run_test": "key of the run test; empty for `runs`",
    "warehouse.days[].day": "the day",
    "warehouse.days[].rows": "rows in the dataset",
    "warehouse.days[].loaded_rows": "rows in the warehouse",
    "warehouse.held_back": "executions not compared, because the dataset lost rows of them",
}
"""What each field of the JSON means."""


def print_report(report: Report) -> None:
    """The whole report; to stdout."""
    console = stdout_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("table")
    for name in ("files", "rows", "MiB"):
        table.add_column(name, justify="right")
    for name, figures in report.tables.items():
        table.add_row(name, f"{figures.files:,}", f"{figures.rows:,}", f"{figures.size_bytes / 2**20:.1f}")
    console.print(table)
    print_line(console, "dataset", report.dataset)
    print_line(
        console,
        "checked",
        "page checksums, schemas, keys, row hashes, places, and the calls and evals of each execution",
    )
    if report.reconciliation:
        _print_reconciliation(console, report.reconciliation)
    if report.warehouse:
        _print_warehouse(console, report.warehouse)
    for notice in report.notices:
        print_line(console, "notice", notice)
    for finding in report.findings:
        print_line(console, "finding", str(finding), style="bold red")
    outcome = counted(len(report.findings), "finding") if report.findings else "nothing is wrong"
    print_line(console, "outcome", f"{outcome} (exit {report.exit_code})")


def _print_warehouse(console: Console, report: WarehouseReport) -> None:
    rows = ", ".join(
        f"{counted(count, 'row')} of {name}"
        + (f" ({there:,} there)" if (there := report.loaded_rows[name]) != count else "")
        for name, count in report.rows.items()
    )
    print_line(console, "warehouse", f"{report.warehouse}: compared {rows}")
    for day in report.days:
        where = f"{day.table} of {day.run_test} on {day.day}" if day.run_test else f"{day.table} on {day.day}"
        print_line(console, "differs", f"{where}: {counted(day.rows, 'row')}, {day.loaded_rows:,} in the warehouse")
    if report.held_back:
        executions = counted(report.held_back, "execution")
        print_line(
            console, "left out", f"{executions} with rows missing from the dataset: metrics-etl run exports them again"
        )


def _print_reconciliation(console: Console, result: Reconciliation) -> None:
    print_line(
        console,
        "api",
        f"{counted(result.compared, 'execution')} compared in {counted(result.requests, 'request')}: "
        f"{counted(result.values, 'value')}, "
        f"{result.same:,} the same, {sum(result.explained.values()):,} explained, {result.unexplained:,} not",
    )
    for name, count in result.explained.most_common():
        print_line(console, "explained", f"{count:,} {name}: {CAUSE_MEANINGS[Cause(name)]}")
    for reason, ids in sorted(result.skipped.items()):
        print_line(console, "left out", f"{len(ids):,} {reason.value}: {SKIPPED_MEANINGS[reason]} ({first_few(ids)})")
