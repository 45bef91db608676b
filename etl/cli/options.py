"""The options that several commands share, and how their texts are read: days such as ``7d``, times such as ``30m``."""

import re
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from etl.model.days import A_DAY, day_of


def parse_day(text: str) -> date:
    """The UTC day that an option such as ``--since`` names; ``day_of`` says in which forms.

    Raises:
        BadParameter: it names none.
    """
    if day := day_of(text, datetime.now(UTC).date()):
        return day
    raise typer.BadParameter(f"{text!r} is not a date {A_DAY}")


def parse_seconds(text: str) -> float:
    """The length of a time such as ``90s``, ``30m`` or ``2h``, in seconds.

    Raises:
        BadParameter: the text has another form.
    """
    if not re.fullmatch(r"[0-9]{1,5}[smh]", text):
        raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 30m or 2h")
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


output = partial(typer.Option, rich_help_panel="Output")
"""An option under the heading "Output" of ``--help``."""
selection = partial(typer.Option, rich_help_panel="Selection")
day = partial(selection, parser=parse_day, metavar="DATE")
output_format = partial(typer.Option, "--format", "-f", metavar="FORMAT", show_default="table")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Path of the settings file.",
        envvar="METRICS_ETL_CONFIG",
        show_default="config/metrics-etl.toml",
    ),
]
Quiet = Annotated[bool, output("--quiet", "-q", help="Print only problems.")]
Verbose = Annotated[bool, output("--verbose", "-v", help="Print a traceback if metrics-etl crashes.")]
AsJson = Annotated[bool, output("--json", help="Print the result as JSON.")]
RunTests = Annotated[
    list[str] | None,
    selection(
        "--run-test",
        metavar="NAME",
        help='Only this run test, by name (or by folder, unless run_tests is "all"). Repeat the option for more.',
    ),
]
Since = Annotated[
    date | None,
    day(help="Only executions created on or after this day (UTC), such as 2026-11-01, yesterday, or 7d (7 days ago)."),
]
