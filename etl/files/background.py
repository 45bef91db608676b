"""Work that may never end, because a server may never answer: the caller can stop waiting for it.

Owns the thread in which the work runs, and never decides how long to wait.
"""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> "Future[T]":
    """Start the work in a thread of its own; returns the future of its result, or of whatever it raises.

    A caller that has waited long enough drops the future. The thread goes on, but does not keep the process alive.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001 raised by ``future.result``
            future.set_exception(exc)
        else:
            future.set_result(result)

    Thread(target=run, daemon=True).start()
    return future
