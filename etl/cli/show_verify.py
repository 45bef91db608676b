"""What ``verify`` prints: figures, notices, the comparison with the API, and a line for each finding."""

from rich.console import Console
from rich.table import Table

from etl.cli.console import print_line, stdout_console
from etl.inspect.reconcile import SKIPPED_MEANINGS, Comparison
from etl.inspect.verify import Report
from etl.model.wording import counted, first_few
from etl.transform.aggregates import CAUSE_MEANINGS, Cause


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
        "page checksums, schemas, keys, hashes of rows, places, the calls and evals of each execution",
    )
    if report.comparison:
        _print_comparison(console, report.comparison)
    for notice in report.notices:
        print_line(console, "notice", notice)
    for finding in report.findings:
        print_line(console, "finding", str(finding), style="bold red")
    outcome = counted(len(report.findings), "finding") if report.findings else "nothing is wrong"
    print_line(console, "outcome", f"{outcome} (exit {report.exit_code})")


def _print_comparison(console: Console, comparison: Comparison) -> None:
    print_line(
        console,
        "api",
        f"{counted(comparison.compared, 'execution')} compared in {counted(comparison.requests, 'request')}: "
        f"{counted(comparison.values, 'value')}, "
        f"{comparison.same:,} the same, {sum(comparison.explained.values()):,} explained, {comparison.unexplained:,} not",
    )
    for name, count in comparison.explained.most_common():
        print_line(console, "explained", f"{count:,} {name}: {CAUSE_MEANINGS[Cause(name)]}")
    for reason, ids in sorted(comparison.skipped.items()):
        print_line(console, "left out", f"{len(ids):,} {reason.value}: {SKIPPED_MEANINGS[reason]} ({first_few(ids)})")
