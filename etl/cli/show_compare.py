"""What ``compare`` prints: a table for a terminal, or Markdown for a comment on a pull request. Decides nothing."""

import re
from collections.abc import Sequence

from rich.text import Text

from etl.cli.console import print_line, print_lines, print_table, stdout_console
from etl.compare.comparison import ComparisonReport, Row, change_texts, detects_text, planned_limits, value_text
from etl.compare.selection import Selection
from etl.compare.statistics import Outcome, Verdict
from etl.model.findings import alarm_lines
from etl.model.wording import counted, shown

_HEADER = ("metric", "baseline", "candidate", "change", "95% interval", "detects", "calls", "verdict")
_ONLY_IF_WIDE = {"95% interval", "detects", "calls"}
"""Columns that a narrow terminal does without, because the verdict sums them up."""
_WIDE = 120
_STYLES = {Verdict.WORSE: "red", Verdict.BETTER: "green", Verdict.TOO_FEW: "dim", Verdict.UNCLEAR: ""}


def print_comparison(report: ComparisonReport) -> None:
    """Print baseline, candidate, the metrics and the conclusion to stdout."""
    print_lines(_head_lines(report))
    is_wide = stdout_console().width >= _WIDE
    columns = [name for name in _HEADER if is_wide or name not in _ONLY_IF_WIDE]
    rows = (dict(zip(_HEADER, _styled_cells(row), strict=True)) for row in report.rows)
    print_table(columns, ([cells[name] for name in columns] for cells in rows), words={"metric", "verdict"})
    print_line("repeats", *(repetition.text for repetition in report.repetitions))
    print_line("notice", *report.notices)
    print_lines(alarm_lines(report.findings))
    print_line("outcome", f"{report.conclusion} (exit {report.exit_code})", style="bold red" if report.exceeded else "")


def print_comparison_plan(report: ComparisonReport) -> None:
    """Print to stdout how many calls on each side a limit needs, estimated from the variance of these calls."""
    print_lines(_head_lines(report))
    rows = []
    for row in report.rows:
        needed = [row.found.calls_needed(limit) for limit in planned_limits(row.metric)]
        texts = [f"{calls:,}" if calls else "-" for calls in needed]
        rows.append((shown(row.metric.name), _calls_text(row), detects_text(row), *texts))
    print_table(("metric", "calls", "detects", "limit 5%", "10%", "20%"), rows, words={"metric"})
    print_line(
        "outcome",
        "calls on each side that find a change of twice the limit in 9 of 10 cases "
        "(-: it takes more executions); rates in pp",
    )


def _styled_cells(row: Row) -> tuple[str | Text, ...]:
    *cells, verdict = _cells(row)
    style = "bold red" if row.outcome is Outcome.EXCEEDED else _STYLES[row.found.verdict]
    return *cells, Text(verdict, style=style)


def markdown(report: ComparisonReport) -> str:
    """The same as Markdown, for a comment.

    What came from outside stands there as code, so that it cannot become a link, a mention or HTML.
    """
    rows: list[Sequence[str]] = [_HEADER, ["---", *["---:"] * (len(_HEADER) - 2), "---"]]
    for row in report.rows:
        name, *cells, verdict = _cells(row)
        rows.append([f"`{name}`", *cells, f"**{verdict}**" if row.outcome is Outcome.EXCEEDED else verdict])
    return "\n".join(
        (
            f"### {_code(report.candidate.run_test)}: {report.conclusion}",
            "",
            *(f"- {label}: {_code(text)}" for label, text in _head_lines(report)[1:]),
            *(f"- repeats: {_code(repetition.text)}" for repetition in report.repetitions),
            *(f"- notice: {_code(notice)}" for notice in (*report.notices, *map(str, report.findings))),
            "",
            *(f"| {' | '.join(cells)} |" for cells in rows),
        )
    )


def _head_lines(report: ComparisonReport) -> list[tuple[str, str]]:
    """What is compared, as labels and texts; the run test comes first."""
    return [
        ("run test", report.candidate.run_test),
        ("baseline", _selection_text(report.baseline, report.calls[0])),
        ("candidate", _selection_text(report.candidate, report.calls[1])),
        ("compared", report.pairing.text),
    ]


def _selection_text(selection: Selection, calls: int) -> str:
    executions = f"{counted(len(selection.executions), 'execution')}, " if len(selection.executions) > 1 else ""
    return f"{selection.label}: {executions}{counted(calls, 'call')}"


def _cells(row: Row) -> tuple[str, ...]:
    """The texts of a metric's row, in the order of the header."""
    return (
        shown(row.metric.name),
        value_text(row.found.baseline, row.metric.unit),
        value_text(row.found.candidate, row.metric.unit),
        *change_texts(row.metric, row.found),
        detects_text(row),
        _calls_text(row),
        f"{row.found.verdict.value}{_limit_text(row)}",
    )


def _calls_text(row: Row) -> str:
    return f"{row.found.baseline_calls:,}, {row.found.candidate_calls:,}"


def _limit_text(row: Row) -> str:
    """What follows the verdict: what became of the metric's limit; nothing if it has none."""
    limit = row.limit
    match row.outcome:
        case Outcome.EXCEEDED:
            return f", beyond the limit of {limit}"
        case Outcome.IN_DOUBT:
            return f", possibly beyond the limit of {limit}"
        case Outcome.KEPT:
            return f", within {limit}"
    if limit is None:
        return ""
    if row.found.difference is None:  # the verdict itself is then "too few calls"
        return f" for the limit of {limit}"
    needed = row.found.calls_needed(limit)
    advice = f"{needed:,} on each side would do" if needed else "more executions would tell"
    return f", too few calls for the limit of {limit}: {advice}"


def _code(text: str) -> str:
    """The text as code: between more backticks than it holds in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{shown(text)}{padding}{fence}"
