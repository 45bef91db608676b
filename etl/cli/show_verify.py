"""What ``verify`` prints: figures, notices, the comparison with the API, and a line for each finding."""

from rich.console import Console

from etl.cli.console import make_table, print_line, stdout_console
from etl.inspect.reconcile import SKIPPED_MEANINGS, Reconciliation
from etl.inspect.verify import Report
from etl.inspect.verify_warehouse import WarehouseReport
from etl.model.findings import Finding
from etl.model.wording import counted, first_few, shown
from etl.transform.aggregates import CAUSE_MEANINGS, Cause


def print_report(report: Report) -> None:
    """The whole report; to stdout."""
    console = stdout_console()
    table = make_table(console, "table", ("files", "rows", "MiB"))
    for name, figures in report.tables.items():
        table.add_row(name, f"{figures.files:,}", f"{figures.rows:,}", f"{figures.size_bytes / 2**20:.1f}")
    console.print(table)
    print_line(console, "dataset", report.dataset)
    print_line(
        console,
        "checked",
        "page checksums, columns, keys, row hashes, places, and the calls and evals of each execution",
    )
    if report.reconciliation:
        _print_reconciliation(console, report.reconciliation)
    if report.warehouse:
        _print_warehouse(console, report.warehouse)
    for notice in report.notices:
        print_line(console, "notice", notice)
    for finding in report.findings:
        print_line(console, "finding", finding_text(finding), style="bold red")
    outcome = counted(len(report.findings), "finding") if report.findings else "nothing is wrong"
    print_line(console, "outcome", f"{outcome} (exit {report.exit_code})")


def finding_text(finding: Finding) -> str:
    """One line: the kind, what was found, and what to do."""
    return shown(f"{finding.kind.value}: {finding}: {finding.next_step}")


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
