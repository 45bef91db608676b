"""Where the ``metrics-etl`` command begins: first what must hold from the start, then the imports that take their time."""

import os
import signal
from collections.abc import Callable


def main() -> None:
    """Run the command."""
    end_on_signals()
    from etl.cli import process

    process.take_over_streams()
    process.prepare()
    from etl.cli.commands import app

    app()


def end_on_signals() -> None:
    """End the process at once, with one line, on SIGINT or SIGTERM, unless the parent process ignores that one.

    So it is from the first moment to the last, while nothing is to be saved.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _ending(number, os.write, os._exit))


def _ending(number: signal.Signals, write: Callable[..., int], leave: Callable[[int], None]) -> Callable[..., None]:
    """While the interpreter shuts down, a handler can rely on nothing but what it holds itself."""
    line = f"error: interrupted by {number.name}\n".encode()

    def end(*_: object) -> None:
        try:
            write(2, line)
        finally:
            leave(128 + number)

    return end
