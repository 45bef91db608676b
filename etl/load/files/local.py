"""Durable files under one root: publish whole or not at all, read, list, set aside. The only module that knows where bytes go.

A file appears under its final name in one step, with all its bytes on disk, or not at all: staging file, fsync, rename,
fsync of the directory and of every new parent. Staging files and what was set aside lie under ``_state``, never beside data.
"""

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from etl.errors import DestinationError
from etl.load.layout import STATE

_STAGING = f"{STATE}/staging"
QUARANTINE = f"{STATE}/quarantine"
_LEAST_FREE_BYTES = 64 << 20
_LINK = "is a symbolic link: a dataset must not contain any"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the dataset, or something there that is none: then ``oddity`` says what, and the mend. It is never followed."""

    path: str
    oddity: str = ""


class LocalFiles:
    """Files of one dataset on a local or mounted file system. Paths are relative to the root, with ``/`` between parts."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._mode = 0o644
        self._durable: set[Path] = set()

    def has(self, path: str) -> bool:
        """Whether there is a file or folder of this path.

        Raises:
            DestinationError: it cannot be told.
        """
        with self._naming(path):
            return (self.root / path).exists()

    def prepare(self) -> None:
        """Make the root and the state folder, and prove that files can be published there and that there is room for some.

        Raises:
            DestinationError: they cannot, or there is not.
        """
        umask = os.umask(0o077)
        os.umask(umask)
        self._mode = 0o666 & ~umask
        with self._naming(""):
            self._make_folder(self.root)
            self._require_space(self.root)
            self._make_parents(f"{_STAGING}/probe")
            self._remove(self._stage(b"probe"))

    def probe(self) -> tuple[Path, int | None]:
        """Prove that an export could write here, and leave no trace; returns where it was tried, and the bytes that are free.

        Where the root is not there yet, that is the nearest folder above it. None where a file system does not tell its size.

        Raises:
            DestinationError: it could not.
        """
        with self._naming(""):
            folder = self.root
            while not os.path.lexists(folder):
                folder = folder.parent
            free_bytes = self._require_space(folder)
            if folder == self.root:
                self._probe_folders()
                staging = self.root / _STAGING
                folder = staging if staging.is_dir() else folder
            # A file without a name: killed in the middle, nothing of it stays.
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"probe")
                file.flush()
                os.fsync(file.fileno())
        return folder, free_bytes

    def _probe_folders(self) -> None:
        """The folders in the root are writable, and on one file system: files are staged in one and published in another."""
        device = self.root.stat().st_dev
        for each in list(os.scandir(self.root)):
            self._refuse_links(each.name)
            if not each.is_dir():
                continue
            if each.stat().st_dev != device:
                raise DestinationError(
                    f"{each.path} is on another file system than {self.root}: a dataset must lie on one"
                )
            if not os.access(each.path, os.W_OK | os.X_OK):
                raise DestinationError(f"{each.path}: {os.strerror(errno.EACCES)}")

    def publish(self, path: str, data: bytes | memoryview) -> None:
        """Make ``data`` the whole content of the file, durably and in one step.

        Raises:
            DestinationError: it could not be done. An older file is untouched, unless the very last step failed: then ``data``
                stands in its place, whole, and may be lost again with the power.
        """
        with self._naming(path):
            target = self.root / path
            staged = self._stage(data)
            try:
                self._make_parents(path)
                (self.root / staged).replace(target)
            except (OSError, DestinationError):
                self._remove(staged)
                raise
            _fsync_directory(target.parent)

    def read(self, path: str) -> bytes:
        """The file's bytes.

        Raises:
            DestinationError: it cannot be read.
        """
        with self._naming(path):
            self._refuse_links(path)
            descriptor = os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                return file.read()

    def open(self, path: str) -> BinaryIO | None:
        """The file, to read parts of it; None when it is gone by now.

        Raises:
            DestinationError: it cannot be opened.
        """
        with self._naming(path):
            self._refuse_links(path)
            try:
                return os.fdopen(os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
            except FileNotFoundError:
                return None

    def list(self, folder: str) -> list[str]:
        """Paths of all files below the folder, sorted; none when it does not exist.

        Raises:
            DestinationError: it or something below it is a symbolic link, or cannot be listed.
        """
        with self._naming(folder):
            self._refuse_links(folder)
        entries = self.entries(folder)
        for entry in entries:
            if entry.oddity:
                raise DestinationError(f"{self.root / entry.path} {entry.oddity}")
        return [entry.path for entry in entries]

    def entries(self, folder: str) -> tuple[Entry, ...]:
        """All that lies below the folder but folders, sorted by path; none when it does not exist. Follows no link.

        Raises:
            DestinationError: a folder cannot be listed.
        """
        with self._naming(folder):
            if (self.root / folder).is_symlink():
                return (Entry(folder, _LINK),)
            return tuple(sorted(self._walk(folder), key=lambda entry: entry.path))

    def version(self, path: str) -> tuple[int, int, int] | None:
        """What changes whenever the file is written or replaced; None when there is none, or it cannot be told."""
        try:
            found = (self.root / path).lstat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def size_bytes(self, path: str) -> int:
        """How large the file is; 0 when there is none.

        Raises:
            DestinationError: it cannot be told.
        """
        with self._naming(path):
            try:
                return (self.root / path).stat().st_size
            except FileNotFoundError:
                return 0

    def set_aside(self, path: str) -> str:
        """Move a file that cannot be read to the quarantine; returns its new path."""
        aside = f"{QUARANTINE}/{secrets.token_hex(4)}-{path.replace('/', '-')}"
        with self._naming(path):
            self._refuse_links(path)
            self._make_parents(aside)
            (self.root / path).replace(self.root / aside)
            _fsync_directory(self.root / QUARANTINE)
            _fsync_directory((self.root / path).parent)
        return aside

    def remove(self, path: str) -> None:
        """Remove a file, durably.

        Raises:
            DestinationError: it could not be done.
        """
        with self._naming(path):
            self._refuse_links(path)
            self._remove(path)
            _fsync_directory((self.root / path).parent)

    def sweep_staging(self) -> int:
        """Remove what dead runs left in staging; returns how many files. Only for the holder of the lock."""
        leftovers = self.list(_STAGING)
        for path in leftovers:
            with self._naming(path):
                self._remove(path)
        return len(leftovers)

    def _stage(self, data: bytes | memoryview) -> str:
        staged = f"{_STAGING}/{secrets.token_hex(16)}"
        self._refuse_links(staged)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.root / staged, flags, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), self._mode)
                os.fsync(file.fileno())
        except OSError:
            self._remove(staged)
            raise
        return staged

    def _remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def _make_parents(self, path: str) -> None:
        self._refuse_links(path)
        self._make_folder((self.root / path).parent)

    def _make_folder(self, folder: Path) -> None:
        """Make the folder and those missing above it, each durable before anything is put into it."""
        above = folder.parent
        if self.root in above.parents and above not in self._durable:
            self._make_folder(above)
        try:
            folder.mkdir()
        except FileExistsError:
            # Within the dataset, whoever made it may have been killed before it was durable.
            if folder in self._durable or self.root not in folder.parents:
                return
        except FileNotFoundError:
            self._make_folder(above)
            folder.mkdir(exist_ok=True)
        _fsync_directory(above)
        self._durable.add(folder)

    def _require_space(self, folder: Path) -> int | None:
        """The bytes that are free there; None on file systems that do not tell their size, as some in a network."""
        found = os.statvfs(folder)
        free = found.f_bavail * found.f_frsize
        if not found.f_blocks:
            return None
        if free < _LEAST_FREE_BYTES:
            raise DestinationError(
                f"{folder}: {free / 2**20:.1f} MiB free, and an export needs {_LEAST_FREE_BYTES >> 20} MiB: "
                "make room, or move the dataset"
            )
        return free

    def _refuse_links(self, path: str) -> None:
        folder = self.root
        for part in Path(path).parts:
            folder = folder / part
            if folder.is_symlink():
                raise DestinationError(f"{folder} {_LINK}")

    def _walk(self, folder: str) -> Iterator[Entry]:
        try:
            found = list(os.scandir(self.root / folder))
        except FileNotFoundError:
            return
        for each in found:
            path = f"{folder}/{each.name}" if folder else each.name
            if each.is_symlink():
                yield Entry(path, _LINK)
            elif each.is_dir():
                yield from self._walk(path)
            elif not each.is_file():
                yield Entry(path, "is neither file nor folder: remove it")
            else:
                yield Entry(path)

    @contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        """Turn an operating system error into one line that names the place."""
        try:
            yield
        except OSError as exc:
            raise DestinationError(f"{self.root / path}: {exc.strerror or exc}") from exc


def _fsync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
