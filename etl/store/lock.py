"""One writer at a time: an operating system lock that dies with its holder.

The lock file stays; what counts is the kernel's lock on it. Its text names the holder, for the one who finds it taken.
The dataset's folder is locked too: a lock file may be deleted or replaced while it is held, and then locks nobody out.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
    with ExitStack() as held:
        try:
            file = _open(held, path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
            folder = _open(held, files.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            raise DestinationError(f"{path}: {exc.strerror}") from exc
        try:
            _lock(file, folder, now)
        except BlockingIOError:
            text = os.pread(file, _HOLDER_MAX_BYTES, 0)
            raise LockHeldError(f"another export holds {path} ({_holder(text)}); nothing was changed") from None
        except OSError as exc:
            raise DestinationError(f"{path}: cannot be locked: {exc.strerror}") from exc
        yield


def _open(held: ExitStack, path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    held.callback(os.close, descriptor)
    return descriptor


def _lock(file: int, folder: int, now: datetime) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        # Some network file systems lock no folders; there the file's lock stands alone.
        pass
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now.isoformat(timespec="seconds")}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(holder).encode(), 0)


def _holder(text: bytes) -> str:
    try:
        holder = json.loads(text)
        return f"pid {holder['pid']} on {holder['host']} since {holder['since']}"
    except (KeyError, TypeError, ValueError):
        return "holder unknown"
