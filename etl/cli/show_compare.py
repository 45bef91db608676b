"""What ``compare`` prints: a table for a terminal, or Markdown for a comment on a change. Decides nothing."""

import re

from rich.table import Table
from rich.text import Text

from etl.cli.console import print_line, stdout_console
from etl.inspect.compare import ComparisonReport, Row
from etl.inspect.sides import Side
from etl.inspect.statistics import Interval, Outcome, Verdict
from etl.model.metrics import SHARE
from etl.model.wording import counted, shown

_HEADER = ("metric", "baseline", "candidate", "change", "95% interval", "calls", "verdict")
_LEFT_OUT = ("95% interval", "calls")
_WIDE = 120
_STYLES = {Verdict.WORSE: "red", Verdict.BETTER: "green", Verdict.TOO_FEW: "dim", Verdict.UNCLEAR: ""}
_SHORT_UNITS = {"US cents": "ct", "score": ""}


def print_comparison(report: ComparisonReport) -> None:
    """Both sides, the metrics and the conclusion; to stdout."""
    console = stdout_console()
    for label, text in _heads(report):
        print_line(console, label, text)
    console.print(_table(report, is_narrow=console.width < _WIDE))
    for notice in report.notices:
        print_line(console, "notice", notice)
    print_line(
        console,
        "outcome",
        f"{report.conclusion} (exit {report.exit_code})",
        style="bold red" if report.exceeded else "",
    )


def _table(report: ComparisonReport, *, is_narrow: bool) -> Table:
    """In a narrow terminal without what the verdict already says: the interval, and the numbers of calls."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown_columns = [name for name in _HEADER if not (is_narrow and name in _LEFT_OUT)]
    for name in shown_columns:
        if name == "metric":
            table.add_column(name, overflow="fold")
        elif name == "verdict":
            table.add_column(name, min_width=len(Verdict.UNCLEAR))
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for row in report.rows:
        style = "bold red" if row.outcome is Outcome.EXCEEDED else _STYLES[row.found.verdict]
        cells = dict(zip(_HEADER, _cells(row), strict=True))
        table.add_row(*(Text(cells[name], style=style if name == "verdict" else "") for name in shown_columns))
    return table


def markdown(report: ComparisonReport) -> str:
    """The same for a comment. What came from outside stands there as code, so that it cannot be a link, a mention or HTML."""
    rows = [(f"`{name}`", *cells, f"**{verdict}**" if row.outcome is Outcome.EXCEEDED else verdict)
            for row in report.rows for name, *cells, verdict in [_cells(row)]]  # fmt: skip
    lines = [_HEADER, ["---", *["---:"] * (len(_HEADER) - 2), "---"], *rows]
    return "\n".join(
        (
            f"### {_code(report.candidate.run_test)}: {report.conclusion}",
            "",
            *(f"- {label}: {_code(text)}" for label, text in _heads(report)[1:]),
            *(f"- notice: {_code(notice)}" for notice in report.notices),
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
        )
    )


def _heads(report: ComparisonReport) -> list[tuple[str, str]]:
    return [
        ("run test", report.candidate.run_test),
        ("baseline", _side(report.baseline, report.calls[0])),
        ("candidate", _side(report.candidate, report.calls[1])),
    ]


def _side(side: Side, calls: int) -> str:
    executions = f"{counted(len(side.executions), 'execution')}, " if len(side.executions) > 1 else ""
    return f"{side.label}: {executions}{counted(calls, 'call')}"


def _cells(row: Row) -> tuple[str, ...]:
    found, unit = row.found, row.metric.unit
    verdict = found.verdict.value
    if row.limit:
        verdict += {
            Outcome.EXCEEDED: f", beyond the limit of {row.limit}",
            Outcome.IN_DOUBT: f", limit of {row.limit} in doubt",
            Outcome.KEPT: f", within {row.limit}",
            Outcome.NOT_JUDGED: f" for the limit of {row.limit}",
        }[found.against(row.limit)]
    return (
        shown(row.metric.name),
        _value(found.baseline, unit),
        _value(found.candidate, unit),
        *_change(row),
        f"{found.baseline_calls:,}, {found.candidate_calls:,}",
        verdict,
    )


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == SHARE:
        return f"{value * 100:.1f}%"
    return f"{_rounded(value)} {_SHORT_UNITS.get(unit, unit)}".rstrip()


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _change(row: Row) -> tuple[str, str]:
    """The change and its interval: of a rate in percentage points, else as a share of the baseline, where there is one."""
    found = row.found
    if found.difference is None or found.change is None:
        return "-", "-"
    if row.metric.is_rate:
        return _signed(found.difference, 100, " pp")
    if found.baseline:
        return _signed(found.change, 100, "%")
    return _signed(found.difference, 1, f" {_SHORT_UNITS.get(row.metric.unit, row.metric.unit)}".rstrip())


def _signed(interval: Interval, factor: float, unit: str) -> tuple[str, str]:
    value, low, high = (
        f"{round(each * factor, 1) + 0.0:+.1f}"  # no -0.0
        for each in (interval.value, interval.low, interval.high)
    )
    return f"{value}{unit}", f"{low} to {high}{unit}"


def _code(text: str) -> str:
    """The text as it is, between more backticks than it holds in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{shown(text)}{padding}{fence}"
