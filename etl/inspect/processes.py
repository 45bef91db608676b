"""Do work in processes of their own, one for each share of it, all at once.

Not a pool of the standard library: the workers of one wait for ever if their parent is killed, and run the caller's
script again. These get their share at once, and end when nobody is there to take the result.
"""

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from etl.errors import DestinationError

T = TypeVar("T")
R = TypeVar("R")


def in_processes(do: Callable[[T], R], shares: Sequence[T]) -> Iterator[R]:
    """The result of ``do`` for each share, in their order. Function, shares and results must be fit to be pickled.

    Raises:
        DestinationError: a process ended without a result; it has printed why, unless it was killed.
    """
    command = [sys.executable, "-c", f"from {__name__} import work; work()"]

    def result(share: T) -> R:
        ended = subprocess.run(  # noqa: S603 this interpreter
            command, input=pickle.dumps((do, share)), stdout=subprocess.PIPE, check=False
        )
        if ended.returncode:
            raise DestinationError(
                f"a process reading part of the dataset ended with code {ended.returncode}. Try again with more memory"
            )
        read: R = pickle.loads(ended.stdout)  # noqa: S301 made there
        return read

    with ThreadPoolExecutor(len(shares)) as pool:
        yield from pool.map(result, shares)


def work() -> None:
    """Do the share that comes from stdin, and write the result to stdout: all that such a process does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # its parent says what Ctrl-C ended
    do, share = pickle.load(sys.stdin.buffer)  # noqa: S301 made by its parent
    with suppress(BrokenPipeError):
        pickle.dump(do(share), sys.stdout.buffer)
        sys.stdout.flush()
