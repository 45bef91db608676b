"""Prove that an export could write into a folder, and leave no trace."""

import errno
import fcntl
import os
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from etl.errors import DestinationError
from etl.load.files.contract import Probe
from etl.load.files.regular import open_regular, why
from etl.load.layout import (
    IDENTITY,
    INDEX,
    LAST_RUN,
    LOCK,
    QUARANTINE,
    STAGING,
    STATE,
    Part,
    folder_of,
    part_path,
)
from etl.model import schema
from etl.model.keys import KEY_MAX_BYTES

LINK = "is a symbolic link: a dataset must not contain any"
_LEAST_FREE_BYTES = 64 << 20
_IS_EFFECTIVE = os.access in os.supports_effective_ids
_FOLDERS = (*schema.TABLES, STATE, STAGING, QUARANTINE)
_LONGEST_PATH = f"{QUARANTINE}/{part_path('executions', Part('k' * KEY_MAX_BYTES, 'month=2026-01/part-100'))}"


def probe(root: Path) -> Probe:
    """Whether an export could write into this folder. Before it exists, the nearest folder above it is tried.

    Raises:
        DestinationError, OSError: it could not.
    """
    folder = _nearest(root)
    free_bytes = require_space(folder)
    is_there = folder == root
    if is_there:
        _check_folders(root)
        _check_files(root)
        staging = root / STAGING
        folder = staging if staging.is_dir() else folder
    # A file without a name: killed in the middle, nothing of it stays.
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"probe")
        file.flush()
        os.fsync(file.fileno())
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise DestinationError(
                f"{folder}: files cannot be locked there: {exc.strerror}: keep the dataset elsewhere"
            ) from exc
    return Probe(where=str(folder), is_there=is_there, free_bytes=free_bytes)


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


def _nearest(root: Path) -> Path:
    """The folder, or else the nearest one above it. Names that are too long are errors, also of what is to be made."""
    with suppress(FileNotFoundError, NotADirectoryError):
        (root / _LONGEST_PATH).lstat()
    folder = root
    while not os.path.lexists(folder):
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder.parent if folder.parent.is_dir() else Path("/")).joinpath(folder.name).lstat()
        folder = folder.parent
    return folder


def _check_folders(root: Path) -> None:
    """Check that the dataset's folders can be read and written, and are on one file system: files are renamed between them."""
    if root.is_dir() and not os.access(root, os.R_OK | os.X_OK, effective_ids=_IS_EFFECTIVE):
        raise DestinationError(f"{root}: {why(_error(errno.EACCES))}")
    device = root.stat().st_dev
    of_runs = f"{schema.RUNS_TABLE.name}/{folder_of(datetime.now(UTC).date())}"
    found = [root / name for name in (*_FOLDERS, of_runs) if os.path.lexists(root / name)]
    for folder in found:
        if folder.is_symlink():
            raise DestinationError(f"{folder} {LINK}")
        if not folder.is_dir():
            raise DestinationError(f"{folder}: {os.strerror(errno.ENOTDIR)}: move it elsewhere")
        if folder.stat().st_dev != device:
            raise DestinationError(f"{folder} is on another file system than {root}: keep the dataset on one")
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=_IS_EFFECTIVE):
            is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            raise DestinationError(f"{folder}: {why(_error(errno.EROFS if is_read_only else errno.EACCES))}")
        if folder != root / QUARANTINE:
            found += [each for each in folder.iterdir() if each.is_dir() or each.is_symlink()]


def _check_files(root: Path) -> None:
    """Check what every run opens or replaces. The check of the rows reads the parts of the tables."""
    for path in (root / name for name in (LAST_RUN, INDEX, IDENTITY)):
        if path.is_dir():
            raise DestinationError(f"{path}: {why(_error(errno.EISDIR))}")
        if path.is_file() and not os.access(path, os.R_OK, effective_ids=_IS_EFFECTIVE):
            raise DestinationError(f"{path}: {why(_error(errno.EACCES))}")
    if os.path.lexists(root / LOCK):
        try:
            os.close(open_regular(root / LOCK, os.O_RDWR))
        except OSError as exc:
            raise DestinationError(f"{root / LOCK}: {why(exc)}") from exc


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
