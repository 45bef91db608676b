"""Standard output and standard error. Closed, full, gone or of another encoding: that costs the text, never the run."""

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDERR = 2
_MESSAGE_WAIT_SECONDS = 5.0
"""So long a message may wait until somebody reads it, while nothing else goes on; those after it then do not wait."""
_PIECE = {False: select.PIPE_BUF, True: 128}
"""Bytes of a message that are written at once, to anything else or to a terminal: they fit where there is room at all."""


class _Descriptor(io.RawIOBase):
    """A file descriptor on which every write succeeds; ``failure`` is why the first text was lost.

    What is written to stderr is lost when nobody reads it: a run must go on, and hear its signals. A result waits for its reader.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._wait_seconds = _MESSAGE_WAIT_SECONDS if descriptor == _STDERR else None
        self.failure: OSError | None = None

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write what the descriptor takes, and drop the rest if it takes no more."""
        data = memoryview(data)
        piece = None if self._wait_seconds is None else _PIECE[self.isatty()]
        try:
            while self._is_ready():
                with suppress(BlockingIOError):  # the parent process made it non-blocking
                    return os.write(self._descriptor, data[:piece])
        except OSError as exc:
            self.failure = self.failure or exc
        return data.nbytes

    def _is_ready(self) -> bool:
        """Whether it takes more, now or soon."""
        is_ready = bool(select.select([], [self._descriptor], [], self._wait_seconds)[1])
        if self._wait_seconds is not None:
            self._wait_seconds = _MESSAGE_WAIT_SECONDS if is_ready else 0.0
        return is_ready


def take_over() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` streams that never fail, from now to the last flush of the interpreter."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file that is opened, such as one of the dataset, gets the number and what is printed there.
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def stdout_failure() -> str | None:
    """Why something that was printed to stdout is not there. None when all is, or when its reader, such as ``head``, has gone."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Descriptor) else None
    return None if failure is None or failure.errno == errno.EPIPE else os.strerror(failure.errno or errno.EIO)


def _stream(descriptor: int, opened: TextIO | None) -> io.TextIOWrapper:
    """``opened`` is what the interpreter made of the descriptor: None when it was closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(descriptor)),
        encoding=opened.encoding if opened else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == _STDERR or os.isatty(descriptor),
    )
