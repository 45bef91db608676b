"""What the local storage asks of the operating system: files and folders on the disk, and a folder that can be written."""

import errno
import os
from pathlib import Path

from etl.errors import DestinationError
from etl.files.names import IDENTITY, INDEX, LAST_RUN, LOCK, QUARANTINE, STAGING, STATE
from etl.model import schema

_LEAST_FREE_BYTES = 64 << 20
_FIXES = {
    errno.EACCES: "let this user read and write it",
    errno.EPERM: "let this user read and write it",
    errno.EROFS: "remount it read-write",
    errno.EISDIR: "remove it",
    errno.ENOTDIR: "a file is in the way: move it, or choose another [destination] path",
    errno.ELOOP: "replace the link with the file or folder itself",
    errno.EXDEV: "keep the dataset on one file system",
}


def open_at_once(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the file, which no program that this one starts inherits. A link is an error; nobody waits for a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def fsync_folder(folder: Path) -> None:
    """Make durable which files the folder has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def why(error: OSError) -> str:
    """What the operating system says, and what to do about it."""
    text = error.strerror or str(error)
    return f"{text}: {_FIXES[error.errno]}" if error.errno in _FIXES else text


def require_space(folder: Path) -> int | None:
    """The free bytes there, of which an export needs some; None on file systems that do not tell, as some network file systems."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if not found.f_blocks:
        return None
    if free < _LEAST_FREE_BYTES:
        raise DestinationError(
            f"{folder}: {free / 2**20:.1f} MiB free, but an export needs {_LEAST_FREE_BYTES >> 20} MiB: "
            "make room, or move the dataset"
        )
    return free


def nearest_folder(path: Path) -> Path:
    """The folder, or the nearest one above it that exists; NotADirectoryError when that is none."""
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return path


def check_access(root: Path) -> None:
    """Refuse a folder or file of each run that this user may not use, or that is none: somebody else may have made it."""
    tables = [root / name for name in schema.TABLES]
    patterns = ("run_test=*", "run_test=*/month=*", "month=*")
    partitions = (each for table in tables for pattern in patterns for each in table.glob(pattern))
    folders = [root, *(root / name for name in (STATE, STAGING, QUARANTINE)), *tables, *partitions]
    needed = dict.fromkeys(folders, os.R_OK | os.W_OK | os.X_OK)
    needed |= dict.fromkeys((root / name for name in (IDENTITY, LAST_RUN, INDEX)), os.R_OK)
    needed |= {root / LOCK: os.R_OK | os.W_OK}
    for path, mode in needed.items():
        number = 0
        if path.is_dir() != bool(mode & os.X_OK):
            number = errno.ENOTDIR if mode & os.X_OK else errno.EISDIR
        elif not os.access(path, mode, effective_ids=os.access in os.supports_effective_ids):
            number = errno.EACCES
        if number and path.exists():
            raise DestinationError(f"{path}: {why(OSError(number, os.strerror(number)))}")
