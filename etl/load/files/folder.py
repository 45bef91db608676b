"""What the local storage asks of the operating system: regular files, folders on the disk, and a folder that can be written."""

import errno
import fcntl
import os
import stat
import tempfile
from pathlib import Path

from etl.errors import DestinationError
from etl.load.files.contract import Probe
from etl.load.layout import LOCK, STAGING, STATE
from etl.model import schema

_LEAST_FREE_BYTES = 64 << 20
_NOT_REGULAR = "is not a regular file: remove it"
_FIXES = {
    errno.EACCES: "let this user read and write it",
    errno.EPERM: "let this user read and write it",
    errno.EROFS: "mount it for writing",
    errno.EISDIR: "remove it",
    errno.ENOTDIR: "a file lies in its way: move it, or give another [destination] path",
    errno.ELOOP: "put the file or folder itself there",
    errno.EXDEV: "keep the dataset on one file system",
}


class NotRegularError(OSError):
    """A pipe, a device, a socket: nothing to read or write as a file."""


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the file, which a program that this one starts does not inherit. A pipe or device makes nobody wait.

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


def refuse_other_things(folder: Path) -> None:
    """Refuse a folder that has something in it and no dataset: tables do not belong into a checkout or a home.

    Raises:
        DestinationError: it is such a folder.
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.name != "lost+found")
    if names and not {STATE, *schema.TABLES}.intersection(names):
        raise DestinationError(
            f"{folder}: no dataset, and not empty ({names[0]}): name another folder in [destination] path, or a new one in it"
        )


def require_space(folder: Path) -> int | None:
    """The free bytes there; None on file systems that do not tell their size, as some network file systems.

    Raises:
        DestinationError: an export needs more.
    """
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


def probe(root: Path) -> Probe:
    """Whether an export could write into this folder. Before it exists, the nearest folder above it is tried. Leaves no trace.

    Raises:
        DestinationError, OSError: it could not.
    """
    folder = root
    while not os.path.lexists(folder):
        folder = folder.parent
    is_there = folder == root
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    free_bytes = require_space(folder)
    if is_there:
        refuse_other_things(root)
    if (root / STAGING).is_dir():
        folder = root / STAGING
    try:
        # A file without a name: killed in the middle, nothing of it stays.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"probe")
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        raise DestinationError(f"{folder}: files cannot be written and locked there: {why(exc)}") from exc
    if is_there:
        _check_access(root)
    return Probe(is_there=is_there, free_bytes=free_bytes)


def _check_access(root: Path) -> None:
    """Check that this user may use the dataset's folders, and what each run opens: another one may have made them."""
    of_dataset = [root / name for name in (STATE, *schema.TABLES)]
    folders = [root, *(each for top in of_dataset for each in (top, *top.rglob("*/")))]
    needed = dict.fromkeys(folders, os.R_OK | os.W_OK | os.X_OK)
    needed |= dict.fromkeys((root / STATE).glob("*.*"), os.R_OK) | {root / LOCK: os.R_OK | os.W_OK}
    for path, mode in needed.items():
        if path.exists() and not os.access(path, mode, effective_ids=os.access in os.supports_effective_ids):
            raise DestinationError(f"{path}: {why(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))}")
