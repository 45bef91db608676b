"""``sandbox`` and ``demo``: try the exporter without a key.

What ``demo`` does is in ``cli.demo``; the simulated API is ``etl.sandbox``.
"""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.console import print_message, print_result
from etl.cli.process import report_errors, run_async, stop_on_signals
from etl.errors import ConfigurationError

if TYPE_CHECKING:
    from etl.sandbox import Sandbox

_data = partial(typer.Option, metavar="N", rich_help_panel="Made-up data")
_server = partial(typer.Option, metavar="N", rich_help_panel="Behavior of the server")
_SEED = "The same seed gives the same data."


def sandbox(  # noqa: PLR0913 one parameter for each option of the command
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port on 127.0.0.1, or 0 for any free port.")
    ] = 8765,
    seed: Annotated[int, _data(help=_SEED)] = 1,
    run_tests: Annotated[int, _data(min=1, max=1000, help="Number of run tests.")] = 3,
    executions: Annotated[int, _data(min=0, max=100_000, help="Executions per run test.")] = 20,
    calls: Annotated[int, _data(min=0, max=100_000, help="Calls per execution.")] = 25,
    rate_limit: Annotated[int, _server(min=0, help="Requests allowed per minute, or 0 for no limit.")] = 0,
    latency_ms: Annotated[float, _server(min=0, help="Delay before each answer, in ms.")] = 0,
    faults: Annotated[float, _server(min=0, max=1, help="Share of requests that fail in some way.")] = 0,
) -> None:
    """Run a simulated API on this machine, to try things out.

    Serves made-up run tests until you press Ctrl-C. Prints the environment variables and the run_tests line that an
    export from it needs.

    Example: metrics-etl sandbox --rate-limit 100 --faults 0.02
    """
    with report_errors(verbose=False):
        import random

        from etl.sandbox import Sandbox, random_faults
        from etl.sandbox.generate import settled_world

        rng = random.Random(seed)  # noqa: S311 a made-up world is no secret
        server = Sandbox(
            settled_world(rng, datetime.now(UTC), run_tests=run_tests, executions=executions, calls=calls),
            port=port,
            rate_limit=rate_limit or None,
            latency_seconds=latency_ms / 1000,
            fault=random_faults(rng, faults) if faults else None,
        )
        run_async(_serve(server, port=port))


def demo(
    path: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="New folder for the dataset.", show_default="a temporary one")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help=_SEED)] = 1,
) -> None:
    """Try metrics-etl for a minute: needs no key and no network.

    The demo exports run tests from a simulated API, shows the dataset, changes the source and exports again. Then it
    loads a warehouse (needs the "duckdb" extra) and writes a report (needs the "report" extra).

    Example: metrics-etl demo
    """
    with report_errors(verbose=False):
        from etl.cli.demo import run_demo

        run_async(run_demo(path, seed=seed, now=datetime.now(UTC)))


async def _serve(server: "Sandbox", *, port: int) -> None:
    """Serve until a signal comes; print the settings that an export needs to stdout, and what is running to stderr.

    Raises:
        ConfigurationError: the port cannot be had.
    """
    from etl.sandbox import API_KEY, SECRET_KEY

    try:
        async with server:
            print_result(f"export FI_BASE_URL={server.base_url} FI_API_KEY={API_KEY} FI_SECRET_KEY={SECRET_KEY}")
            names = ", ".join(f'"{run_test.name}"' for run_test in server.world.run_tests)
            with stop_on_signals() as stop:
                print_result(f"run_tests = [{names}]")
                print_message(
                    f"a simulated API runs at {server.base_url} until you press Ctrl-C. "
                    "Use the lines above in another terminal"
                )
                await stop
    except OSError as exc:
        raise ConfigurationError(f"--port {port}: {exc.strerror}. Choose another port, or 0 for a free one") from None
