"""What every command shares: its common options, what a signal does, and how an error ends it."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from etl.errors import ExitCode, ExporterError, InterruptedRunError

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
    typer.Option("--run-test", metavar="NAME", help="Only this one of the run tests; may be repeated."),
]
Since = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="Only executions created on or after this day (UTC)."),
]
AcceptDeletions = Annotated[
    bool, typer.Option("--accept-deletions", help="Believe that many executions of a run test were deleted at once.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@contextmanager
def signals_stop() -> Iterator["asyncio.Future[InterruptedRunError]"]:
    """A future that SIGINT or SIGTERM sets; a second signal ends the process at once, as a crash would."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[InterruptedRunError] = loop.create_future()

    def interrupt(number: signal.Signals) -> None:
        if stop.done():
            os._exit(128 + number)
        stop.set_result(
            InterruptedRunError(
                f"interrupted by {number.name}; what had arrived is saved", exit_code=ExitCode(128 + number)
            )
        )

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        stop.cancel()


@contextmanager
def errors_reported(*, verbose: bool) -> Iterator[None]:
    """One line on stderr and the documented exit code for whatever ends a command."""
    try:
        yield
    except ExporterError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort, BrokenPipeError):  # whoever read the output has seen enough: no bug of ours
        raise
    except Exception as error:  # the last line of defence: users get one line, not a traceback
        if verbose:
            raise
        print(f"error: a bug: {type(error).__name__}: {error} (--verbose shows where)", file=sys.stderr)
        raise typer.Exit(1) from None


def tell_hold(seconds: float) -> None:
    """Say why nothing happens for a while; to stderr."""
    print(f"the rate limit lets nothing through for {seconds:.0f} s", file=sys.stderr)


def print_json(document: object) -> None:
    """Print a result for scripts; to stdout."""
    import msgspec  # noqa: PLC0415

    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
