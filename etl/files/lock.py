"""One writer at a time in a folder: an operating system lock, which the kernel releases when its holder dies.

The lock file stays after that; what counts is the kernel's lock on it. Its text names the holder for a run that is
refused. The dataset's folder is locked, too: a lock file that is deleted or replaced while it is held would keep nobody
out.
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
from etl.files.folder import open_at_once, why
from etl.files.names import LOCK

_HOLDER_MAX_BYTES = 500
"""As much of the lock file is read; ours is shorter."""
_RETRY_SECONDS = (0.05, 0.2)
"""The waits before another try: ``holder`` keeps a shared lock, too, but for less than a millisecond."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system that has no locks at all."""


@contextmanager
def exclusive(root: Path, *, now: datetime) -> Iterator[None]:
    """Hold the lock of the dataset in this folder, which exists.

    Raises:
        LockHeldError: another process holds the lock.
        DestinationError: the lock file cannot be opened or written, or the file system has no locks.
    """
    path = root / LOCK
    with ExitStack() as opened:
        try:
            file = open_at_once(path, os.O_RDWR | os.O_CREAT)
            opened.callback(os.close, file)
            folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, folder)
        except OSError as exc:
            raise DestinationError(f"{path}: {why(exc)}") from exc
        try:
            _lock(file, folder)
            facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": now.isoformat(timespec="seconds")}
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(facts).encode(), 0)
        except BlockingIOError:
            text = os.pread(file, _HOLDER_MAX_BYTES, 0)
            raise LockHeldError(f"another export holds {path} ({_holder(text)}), so nothing was changed") from None
        except OSError as exc:
            fix = ". Keep the dataset where files can be locked" if exc.errno in _NO_LOCKS else ""
            raise DestinationError(f"{path} cannot be locked: {exc.strerror}{fix}") from exc
        yield


def holder(root: Path) -> str | None:
    """Who holds the lock, in words; None if nobody does, or the lock file is missing or cannot be read.

    Tries a shared lock and gives it back at once, so that two callers do not take each other for a holder.
    """
    with suppress(OSError), open(root / LOCK, "rb", opener=open_at_once) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(file.read(_HOLDER_MAX_BYTES))
    return None


def _lock(file: int, folder: int) -> None:
    """Lock the file and the folder, given by descriptors; BlockingIOError if another process holds one of the locks."""
    for seconds in _RETRY_SECONDS:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        time.sleep(seconds)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        # Some network file systems cannot lock folders: there the lock on the file must do.
        pass


def _holder(text: bytes) -> str:
    """The words that name the holder, from the text of a lock file, which may be cut or somebody else's."""
    try:
        facts = json.loads(text)
        return f"pid {facts['pid']} on {facts['host']} since {facts['since']}"
    except (KeyError, TypeError, ValueError, RecursionError):
        return "holder unknown"
