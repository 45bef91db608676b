"""``sandbox`` and ``demo``: try the exporter without a key."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from etl.cli import process
from etl.cli.endings import report_errors

_DATA, _SERVER = "Made-up data", "Behavior of the server"
_SEED = "The same seed makes the same data."


class Spelling(StrEnum):
    """The names of the open-ended objects in the sandbox's answers: the server's, or those of the documentation."""

    SERVER = "server"
    DOCUMENTED = "documented"


def sandbox(  # noqa: PLR0913 one parameter for each option of the command
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port on 127.0.0.1. With 0, a free one.")
    ] = 8765,
    seed: Annotated[int, typer.Option(metavar="N", help=_SEED, rich_help_panel=_DATA)] = 1,
    run_tests: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Number of run tests.", rich_help_panel=_DATA)
    ] = 3,
    executions: Annotated[
        int, typer.Option(min=0, max=100_000, metavar="N", help="Executions per run test.", rich_help_panel=_DATA)
    ] = 20,
    calls: Annotated[
        int, typer.Option(min=0, max=100_000, metavar="N", help="Calls per execution.", rich_help_panel=_DATA)
    ] = 25,
    rate_limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Requests per minute. With 0, no limit.", rich_help_panel=_SERVER)
    ] = 0,
    latency_ms: Annotated[
        float, typer.Option(min=0, metavar="N", help="Delay of every answer.", rich_help_panel=_SERVER)
    ] = 0,
    faults: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="N", help="Share of requests that fail in some way.", rich_help_panel=_SERVER
        ),
    ] = 0,
    max_limit: Annotated[int, typer.Option(min=0, hidden=True)] = 0,
    spelling: Annotated[Spelling, typer.Option(hidden=True)] = Spelling.SERVER,
) -> None:
    """Run a simulated API on this machine, to try things out.

    Serves made-up run tests until you press Ctrl-C. Prints the environment variables and the run_tests line that point an
    export to it; config/sandbox.toml has them for the default port.

    Example: metrics-etl sandbox --rate-limit 100 --faults 0.02
    """
    with report_errors(verbose=False):
        import asyncio  # noqa: PLC0415
        import random  # noqa: PLC0415
        from datetime import UTC, datetime  # noqa: PLC0415

        from etl.cli.sandbox_server import API_KEY, SECRET_KEY, latest_friday, make_world, serve  # noqa: PLC0415
        from etl.sandbox import Sandbox, random_faults  # noqa: PLC0415

        rng = random.Random(seed)  # noqa: S311 a made-up world is no secret
        server = Sandbox(
            make_world(rng, latest_friday(datetime.now(UTC)), run_tests=run_tests, executions=executions, calls=calls),
            api_key=API_KEY,
            secret_key=SECRET_KEY,
            port=port,
            rate_limit=rate_limit or None,
            latency_seconds=latency_ms / 1000,
            max_limit=max_limit or None,
            fault=random_faults(rng, faults) if faults else None,
            spelling=spelling.value,
        )
        asyncio.run(serve(server, port=port))


def demo(
    path: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the dataset is kept: a new folder.", show_default="a temporary one"),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help=_SEED)] = 1,
) -> None:
    """See it work in a minute, without a key or network.

    Exports made-up run tests from the sandbox, shows the dataset, changes the source and exports again. Then loads a warehouse
    (extra duckdb) and writes a report (extra report).

    Example: metrics-etl demo
    """
    with report_errors(verbose=False):
        from etl.cli.demo import run_demo  # noqa: PLC0415

        process.run(run_demo(path, seed=seed))
