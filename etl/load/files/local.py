"""The files of a dataset in a folder: published durably in one step, read, listed, set aside, locked.

A file appears under its final name with all its bytes on disk, or not at all: staging file, fsync, rename, fsync of the
folder and of every new parent. Staging files and quarantined files lie under ``_state``, never beside data.
"""

import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from etl.errors import DestinationError, FileMissingError, ForeignFileError
from etl.load.files import lock
from etl.load.files.contract import KEPT_ASIDE, MOST_BYTES, Entry, Probe, listed, never_stopped, next_aside
from etl.load.files.probe import LINK, probe, require_space
from etl.load.files.regular import NotRegularError, fsync_folder, open_regular, why
from etl.load.layout import QUARANTINE, STAGING

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_TICK_NS = 50_000_000  # the clock of a file system may stand still for some milliseconds
_KINDS: dict[type[OSError], type[DestinationError]] = {
    FileNotFoundError: FileMissingError,
    NotRegularError: ForeignFileError,
}


class LocalFiles:
    """``Files`` on a local or mounted file system. No symbolic link below the root is ever followed."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._mode = 0o644
        self._durable: set[Path] = set()
        self._folder: tuple[int, int] | None = None
        self.readers = 1
        self.requests: Mapping[str, int] = {}

    def where(self, path: str = "") -> str:
        """The absolute path, for messages."""
        return str(self.root / path)

    def arrow(self) -> tuple["FileSystem", str]:
        """The machine's own file system."""
        from pyarrow.fs import LocalFileSystem  # noqa: PLC0415 no export needs it

        return LocalFileSystem(), str(self.root)

    @contextmanager
    def lock(self, now: datetime, *, is_stopped: Callable[[], bool] = never_stopped) -> Iterator[None]:  # noqa: ARG002
        """Hold the dataset's lock; see ``lock.exclusive``. Who holds it is known at once."""
        with lock.exclusive(self.root, now=now):
            yield

    def lock_holder(self) -> str | None:
        """Who holds the lock; see ``lock.holder``."""
        return lock.holder(self.root)

    def has(self, path: str) -> bool:
        """Whether there is a file or folder of this path.

        Raises:
            DestinationError: the file system does not say.
        """
        with self._naming(path):
            return (self.root / path).exists()

    def prepare(self) -> None:
        """Make the root and the state folder, and prove that files can be published there.

        From now on it is this folder or none: another one that takes its place may hold another dataset.

        Raises:
            DestinationError: they cannot, or the disk is full.
        """
        with self._naming(""):
            self._make_folder(self.root)
            self._folder = _identity(self.root)
            require_space(self.root)
            os.scandir(self.root).close()  # a file, or closed: what follows would be blamed for it
        with self._naming(STAGING):
            self._make_parents(f"{STAGING}/probe")
            self._mode = self._mode_of_new_files()
            self._remove(self._stage(b"probe"))

    def probe(self) -> Probe:
        """Prove that an export could write here, and leave no trace. Before the root exists, the nearest folder above it is tried.

        Raises:
            DestinationError: it could not.
        """
        with self._naming(""):
            found = probe(self.root)
        self.list(STAGING)  # as the sweep of every export does
        return found

    def publish(self, path: str, data: bytes | memoryview) -> None:
        """Make ``data`` the whole content of the file, durably and in one step.

        Raises:
            DestinationError: it failed. An older file is untouched, unless the very last step failed: then ``data`` has
                replaced it as a whole, but a power cut may undo that.
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
            fsync_folder(target.parent)

    def read(self, path: str, *, most_bytes: int = MOST_BYTES) -> bytes:
        """The file's bytes.

        Raises:
            FileMissingError: there is no such file.
            ForeignFileError: it is not a regular file, or has more bytes than ``most_bytes``.
            DestinationError: it cannot be read whole.
        """
        with self._naming(path), self._open(path) as file:
            if (size_bytes := os.fstat(file.fileno()).st_size) > most_bytes:
                raise ForeignFileError(f"{self.root / path}: {size_bytes:,} bytes, expected at most {most_bytes:,}")
            if len(data := file.read()) != size_bytes:
                raise DestinationError(f"{self.where(path)}: {len(data):,} of {size_bytes:,} bytes came: run again")
            return data

    def open(self, path: str) -> BinaryIO:
        """The file, to read parts of it: they stay those of one version, even if the file is replaced or removed meanwhile.

        Raises:
            FileMissingError: there is no such file.
            DestinationError: it cannot be opened.
        """
        with self._naming(path):
            return self._open(path)

    def _open(self, path: str) -> BinaryIO:
        self._refuse_links(path)
        return os.fdopen(open_regular(self.root / path), "rb")

    def list(self, folder: str) -> list[str]:
        """Paths of all files below the folder, sorted; none when it does not exist.

        Raises:
            DestinationError: it or something below it is a symbolic link, or cannot be listed.
        """
        with self._naming(folder):
            self._refuse_links(folder)
        return [entry.path for entry in listed(self, folder)]

    def entries(self, folder: str) -> tuple[Entry, ...]:
        """Everything below the folder that is not a folder, sorted by path; nothing when it does not exist.

        Raises:
            DestinationError: a folder cannot be listed.
        """
        with self._naming(folder):
            if (self.root / folder).is_symlink():
                return (Entry(folder, oddity=LINK),)
            return tuple(sorted(self._walk(folder), key=lambda entry: entry.path))

    def set_aside(self, path: str) -> str:
        """Move a file that cannot be read to the quarantine; returns its new path.

        Of each path the last three that were set aside stay.
        """
        aside, earlier = next_aside([entry.path for entry in self.entries(QUARANTINE)], path)
        with self._naming(path):
            self._refuse_links(path)
            self._make_parents(aside)
            (self.root / path).replace(self.root / aside)
            fsync_folder(self.root / QUARANTINE)
            fsync_folder((self.root / path).parent)
            for old in earlier[: 1 - KEPT_ASIDE]:
                self._remove(old)
        return aside

    def remove(self, path: str) -> None:
        """Remove a file, durably, and the folders that are empty then.

        Raises:
            DestinationError: it failed.
        """
        with self._naming(path):
            self._refuse_links(path)
            (self.root / path).unlink(missing_ok=True)
            fsync_folder((self.root / path).parent)
            self._remove_empty_folders((self.root / path).parent)

    def sweep_staging(self) -> int:
        """Remove what killed runs left in staging; returns how many files. Only for the holder of the lock."""
        leftovers = self.list(STAGING)
        for path in leftovers:
            with self._naming(path):
                self._remove(path)
        return len(leftovers)

    def _stage(self, data: bytes | memoryview) -> str:
        staged = f"{STAGING}/{secrets.token_hex(16)}"
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

    def _mode_of_new_files(self) -> int:
        """What the process's umask makes of a new file's mode: asking for the umask itself would change it for all threads."""
        path = self.root / STAGING / secrets.token_hex(16)
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        path.unlink()
        try:
            return stat.S_IMODE(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def _remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def _remove_empty_folders(self, folder: Path) -> None:
        """Remove the folder, and those above it up to that of the table, that hold nothing any more: every reader lists them."""
        while self.root not in (folder, folder.parent):
            try:
                folder.rmdir()
            except OSError:  # somebody's file lies there, or it may not be removed: a folder does no harm
                return
            self._durable.discard(folder)
            folder = folder.parent

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
            # Within the dataset, the run that made it may have been killed before it was durable.
            if folder in self._durable or self.root not in folder.parents:
                return
        except FileNotFoundError:
            self._make_folder(above)
            folder.mkdir(exist_ok=True)
        fsync_folder(above)
        self._durable.add(folder)

    def _refuse_links(self, path: str) -> None:
        if self._folder is not None and self._folder != _identity(self.root):
            raise DestinationError(
                f"{self.root} is another folder than when this run began: put the first one back there"
            )
        # As text: a path object for each folder above each file would be most of what this costs.
        place = str(self.root)
        for name in filter(None, path.split("/")):
            place = f"{place}/{name}"
            try:
                mode = os.lstat(place).st_mode
            except (FileNotFoundError, NotADirectoryError):
                return
            if stat.S_ISLNK(mode):
                raise DestinationError(f"{place} {LINK}")

    def _walk(self, folder: str) -> Iterator[Entry]:
        try:
            found = list(os.scandir(self.root / folder))
        except FileNotFoundError:
            return
        for each in found:
            path = f"{folder}/{each.name}" if folder else each.name
            if each.is_symlink():
                yield Entry(path, oddity=LINK)
            elif each.is_dir() and each.name.endswith(".parquet"):
                yield Entry(path, oddity="is a folder, where a file should be: remove it")
            elif each.is_dir():
                yield from self._walk(path)
            elif not each.is_file():
                yield Entry(path, oddity="is neither file nor folder: remove it")
            else:
                yield from _entry(path, each)

    @contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        """Turn an operating system error into one line that names the place."""
        try:
            yield
        except NotADirectoryError as exc:
            place = self.root / path
            file = next((each for each in (place, *place.parents) if each.exists() and not each.is_dir()), place)
            fix = f"{file} is a file: move it, or give another [destination] path"
            raise DestinationError(f"{place}: {exc.strerror}: {fix}") from exc
        except OSError as exc:
            raise _KINDS.get(type(exc), DestinationError)(f"{self.root / path}: {why(exc)}") from exc


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _entry(path: str, found: os.DirEntry[str]) -> Iterator[Entry]:
    """The file as listed; nothing when it is gone by now."""
    try:
        told = found.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError:
        yield Entry(path)  # reading it tells why
    else:
        version = f"{told.st_ino}-{told.st_mtime_ns}-{told.st_ctime_ns}-{told.st_size}"
        is_fresh = time.time_ns() - told.st_ctime_ns < _TICK_NS
        yield Entry(path, size_bytes=told.st_size, version=version, is_fresh=is_fresh)
