"""How a command ends: a signal stops it in order, an error becomes one line on stderr and an exit code."""

import asyncio
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import typer

from etl.cli.streams import stdout_failure
from etl.errors import ExitCode, ExporterError, InterruptedRunError

T = TypeVar("T")


@contextmanager
def stop_on_signals() -> Iterator["asyncio.Future[InterruptedRunError]"]:
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

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, interrupt, number)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
        stop.cancel()


def hearing_signals(work: Callable[[], T]) -> T:
    """Do the work in a thread: while a driver waits for its server, no signal would be heard in this one.

    Nor would one in a wait without an end, where a library's handler has it taken up again, as that of Polars does.
    """
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(work)
        while not future.done():
            wait([future], timeout=0.2)
        return future.result()


@contextmanager
def report_errors(*, verbose: bool) -> Iterator[None]:
    """End the command with one line on stderr and the documented exit code, whatever is raised in the block."""
    try:
        yield
    except ExporterError as error:
        from etl.cli.console import print_message  # noqa: PLC0415 rich takes a while

        print_message(f"error: {error}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        from etl.cli.console import print_message  # noqa: PLC0415

        print_message("error: interrupted by SIGINT")
        raise typer.Exit(ExitCode.SIGINT) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:  # noqa: BLE001 the last line of defence: users get one line, not a traceback
        from etl.cli.console import print_message  # noqa: PLC0415

        if isinstance(error, OSError) and error.filename and error.filename == os.environ.get("SSLKEYLOGFILE"):
            print_message(
                f"error: SSLKEYLOGFILE: {error.filename}: {error.strerror}: unset it, or name a file that can be written"
            )
            raise typer.Exit(ExitCode.CONFIGURATION) from None
        where = (
            traceback.format_exc().rstrip() if verbose else f"{type(error).__name__}: {error} (--verbose shows where)"
        )
        print_message(f"error: a bug: {where}")
        raise typer.Exit(ExitCode.BUG) from None


def end(exit_code: ExitCode, *, is_all_printed: bool = True) -> NoReturn:
    """End the command. ``is_all_printed``: its whole result is what it printed, so without that it has failed."""
    if failure := stdout_failure():
        from etl.cli.console import print_message  # noqa: PLC0415

        print_message(f"error: cannot write to stdout: {failure}: the output is incomplete")
        exit_code = exit_code or (ExitCode.DESTINATION_FAILED if is_all_printed else ExitCode.COMPLETE)
    raise typer.Exit(exit_code)
