"""``compare``: whether one execution, or a date range, is worse than another, for people and for CI.

Reads what was typed: the two sides, the limits, how long to wait. The comparison is made by ``compare.comparison``.
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from etl.cli.console import print_json, print_result
from etl.cli.options import AsJson, Config, Verbose, output_format, parse_day, parse_seconds
from etl.cli.process import end, report_errors
from etl.cli.run_commands import export_once_ended
from etl.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etl.compare.selection import Selector
    from etl.model.metrics import Limit


_what = partial(typer.Option, rich_help_panel="What to compare")
_gate = partial(typer.Option, rich_help_panel="Gate")


def compare(  # noqa: PLR0913 one parameter for each option of the command
    config: Config = None,
    *,
    baseline: Annotated[
        str,
        _what(
            metavar="X",
            help="The executions to compare with: an execution_id, last or previous, a date range such as "
            "2026-11-01..2026-11-07 or 14d..8d, or version=NAME for all executions of an agent version.",
        ),
    ],
    candidate: Annotated[
        str | None,
        _what(metavar="Y", help="The executions to judge, written as for --baseline. Required without --wait."),
    ] = None,
    run_test: Annotated[
        str | None, _what(metavar="NAME", help="The run test, by name or folder. Required if the dataset has several.")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        _what("--metric", metavar="NAME", help="Only this metric, such as latency_p95. Repeat the option for more."),
    ] = None,
    wait: Annotated[
        str | None,
        _gate(metavar="EXECUTION", help="Wait for this execution's end, export its run test, and judge the execution."),
    ] = None,
    timeout: Annotated[
        str, _gate(metavar="TIME", help="Longest total wait for the execution and other exports, such as 90s or 30m.")
    ] = "30m",
    max_regression: Annotated[
        list[str] | None,
        _gate(
            metavar="METRIC=LIMIT",
            help="Exit with 10 if, with 95% certainty, the metric got worse by more than its limit. Write both like "
            "latency_mean=10% or, in percentage points, failure_rate=2pp. Repeat the option for more metrics.",
        ),
    ] = None,
    unpaired: Annotated[
        bool, _what("--unpaired", help="Compare all calls together, even if both sides played the same scenarios.")
    ] = False,
    group_by: Annotated[
        Literal["agent_version"] | None,
        _what(
            "--group-by",
            metavar="agent_version",
            help="Also compare each version of the candidate's agent with the baseline. Needs --json.",
        ),
    ] = None,
    form: Annotated[
        Literal["table", "json", "junit", "markdown", "md"],
        output_format(help="table, json, junit, or markdown (md) for a pull request.", rich_help_panel="Output"),
    ] = "table",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show whether an agent got worse, and how certain that is.

    Compares executions or date ranges. Without --wait, it reads only the dataset and needs no key. Exits with 10 if a
    metric exceeds its limit. Exits with 3 if there are too few calls to tell, if calls are missing, or if the execution
    did not end in time.

    Example: metrics-etl compare --baseline 14d..1d --candidate last
    """
    if (wait is None) == (candidate is None):
        raise typer.BadParameter("give either --candidate or --wait")
    if group_by and not (as_json or form == "json"):
        raise typer.BadParameter("--group-by requires --json")
    selectors = (_selector(baseline), wait or _selector(candidate or ""))
    limits = _limits(max_regression or ())
    seconds = parse_seconds(timeout)
    with report_errors(verbose=verbose):
        from etl.cli.show_compare import junit, markdown, print_comparison
        from etl.compare.comparison import compare as compare_executions
        from etl.inspect.read_tables import open_dataset
        from etl.settings import Settings

        settings = Settings.load(config, needs_keys=wait is not None, needs_run_tests=False)
        chosen = settings.only([run_test] if wait and run_test else ())
        missing = export_once_ended(chosen, wait, seconds=seconds) if wait else []
        try:
            report = compare_executions(
                open_dataset(settings.destination.path, settings.destination.options),
                *selectors,
                run_test=None if wait else run_test,
                metrics=metrics or (),
                limits=limits,
                rules=settings.compare,
                is_paired=not unpaired,
                group_by=group_by,
            )
        except ConfigurationError as error:
            if missing:  # the comparison fails because of what the export could not get
                raise SourceError(f"{missing[0]}. Therefore, the comparison failed: {error}") from None
            raise
        report = replace(report, findings=[*missing, *report.findings])
        if as_json or form == "json":
            print_json(report.as_json())
        elif form == "table":
            print_comparison(report)
        else:
            print_result(junit(report) if form == "junit" else markdown(report))
        end(report.exit_code)


def _selector(text: str) -> "Selector":
    """A date range from ``FIRST..LAST``, a version from ``version=NAME``; else the text: ``last``, an execution_id.

    Raises:
        BadParameter: an end of the range is not a day.
    """
    from etl.compare.selection import Span, Version

    if text.startswith("version="):
        return Version(text.removeprefix("version="))
    first, dots, last = text.partition("..")
    return Span(parse_day(first), parse_day(last)) if dots else text


def _limits(texts: "Sequence[str]") -> "dict[str, Limit]":
    """The limits of ``--max-regression`` by the metric's name, from texts such as ``latency_p95=10%``.

    Raises:
        BadParameter: a text has no limit, or one that its metric cannot have.
    """
    from etl.model.metrics import limits_of

    limits = {}
    for text in texts:
        name, equals, limit = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--max-regression {text!r} has no limit. Add one, as in latency_p95=10%")
        limits[name.strip()] = limit
    try:
        return limits_of(limits)
    except ValueError as error:
        raise typer.BadParameter(f"--max-regression {error}") from None
