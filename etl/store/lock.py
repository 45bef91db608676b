"""One writer at a time: an operating system lock that dies with its holder.

The lock file stays; what counts is the kernel's lock on it. Its text names the holder, for the one who finds it taken.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from etl.errors import DestinationError, LockHeldError
from etl.store.files import LocalFiles
from etl.store.layout import STATE

LOCK = f"{STATE}/lock"
_HOLDER_MAX_BYTES = 500


@contextmanager
def exclusive(files: LocalFiles, *, now: datetime) -> Iterator[None]:
    """Hold the dataset's lock.

    Raises:
        LockHeldError: another process holds it; the message says who and since when.
        DestinationError: the lock file cannot be opened, locked or written.
    """
    path = files.root / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise DestinationError(f"{path}: {exc.strerror}") from exc
    try:
        _lock(descriptor, path, now)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, now: datetime) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now.isoformat(timespec="seconds")}
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    except BlockingIOError:
        text = os.pread(descriptor, _HOLDER_MAX_BYTES, 0)
        raise LockHeldError(f"another export holds {path} ({_holder(text)}); nothing was changed") from None
    except OSError as exc:
        raise DestinationError(f"{path}: cannot be locked: {exc.strerror}") from exc


def _holder(text: bytes) -> str:
    try:
        holder = json.loads(text)
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (KeyError, TypeError, ValueError):
        return "holder unknown"
