"""Where the ``metrics-etl`` command begins: first what must hold from the start, then the imports that take their time."""

import os
import select
import signal
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Run the command."""
    end_on_signals()
    from etl.cli import process, streams

    streams.take_over()
    process.prepare()
    from etl.cli.commands import app

    app()


def end_on_signals() -> None:
    """End the process at once, with one line, on SIGINT or SIGTERM, unless the parent process ignores that one.

    So it is from the first moment to the last, while nothing is to be saved.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
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
