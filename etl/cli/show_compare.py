"""What ``compare`` prints: a table for a terminal, or Markdown for a comment on a change. Decides nothing."""

import re

from rich.text import Text

from etl.cli.console import print_line, print_lines, print_table, stdout_console
from etl.compare.comparison import ComparisonReport, Row, change_texts, detects_text, planned_limits, value_text
from etl.compare.selection import Selection
from etl.compare.statistics import Outcome, Verdict
from etl.model.findings import alarm_lines
from etl.model.wording import counted, shown

_HEADER = ("metric", "baseline", "candidate", "change", "95% interval", "detects", "calls", "verdict")
_LEFT_OUT = ("95% interval", "detects", "calls")
_WIDE = 120
_STYLES = {Verdict.WORSE: "red", Verdict.BETTER: "green", Verdict.TOO_FEW: "dim", Verdict.UNCLEAR: ""}


def print_comparison(report: ComparisonReport) -> None:
    """Baseline, candidate, the metrics and the conclusion; to stdout."""
    print_lines(_heads(report))
    # A narrow terminal does without what the verdict already says: the interval, and the numbers of calls.
    columns = [name for name in _HEADER if stdout_console().width >= _WIDE or name not in _LEFT_OUT]
    rows = (dict(zip(_HEADER, _styled(row), strict=True)) for row in report.rows)
    cells = ([row[name] for name in columns] for row in rows)
    print_table(columns, cells, words={"metric", "verdict"})
    print_line("repeats", *(each.text for each in report.repetitions))
    print_line("notice", *report.notices)
    print_lines(alarm_lines(report.findings))
    print_line("outcome", f"{report.conclusion} (exit {report.exit_code})", style="bold red" if report.exceeded else "")


def print_comparison_plan(report: ComparisonReport) -> None:
    """How many calls on each side a limit needs, by the variance of these calls; to stdout."""
    print_lines(_heads(report))
    rows = [
        (
            shown(row.metric.name),
            f"{row.found.baseline_calls:,}, {row.found.candidate_calls:,}",
            detects_text(row),
            *(
                f"{needed:,}" if (needed := row.found.calls_needed(limit)) else "-"
                for limit in planned_limits(row.metric)
            ),
        )
        for row in report.rows
    ]
    print_table(("metric", "calls", "detects", "limit 5%", "10%", "20%"), rows, words={"metric"})
    print_line(
        "outcome",
        "calls on each side that find a change of twice the limit in 9 of 10 cases (-: it takes more executions); rates in pp",
    )


def _styled(row: Row) -> tuple[str | Text, ...]:
    *cells, verdict = _cells(row)
    style = "bold red" if row.outcome is Outcome.EXCEEDED else _STYLES[row.found.verdict]
    return *cells, Text(verdict, style=style)


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
            *(f"- repeats: {_code(each.text)}" for each in report.repetitions),
            *(f"- notice: {_code(notice)}" for notice in (*report.notices, *map(str, report.findings))),
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
        )
    )


def _heads(report: ComparisonReport) -> list[tuple[str, str]]:
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
    found, unit = row.found, row.metric.unit
    verdict = found.verdict.value
    if row.limit and row.outcome:
        verdict += {
            Outcome.EXCEEDED: f", beyond the limit of {row.limit}",
            Outcome.IN_DOUBT: f", possibly beyond the limit of {row.limit}",
            Outcome.KEPT: f", within {row.limit}",
            Outcome.NOT_JUDGED: f"{' for' if found.difference is None else ', too few calls for'} the limit of {row.limit}",
        }[row.outcome]
        if row.outcome is Outcome.NOT_JUDGED and found.difference:
            needed = found.calls_needed(row.limit)
            verdict += f": {needed:,} on each side would do" if needed else ": more executions would tell"
    return (
        shown(row.metric.name),
        value_text(found.baseline, unit),
        value_text(found.candidate, unit),
        *change_texts(row.metric, found),
        detects_text(row),
        f"{found.baseline_calls:,}, {found.candidate_calls:,}",
        verdict,
    )


def _code(text: str) -> str:
    """The text as it is, between more backticks than it holds in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{shown(text)}{padding}{fence}"
