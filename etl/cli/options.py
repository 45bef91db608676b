"""The options that several commands share."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Settings file.", envvar="METRICS_ETL_CONFIG", show_default="config/metrics-etl.toml"
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print the traceback of a bug.")]
RunTests = Annotated[
    list[str] | None,
    typer.Option("--run-test", metavar="NAME", help="Only this run test; may be repeated."),
]
Since = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="Only executions created on or after this day (UTC)."),
]
AcceptDeletions = Annotated[
    bool, typer.Option("--accept-deletions", help="Believe that many executions or calls were deleted at once.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
