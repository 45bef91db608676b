"""``sandbox`` and ``demo``: try the exporter without a key."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from etl.cli import process
from etl.cli.endings import report_errors


class Spelling(StrEnum):
    """The names of the open-ended objects in the sandbox's answers: the server's, or those of the documentation."""

    SERVER = "server"
    DOCUMENTED = "documented"


def sandbox(  # noqa: PLR0913 one parameter for each option of the command
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8765,
    seed: Annotated[int, typer.Option(help="The same seed makes the same world.")] = 1,
    run_tests: Annotated[int, typer.Option(min=1, max=1000, help="Run tests.")] = 3,
    executions: Annotated[int, typer.Option(min=0, max=100_000, help="Executions of each run test.")] = 20,
    calls: Annotated[int, typer.Option(min=0, max=100_000, help="Calls of each execution.")] = 25,
    rate_limit: Annotated[int, typer.Option(min=0, help="Requests a minute; 0 for no limit.")] = 0,
    latency_ms: Annotated[float, typer.Option(min=0, help="Delay of every answer.")] = 0,
    max_limit: Annotated[int, typer.Option(min=0, help="Largest number of rows on a page; 0 for no limit.")] = 0,
    faults: Annotated[float, typer.Option(min=0, max=1, help="Share of requests that fail in some way.")] = 0,
    spelling: Annotated[Spelling, typer.Option(help="Names of the open-ended objects.")] = Spelling.SERVER,
) -> None:
    """Serve a simulated API on this machine, with made-up run tests, until interrupted.

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
        Path | None, typer.Option(help="Folder for the dataset.", show_default="a new temporary folder")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same world.")] = 1,
) -> None:
    """Export made-up run tests from the sandbox, show the dataset, change the source, export again. No key, no network.

    Example: metrics-etl demo
    """
    with report_errors(verbose=False):
        from etl.cli.demo import run_demo  # noqa: PLC0415

        process.run(run_demo(path, seed=seed))
