"""One writer at a time in a folder: an operating system lock that is released when its holder dies.

The lock file stays; what counts is the kernel's lock on it. Its text names the holder for a run that is refused.
The dataset's folder is locked too: a lock file that is deleted or replaced while it is held would keep nobody out.
"""

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from etl.errors import DestinationError, LockHeldError
from etl.load.files.regular import open_regular
from etl.load.layout import LOCK

_HOLDER_MAX_BYTES = 500
_LOCKS = Path("/proc/locks")


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
            raise DestinationError(f"{path}: {exc.strerror}") from exc
        try:
            _lock(file, folder, now)
        except BlockingIOError:
            text = os.pread(file, _HOLDER_MAX_BYTES, 0)
            raise LockHeldError(f"another export holds {path} ({_holder(text)}); nothing was changed") from None
        except OSError as exc:
            raise DestinationError(f"{path}: cannot be locked: {exc.strerror}") from exc
        yield


def holder(root: Path) -> str | None:
    """Who holds the lock, in words; None when nobody does, as far as this machine can tell. Takes no lock itself.

    Linux says who holds which lock. Elsewhere the process that the lock file names is the holder as long as it runs here.
    """
    text, inodes = b"", []
    for path, open_it in ((root, _open_folder), (root / LOCK, open_regular)):
        with ExitStack() as held, suppress(OSError):
            descriptor = _until_the_end(held, open_it(path))
            inodes.append(os.fstat(descriptor).st_ino)
            text = os.pread(descriptor, _HOLDER_MAX_BYTES, 0) if open_it is open_regular else b""
    try:
        locks = _LOCKS.read_text(encoding="ascii")
    except OSError:
        return _holder(text) if _is_alive(text) else None
    is_held = any(re.search(rf":{inode} 0 EOF$", locks, re.MULTILINE) for inode in inodes)
    return _holder(text) if is_held else None


def _is_alive(text: bytes) -> bool:
    try:
        named = json.loads(text)
        if named["host"] != socket.gethostname():
            return False
        os.kill(named["pid"], 0)
    except PermissionError:
        return True
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, OSError):
        return False
    return True


def _open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _until_the_end(held: ExitStack, descriptor: int) -> int:
    held.callback(os.close, descriptor)
    return descriptor


def _lock(file: int, folder: int, now: datetime) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
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
