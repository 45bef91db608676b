"""The options that several commands share."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer


def parse_day(text: str, *, today: date | None = None) -> date:
    """The UTC day that is meant by ``2026-11-01``, ``today``, ``yesterday``, or ``7d`` for seven days ago.

    Raises:
        BadParameter: none is.
    """
    days = {"today": 0, "yesterday": 1}.get(text)
    if re.fullmatch(r"[0-9]{1,5}d", text):
        days = int(text[:-1])
    try:
        if days is not None:
            return (today or datetime.now(UTC).date()) - timedelta(days=days)
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter(f"{text!r} is not a day: use one such as 2026-11-01, yesterday, or 7d for seven days ago")


OUTPUT = "Output"
SELECTION = "Selection"
"""Headings under which ``--help`` groups options."""

Config = Annotated[
    Path | None,
    typer.Option(
        *("--config", "-c"),
        metavar="FILE",
        help="Settings file.",
        envvar="METRICS_ETL_CONFIG",
        show_default="config/metrics-etl.toml",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only what went wrong.", rich_help_panel=OUTPUT)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print the traceback of a bug.", rich_help_panel=OUTPUT)]
RunTests = Annotated[
    list[str] | None,
    typer.Option(
        "--run-test",
        metavar="NAME",
        help='Only this run test, by name or key; by name if run_tests is "all". Repeat the option to name several.',
        rich_help_panel=SELECTION,
    ),
]
Since = Annotated[
    date | None,
    typer.Option(
        parser=parse_day,
        metavar="DATE",
        help="Only executions created on or after this day (UTC): 2026-11-01, yesterday, or 7d for seven days ago.",
        rich_help_panel=SELECTION,
    ),
]
AcceptDeletions = Annotated[
    bool,
    typer.Option(
        "--accept-deletions",
        help="All stored executions are gone at the source, and that is right: mark them as deleted. Without this, such a run "
        "changes nothing, because the key may belong to another workspace.",
        rich_help_panel=SELECTION,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=OUTPUT)]
