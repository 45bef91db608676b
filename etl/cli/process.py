"""The command's process: its streams, its tuning, how a signal stops it in order, and the exit code that it ends with.

A program that imports the library keeps its own.
"""

import errno
import gc
import io
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

from etl.cli.console import print_message
from etl.errors import ExitCode, ExporterError, InterruptedRunError

if TYPE_CHECKING:
    import asyncio

    from _typeshed import ReadableBuffer

T = TypeVar("T")

_OPEN_FILES = 1024


class _Descriptor(io.FileIO):
    """An open file on which every write succeeds; ``failure`` is why the first text was lost."""

    failure: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write the data, or lose it."""
        try:
            return super().write(data)
        except OSError as exc:
            self.failure = self.failure or exc
            return memoryview(data).nbytes


def take_over_streams() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` streams that never fail: printing costs text, never the run."""
    for descriptor in (0, 1, 2):
        try:
            os.set_blocking(descriptor, True)  # the parent process may have made a pipe non-blocking
        except OSError:
            # It is closed: the next file that is opened, such as one of the dataset, would get its number and what is printed.
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(descriptor: int, opened: TextIO | None) -> io.TextIOWrapper:
    """``opened`` is what the interpreter made of the descriptor: None when it was closed."""
    raw = _Descriptor(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=opened.encoding if opened else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
    )


def _stdout_failure() -> str | None:
    """Why something that was printed to stdout is not there. None when all is, or when its reader, such as ``head``, has gone."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Descriptor) else None
    return None if failure is None or failure.errno == errno.EPIPE else os.strerror(failure.errno or errno.EIO)


def prepare() -> None:
    """Tune what must be set before heavy imports."""
    # Less often than by default: imports make hardly any garbage, and what a run creates lives until its commit.
    gc.set_threshold(200_000, 20, 20)
    # The system's allocator returns freed memory, Arrow's own keeps it. pyarrow reads the variable when it is imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # numpy would start a thread per processor for matrix products, which nothing here computes.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # deltalake and obstore start several for each processor, and stand still where a container has not so many.
    os.environ.setdefault("TOKIO_WORKER_THREADS", "2")
    # pydantic would look for plugins in the metadata of every package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    # Shells and launchd begin with few, and let every process have more.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run the work as ``asyncio.run`` does, on uvloop's event loop where it is installed (extra ``fast``).

    Objects from the imports live as long as the process, so the garbage collector no longer scans them, not even at exit.
    """
    import asyncio

    gc.freeze()
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        from uvloop import new_event_loop as loop_factory
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)


@contextmanager
def stop_on_signals() -> Iterator["asyncio.Future[InterruptedRunError]"]:
    """A future that SIGINT or SIGTERM sets; a second signal ends the process at once, as a crash would."""
    import asyncio

    loop = asyncio.get_running_loop()
    stop: asyncio.Future[InterruptedRunError] = loop.create_future()

    def interrupt(number: signal.Signals) -> None:
        if stop.done():
            os._exit(128 + number)
        code, name = ExitCode[number.name], number.name
        stop.set_result(InterruptedRunError(f"interrupted by {name}; everything received is saved", exit_code=code))

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
    """Do blocking work in a thread, so that Ctrl-C works at once, whatever a driver waits for."""
    from concurrent.futures import ThreadPoolExecutor, wait

    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(work)
        while not future.done():
            wait([future], timeout=0.2)
        return future.result()


@contextmanager
def report_errors(*, verbose: bool) -> Iterator[None]:
    """End the command with a line for each mistake on stderr and the documented exit code, whatever is raised in the block."""
    try:
        yield
    except ExporterError as error:
        message, exit_code = str(error), error.exit_code
    except Exception as error:  # noqa: BLE001 the last line of defence: users get one line, not a traceback
        why = traceback.format_exc().rstrip() if verbose else f"{type(error).__name__}: {error} (--verbose shows where)"
        message, exit_code = f"this is a bug in metrics-etl, please report it: {why}", ExitCode.BUG
    else:
        return

    for line in [message] if exit_code is ExitCode.BUG else message.split("\n"):
        print_message(f"error: {line}")
    raise SystemExit(exit_code)


def end(exit_code: ExitCode, *, is_all_printed: bool = True) -> NoReturn:
    """End the command. ``is_all_printed``: its whole result is what it printed, so without that it has failed."""
    gc.freeze()  # else the interpreter, as it ends, looks for garbage in all that was imported
    if failure := _stdout_failure():
        print_message(f"error: cannot write to stdout: {failure}: the output is incomplete")
        exit_code = exit_code or (ExitCode.DESTINATION_FAILED if is_all_printed else ExitCode.COMPLETE)
    raise SystemExit(exit_code)
