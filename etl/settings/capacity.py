"""What this process may still open and start. Asked before the first request, so that no limit is met in the middle of a run."""

import os
import resource
from threading import Event, Thread

from etl.errors import ConfigurationError

_OTHER_FILES = 32  # locks, parts, the event loop, modules that are imported later
_FILES_PER_REQUEST = 2  # a retry opens a connection of its own beside the one that is kept
THREADS = 16
"""More than those that write files, look up names and read Parquet on a small machine."""
DELTA_THREADS = 20
"""More than those of deltalake, which stands still without an end where it can start too few."""
_COUNTED_FILES = 4096


def fitting_concurrency(wanted: int) -> int:
    """How many requests may be under way at once, at most ``wanted``, with the files that this process may open.

    Raises:
        ConfigurationError: not even one.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    free = limit - sum(map(_is_open, range(min(limit, _COUNTED_FILES))))
    fitting = (free - _OTHER_FILES) // _FILES_PER_REQUEST
    if fitting < 1:
        raise ConfigurationError(
            f"this process may open {free} more files (its limit is {limit}), but needs {_OTHER_FILES + _FILES_PER_REQUEST}: "
            "raise the limit, such as with ulimit -n 1024"
        )
    return min(wanted, fitting)


def require_threads(count: int = THREADS) -> None:
    """Prove that so many threads can be started.

    Raises:
        ConfigurationError: they cannot.
    """
    is_over, started = Event(), []
    try:
        for _ in range(count):
            thread = Thread(target=is_over.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:
        raise ConfigurationError(
            f"this process may start {len(started)} more threads, but needs {count}: raise the limit on processes "
            "(ulimit -u, or pids.max of the container), or on memory (ulimit -v)"
        ) from None
    finally:
        is_over.set()
        for thread in started:
            thread.join()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
