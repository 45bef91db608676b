"""Tuning of the command's process for speed and little memory. A program that imports the library keeps its own."""

import asyncio
import gc
import os
import resource
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from etl.errors import ConfigurationError

T = TypeVar("T")

_OPEN_FILES = 1024


def prepare() -> None:
    """Tune what must be set before heavy imports."""
    gc.set_threshold(200_000, 20, 20)  # imports make hardly any garbage
    # The system's allocator returns freed memory, Arrow's own keeps it. pyarrow reads the variable when it is imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # numpy would start a thread per processor for matrix products, which nothing here computes.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # deltalake and obstore start several for each processor, and stand still where a container has not so many.
    os.environ.setdefault("TOKIO_WORKER_THREADS", "2")
    # Shells and launchd begin with few, and let every process have more.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the work as ``asyncio.run`` does, on uvloop's event loop where it is installed (extra ``fast``).

    Objects from the imports live as long as the process, so the garbage collector no longer scans them, not even at exit.

    Raises:
        ConfigurationError: the process may open too few files.
    """
    from etl.settings.capacity import fitting_concurrency  # noqa: PLC0415

    try:
        fitting_concurrency(1)  # an event loop that cannot open its own files aborts the process
    except ConfigurationError:
        work.close()
        raise
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # less often than by default: what a run creates lives until its commit
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        pass
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)
