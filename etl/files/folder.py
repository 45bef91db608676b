"""What the local storage asks of the operating system: safe opening, durable folders, free space.

Never writes a file itself.
"""

import errno
import os
from pathlib import Path

from etl.errors import DestinationError

_LEAST_FREE_BYTES = 64 << 20
"""With less free space an export does not begin: a commit needs room for a whole part beside the old one."""
_FIXES = {
    errno.EACCES: "Let this user read and write this path",
    errno.EPERM: "Let this user read and write this path",
    errno.EROFS: "Remount the file system read-write",
    errno.EISDIR: "Remove the folder",
    errno.ENOTDIR: "A file is in the way. Move the file, or choose another [destination] path",
    errno.ELOOP: "Replace the link with the file or folder itself",
    errno.EXDEV: "Keep the dataset on one file system",
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
    return f"{text}. {_FIXES[error.errno]}" if error.errno in _FIXES else text


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
            f"{folder}: only {free_bytes / 2**20:.1f} MiB are free, but an export needs {_LEAST_FREE_BYTES >> 20} MiB. "
            "Make room, or move the dataset"
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
