"""The command's process: its streams, its tuning, how a signal stops it in order, and with which exit code it ends.

A program that imports the library keeps its own: only ``app.main`` and the commands call what is here.
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
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TextIO, TypeVar

from etl.cli.console import print_message
from etl.errors import ExitCode, ExporterError, InterruptedRunError

if TYPE_CHECKING:
    import asyncio

    from _typeshed import ReadableBuffer

P = ParamSpec("P")
T = TypeVar("T")

_OPEN_FILES = 1024
"""How many files the process wants to have open at once."""


class _UnfailingFile(io.FileIO):
    """A file on which every write succeeds; text that cannot be written is lost."""

    failure: OSError | None = None
    """Why the first text was lost; None while none was."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write the data, or lose it."""
        try:
            return super().write(data)
        except OSError as exc:
            self.failure = self.failure or exc
            return memoryview(data).nbytes


def take_over_streams() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` streams that never fail: text that cannot be printed never ends a run."""
    for descriptor in (0, 1, 2):
        try:
            os.set_blocking(descriptor, True)  # the parent process may have made a pipe non-blocking
        except OSError:
            # It is closed. The next file that is opened would get its number, and what is printed would go there.
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = _stream(1, sys.stdout)
    sys.stderr = _stream(2, sys.stderr)


def _stream(descriptor: int, original: TextIO | None) -> io.TextIOWrapper:
    """``original`` is the interpreter's stream for the descriptor: None if it was closed."""
    raw = _UnfailingFile(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=original.encoding if original else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
    )


def _stdout_failure() -> str | None:
    """Why something that was printed to stdout is not there.

    None if everything is there, and if its reader, such as ``head``, has closed the pipe: it has what it wants.
    """
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _UnfailingFile) else None
    return None if failure is None or failure.errno == errno.EPIPE else os.strerror(failure.errno or errno.EIO)


def prepare() -> None:
    """Tune the process; call it before heavy modules are imported.

    Variables that the user has set in the environment stay as they are.
    """
    # Less often than by default: imports make hardly any garbage, and what a run creates lives until its commit.
    gc.set_threshold(200_000, 20, 20)
    # The system's allocator returns freed memory, Arrow's own keeps it. pyarrow reads the variable when it is imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # numpy would start a thread per processor for matrix products, which nothing here computes.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # deltalake and obstore start several threads per processor, and hang where a container does not allow that many.
    os.environ.setdefault("TOKIO_WORKER_THREADS", "2")
    # pydantic would look for plugins in the metadata of every package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    # Shells and launchd set a low limit for open files, which every process may raise.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        raised = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run the work as ``asyncio.run`` does, on uvloop's event loop where it is installed (extra ``fast``).

    Objects from the imports live as long as the process, so the garbage collector no longer scans them, not even at
    exit.
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
    """A future that SIGINT or SIGTERM sets while the block runs, to the error that the run ends with.

    A second signal ends the process at once, like a crash. After the block, the previous handlers are back.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    stop: asyncio.Future[InterruptedRunError] = loop.create_future()

    def interrupt(number: signal.Signals) -> None:
        if stop.done():
            os._exit(128 + number)
        code = ExitCode[number.name]
        error = InterruptedRunError(f"interrupted by {code.name}, but everything received is saved", exit_code=code)
        stop.set_result(error)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        loop.add_signal_handler(number, interrupt, number)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
        stop.cancel()


def run_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do blocking work in a thread, and return its result.

    Python handles a signal between two steps of the main thread, which here never waits long. So Ctrl-C works at once,
    even while a database driver waits for its server.
    """
    from concurrent.futures import ThreadPoolExecutor, wait

    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(work, *args, **kwargs)
        while not future.done():
            wait([future], timeout=0.2)
        return future.result()


@contextmanager
def report_errors(*, verbose: bool) -> Iterator[None]:
    """Turn whatever is raised in the block into an exit code and lines on stderr, and end the command.

    An ``ExporterError`` becomes one line for each mistake, and the exit code of its class. Anything else is a bug here:
    one line, or the traceback if ``verbose``.
    """
    try:
        yield
    except ExporterError as error:
        lines = str(error).split("\n")
        exit_code = error.exit_code
    except Exception as error:  # noqa: BLE001 the last line of defence: users get one line, not a traceback
        reason = (
            traceback.format_exc().rstrip() if verbose else f"{type(error).__name__}: {error} (--verbose shows details)"
        )
        lines = [f"this is a bug in metrics-etl. Please report it: {reason}"]
        exit_code = ExitCode.BUG
    else:
        return

    print_message(*(f"error: {line}" for line in lines))
    raise SystemExit(exit_code)


def end(exit_code: ExitCode, *, is_result_printed: bool = True) -> NoReturn:
    """End the command with the exit code, unless what it printed did not arrive.

    ``is_result_printed`` says that its whole result is what it printed, so that without it the command has failed. Work
    such as an export is done, whatever became of the text.
    """
    gc.freeze()  # else the interpreter, as it ends, looks for garbage in all that was imported
    if failure := _stdout_failure():
        print_message(f"error: the output is incomplete, because writing to stdout failed: {failure}")
        if is_result_printed and exit_code is ExitCode.COMPLETE:
            exit_code = ExitCode.DESTINATION_FAILED
    raise SystemExit(exit_code)
