"""One writer at a time in a folder: an operating system lock that is released when its holder dies.

The lock file stays; what counts is the kernel's lock on it. Its text names the holder for a run that is refused.
The dataset's folder is locked too: a lock file that is deleted or replaced while it is held would keep nobody out.
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from etl.errors import DestinationError, LockHeldError
from etl.load.files.regular import open_regular, why
from etl.load.layout import LOCK

_HOLDER_MAX_BYTES = 500
_LOCKS = Path("/proc/locks")
_MOUNTS = Path("/proc/self/mountinfo")
_DESCRIPTORS = Path("/proc/self/fdinfo")
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
    """Who holds the lock, in words; None when nobody does, as far as this machine can tell. Takes no lock itself.

    Linux says who holds which lock. Elsewhere the process that the lock file names is the holder as long as it runs here.
    """
    text, names = b"", []
    for path, open_it in ((root, _open_folder), (root / LOCK, open_regular)):
        with ExitStack() as held, suppress(OSError):
            descriptor = _until_the_end(held, open_it(path))
            names.append(_kernel_name(descriptor))
            text = os.pread(descriptor, _HOLDER_MAX_BYTES, 0) if open_it is open_regular else b""
    try:
        locks = _LOCKS.read_text(encoding="ascii")
    except OSError:
        return _holder(text) if _is_alive(text) else None
    is_held = any(f" {name} 0 EOF\n" in locks for name in names)
    return _holder(text) if is_held else None


def _kernel_name(descriptor: int) -> str:
    """The file as Linux names it in the list of locks: device of its file system, and inode.

    On some file systems (btrfs, overlayfs) ``stat`` tells another device for a file than that of its file system.
    """
    found = os.fstat(descriptor)
    major, minor, inode = os.major(found.st_dev), os.minor(found.st_dev), str(found.st_ino)
    with suppress(OSError):
        facts = dict(line.split(":\t", 1) for line in _lines(_DESCRIPTORS / str(descriptor)) if ":\t" in line)
        inode = facts.get("ino", inode).strip()
        for mount in map(str.split, _lines(_MOUNTS)):
            if mount[0] == facts.get("mnt_id", "").strip():
                major, minor = map(int, mount[2].split(":"))
    return f"{major:02x}:{minor:02x}:{inode}"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


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
