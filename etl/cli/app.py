"""Where the ``metrics-etl`` command starts: signals and streams first, then the imports that take time.

Owns only this order. Nothing of the exporter is imported at the top, so that a signal is heard from the first moment.
"""

import os
import signal
from collections.abc import Callable


def main() -> None:
    """Run the command; the installed script and ``python -m etl`` start here."""
    end_on_signals()
    from etl.cli import process

    process.take_over_streams()
    process.prepare()
    from etl.cli.commands import app

    app()


def end_on_signals() -> None:
    """End the process at once on SIGINT or SIGTERM, with one line on stderr and the exit code 128 + number.

    A signal that the parent process ignores stays ignored. While a run has something to save,
    ``process.stop_on_signals`` takes the place of this handler.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handler(number, os.write, os._exit))


def _handler(number: signal.Signals, write: Callable[..., int], leave: Callable[[int], None]) -> Callable[..., None]:
    """The handler that ends the process.

    ``write`` and ``leave`` are parameters, because names of modules may be gone while the interpreter shuts down.
    """
    line = f"error: interrupted by {number.name}\n".encode()

    def end(*_: object) -> None:
        try:
            write(2, line)
        finally:
            leave(128 + number)

    return end
