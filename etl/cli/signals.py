"""SIGINT and SIGTERM while nothing is to be saved: from the first moment to the last, they end the process with one line."""

import os
import select
import signal
from collections.abc import Callable
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


def end_on_signals() -> None:
    """End the process at once on either signal, unless the parent process ignores that one."""
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _ending(number))


def _ending(number: signal.Signals) -> Callable[..., None]:
    line = f"error: interrupted by {number.name}\n".encode()

    # While the interpreter shuts down, a handler can rely on nothing but what it holds itself.
    def end(
        _number: int,
        _frame: object,
        select: Callable[..., Any] = select.select,
        write: Callable[..., int] = os.write,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        try:
            if select([], [2], [], 0)[1]:  # else nobody reads it
                write(2, line)
        finally:
            leave(128 + number)

    return end
