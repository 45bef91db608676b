"""What ``compare`` prints: a table for a terminal, or Markdown for a comment on a pull request. Decides nothing."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from rich.text import Text

from etl.cli.console import print_line, print_lines, print_table, stdout_console
from etl.compare.causes import changes_text
from etl.compare.comparison import ComparisonReport, Row, change_texts, change_words, value_text
from etl.compare.selection import Selection
from etl.compare.statistics import Outcome, Verdict
from etl.errors import ExitCode
from etl.model.findings import alarm_lines
from etl.model.wording import counted, shown

_HEADER = ("metric", "baseline", "candidate", "change", "95% interval", "calls", "verdict")
_ONLY_IF_WIDE = {"95% interval", "calls"}
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
    print_line("notice", *report.notices)
    print_lines(alarm_lines(report.findings))
    print_line("outcome", f"{report.conclusion} (exit {report.exit_code})", style="bold red" if report.exceeded else "")


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
    judges = f"{_code(changes_text(report.judges))}; " if report.judges else ""
    return "\n".join(
        (
            f"### {_code(report.candidate.run_test)}: {judges}{report.outcome}",
            "",
            *(f"- {label}: {_code(text)}" for label, text in _head_lines(report)[1:]),
            *(f"- notice: {_code(notice)}" for notice in (*report.notices, *map(str, report.findings))),
            "",
            *(f"| {' | '.join(cells)} |" for cells in rows),
        )
    )


def junit(report: ComparisonReport) -> str:
    """The same as JUnit XML: one test for each limit, and one for the rest of what the exit code stands for.

    A limit that cannot be judged is an error: CI systems show a skipped test as a good one.
    """
    suite = ET.Element("testsuite", name=f"metrics-etl compare: {shown(report.candidate.run_test)}")
    for row in report.rows:
        if row.limit:
            test = ET.SubElement(suite, "testcase", name=f"{row.metric.name} within {row.limit}")
            if row.outcome is not Outcome.KEPT:
                kind = "failure" if row.outcome is Outcome.EXCEEDED else "error"
                ET.SubElement(test, kind, message=f"{change_words(row)}: {_cells(row)[-1]}")
    whole = ET.SubElement(suite, "testcase", name="comparison")
    if report.exit_code not in (ExitCode.COMPLETE, ExitCode.REGRESSION):
        ET.SubElement(whole, "error", message=report.conclusion)
    ET.SubElement(whole, "system-out").text = markdown(report)
    for name, path in {"tests": "testcase", "failures": "testcase/failure", "errors": "testcase/error"}.items():
        suite.set(name, str(len(suite.findall(path))))
    ET.indent(suite)
    return ET.tostring(suite, "unicode", xml_declaration=True)


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
        f"{row.found.baseline_calls:,}, {row.found.candidate_calls:,}",
        f"{row.found.verdict.value}{_limit_text(row)}",
    )


def _limit_text(row: Row) -> str:
    """What follows the verdict: what became of the metric's limit; nothing if it has none."""
    match row.outcome:
        case None:
            return ""
        case Outcome.EXCEEDED:
            return f", beyond the limit of {row.limit}"
        case Outcome.KEPT:
            return f", within the limit of {row.limit}"
    return f", but the limit of {row.limit} was not judged: {row.why_not_judged}"


def _code(text: str) -> str:
    """The text as code: between more backticks than it holds in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{shown(text)}{padding}{fence}"
