"""Work that may never end, because somebody else's server may never answer: the caller can stop waiting for it."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> "Future[T]":
    """What the work will result in. Its thread does not keep the process alive."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001 raised where it is waited for
            future.set_exception(exc)
        else:
            future.set_result(result)

    Thread(target=run, daemon=True).start()
    return future
