"""Open nothing but regular files: a pipe, device or link that lies where a file should be neither hangs nor misleads anybody."""

import errno
import os
import stat
from pathlib import Path

_NOT_REGULAR = "is not a regular file: remove it"
_FIXES = {
    errno.EACCES: "let this user read and write it",
    errno.EPERM: "let this user read and write it",
    errno.EROFS: "mount it for writing",
    errno.EISDIR: "remove it",
    errno.ELOOP: "put the file or folder itself there",
}


class NotRegularError(OSError):
    """A pipe, a device, a socket: nothing to read or write as a file."""


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the file, which a program that this one starts does not inherit.

    Raises:
        NotRegularError: it is no file.
        OSError: it cannot be opened, or is a link or a folder.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # a socket, which nobody can open, or a pipe that nobody reads
            raise NotRegularError(errno.EINVAL, _NOT_REGULAR) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise NotRegularError(errno.EINVAL, _NOT_REGULAR)


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
