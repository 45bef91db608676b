"""One writer at a time in a folder: an operating system lock that is released when its holder dies.

The lock file stays; what counts is the kernel's lock on it. Its text names the holder for a run that is refused.
The dataset's folder is locked too: a lock file that is deleted or replaced while it is held would keep nobody out.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from etl.errors import DestinationError, LockHeldError
from etl.load.files.regular import open_regular, why
from etl.load.layout import LOCK

_HOLDER_MAX_BYTES = 500
_ASKERS_ARE_GONE = (0.05, 0.2)
"""After so many seconds an exporter tries again: who only asks for the holder keeps the lock for less than a millisecond."""
_HAVE_NONE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


_OPEN: set[int] = set()
"""Descriptors of this process that are locked, or about to be; those of a process are all that a lock knows of it."""


@contextmanager
def exclusive(root: Path, *, now: datetime) -> Iterator[None]:
    """Hold the lock of the dataset in this folder.

    Raises:
        LockHeldError: another process holds it; the message says who and since when.
        DestinationError: the lock file cannot be opened, locked or written.
    """
    path = root / LOCK
    with ExitStack() as held:
        try:
            file = _until_the_end(held, open_regular(path, os.O_RDWR | os.O_CREAT))
            folder = _until_the_end(held, _open_folder(root))
        except OSError as exc:
            raise DestinationError(f"{path}: {why(exc)}") from exc
        try:
            _lock(file, folder, now)
        except BlockingIOError:
            text = os.pread(file, _HOLDER_MAX_BYTES, 0)
            raise LockHeldError(f"another export holds {path} ({_holder(text)}); nothing was changed") from None
        except OSError as exc:
            fix = ": keep the dataset where files can be locked" if exc.errno in _HAVE_NONE else ""
            raise DestinationError(f"{path}: cannot be locked: {exc.strerror}{fix}") from exc
        yield


def holder(root: Path) -> str | None:
    """Who holds the lock, in words; None when nobody does. A shared lock is tried, and given back at once."""
    found: str | None = None
    for path, open_it in ((root, _open_folder), (root / LOCK, open_regular)):
        with ExitStack() as held, suppress(OSError):
            descriptor = _until_the_end(held, open_it(path))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found = _holder(os.pread(descriptor, _HOLDER_MAX_BYTES, 0) if open_it is open_regular else b"")
    return found


def _open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _until_the_end(held: ExitStack, descriptor: int) -> int:
    _OPEN.add(descriptor)
    held.callback(_close, descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    if descriptor in _OPEN:
        _OPEN.remove(descriptor)
        with suppress(OSError):  # it is closed all the same, and nothing of ours was left to write
            os.close(descriptor)


def _forget() -> None:
    """Close, in a child that a program forks, its copies of what is locked: they would keep the lock as long as it lives."""
    for descriptor in tuple(_OPEN):
        _close(descriptor)


os.register_at_fork(after_in_child=_forget)


def _lock(file: int, folder: int, now: datetime) -> None:
    for seconds in _ASKERS_ARE_GONE:
        try:
            _lock_now(file, folder, now)
        except BlockingIOError:
            time.sleep(seconds)
        else:
            return
    _lock_now(file, folder, now)


def _lock_now(file: int, folder: int, now: datetime) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(file, fcntl.LOCK_UN)
        raise
    except OSError:
        # Some network file systems cannot lock folders: there the lock on the file must do.
        pass
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now.isoformat(timespec="seconds")}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(holder).encode(), 0)


def _holder(text: bytes) -> str:
    try:
        holder = json.loads(text)
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (KeyError, TypeError, ValueError, RecursionError):
        return "holder unknown"
