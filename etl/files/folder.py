"""What the local storage asks of the operating system: safe opening, durable folders, free space and permissions.

Knows which paths every export uses, and never writes a file itself.
"""

import errno
import os
from pathlib import Path

from etl.errors import DestinationError
from etl.files.names import IDENTITY, INDEX, LAST_RUN, LOCK, QUARANTINE, STAGING, STATE
from etl.model import schema

_LEAST_FREE_BYTES = 64 << 20
"""With less free space an export does not begin: a commit needs room for a whole part beside the old one."""
_FIXES = {
    errno.EACCES: "let this user read and write it",
    errno.EPERM: "let this user read and write it",
    errno.EROFS: "remount it read-write",
    errno.EISDIR: "remove it",
    errno.ENOTDIR: "a file is in the way: move it, or choose another [destination] path",
    errno.ELOOP: "replace the link with the file or folder itself",
    errno.EXDEV: "keep the dataset on one file system",
}
"""What to do about an operating system error, where something can be done in general."""


def open_at_once(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Open the file and return its descriptor, which programs started by this one do not inherit.

    Never waits: a pipe without a writer is opened at once.

    Raises:
        OSError: the last part of the path is a symbolic link, or the file cannot be opened.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def fsync_folder(folder: Path) -> None:
    """Make the names in the folder durable: what was added, renamed or removed in it stays so after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def why(error: OSError) -> str:
    """The operating system's own words for the error, followed by what to do about it, where that is known."""
    text = error.strerror or str(error)
    return f"{text}: {_FIXES[error.errno]}" if error.errno in _FIXES else text


def require_space(folder: Path) -> int | None:
    """How many bytes are free for this user; None if the file system does not say, as some on a network do not.

    Raises:
        DestinationError: they are too few for an export.
    """
    space = os.statvfs(folder)
    free_bytes = space.f_bavail * space.f_frsize
    if not space.f_blocks:
        return None
    if free_bytes < _LEAST_FREE_BYTES:
        raise DestinationError(
            f"{folder}: {free_bytes / 2**20:.1f} MiB free, but an export needs {_LEAST_FREE_BYTES >> 20} MiB: "
            "make room, or move the dataset"
        )
    return free_bytes


def nearest_folder(path: Path) -> Path:
    """The folder if it exists, otherwise the nearest existing one above it.

    Raises:
        NotADirectoryError: what exists there is not a folder.
    """
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return path


def check_access(root: Path) -> None:
    """Check that this user may use each existing file and folder of an export: another user may have made some.

    Raises:
        DestinationError: the first one that may not be used, or that is a file in a folder's place or the other way
            round.
    """
    tables = [root / name for name in schema.TABLES]
    patterns = ("run_test=*", "run_test=*/month=*", "month=*")
    partitions = [partition for table in tables for pattern in patterns for partition in table.glob(pattern)]
    folders = [root, root / STATE, root / STAGING, root / QUARANTINE, *tables, *partitions]
    needed = dict.fromkeys(folders, os.R_OK | os.W_OK | os.X_OK)
    # These files are replaced, never written to.
    needed |= dict.fromkeys((root / name for name in (IDENTITY, LAST_RUN, INDEX)), os.R_OK)
    needed |= {root / LOCK: os.R_OK | os.W_OK}
    for path, mode in needed.items():
        error = _error_of_use(path, mode)
        if error and path.exists():
            raise DestinationError(f"{path}: {why(OSError(error, os.strerror(error)))}")


def _error_of_use(path: Path, mode: int) -> int | None:
    """The error number that using the path in this mode would give; None if it may be used. Only folders need X_OK."""
    is_folder = bool(mode & os.X_OK)
    if path.is_dir() != is_folder:
        return errno.ENOTDIR if is_folder else errno.EISDIR
    # What an export may do is decided by the effective user, where the system can be asked about that one.
    is_allowed = os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
    return None if is_allowed else errno.EACCES
