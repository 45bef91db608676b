"""Standard output and standard error. Closed, full, gone or of another encoding: that costs the text, never the run."""

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Descriptor(io.RawIOBase):
    """A file descriptor on which every write succeeds; ``failure`` is why the first text was lost."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
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
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])  # the parent process made it non-blocking
            except OSError as exc:
                self.failure = self.failure or exc
                return memoryview(data).nbytes


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
        line_buffering=descriptor == 2 or os.isatty(descriptor),
    )
