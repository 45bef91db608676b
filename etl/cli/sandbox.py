"""``sandbox`` and ``demo``: the API in a box, for trying the exporter out."""

import asyncio
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from etl.cli import process
from etl.cli.options import errors_reported


class Spelling(StrEnum):
    """Whose names the sandbox gives to the free-form blocks."""

    SERVER = "server"
    DOCUMENTED = "documented"


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8765,
    seed: Annotated[int, typer.Option(help="The same seed makes the same world.")] = 1,
    run_tests: Annotated[int, typer.Option(min=1, max=1000, help="Run tests.")] = 3,
    executions: Annotated[int, typer.Option(min=0, max=100_000, help="Executions of each run test.")] = 20,
    calls: Annotated[int, typer.Option(min=0, max=100_000, help="Calls of each execution.")] = 25,
    rate_limit: Annotated[int, typer.Option(min=0, help="Requests a minute; 0 for no limit.")] = 0,
    latency_ms: Annotated[float, typer.Option(min=0, help="Delay of every answer.")] = 0,
    max_limit: Annotated[int, typer.Option(min=0, help="Most rows a page may have; 0 for any.")] = 0,
    faults: Annotated[float, typer.Option(min=0, max=1, help="Share of requests that fail in some way.")] = 0,
    spelling: Annotated[Spelling, typer.Option(help="Names of the free-form blocks.")] = Spelling.SERVER,
) -> None:
    """Serve the API in a box on this machine, with made-up run tests, until interrupted.

    Example: metrics-etl sandbox --rate-limit 100 --faults 0.02
    """
    from etl.cli.demo import serve_sandbox  # noqa: PLC0415

    with errors_reported(verbose=False), suppress(KeyboardInterrupt):
        asyncio.run(
            serve_sandbox(
                port=port,
                seed=seed,
                run_tests=run_tests,
                executions=executions,
                calls=calls,
                rate_limit=rate_limit or None,
                latency_seconds=latency_ms / 1000,
                max_limit=max_limit or None,
                faults=faults,
                spelling=spelling.value,
            )
        )


def demo(
    path: Annotated[
        Path | None, typer.Option(help="Folder for the dataset.", show_default="a new temporary folder")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same world.")] = 1,
) -> None:
    """Export a made-up world from the sandbox, look at the result, change the world, export again. No key, no network.

    Example: metrics-etl demo
    """
    from etl.cli.demo import run_demo  # noqa: PLC0415

    with errors_reported(verbose=False):
        process.run(run_demo(path, seed=seed))
