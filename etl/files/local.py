"""The files of a dataset in a folder: published durably in one step, read, listed, set aside, locked.

A file appears under its final name with all its bytes on disk, or not at all: staging file, fsync, rename, fsync of the
folder and of every new parent. Staging files and quarantined files lie under ``_state``, never beside data.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

from etl.errors import DestinationError, FileMissingError, ForeignFileError
from etl.files import lock
from etl.files.folder import check_access, fsync_folder, nearest_folder, open_at_once, require_space, why
from etl.files.interface import MOST_BYTES, Entry, Probe, listed, never_stopped, next_aside, refuse_other_things
from etl.files.names import QUARANTINE, STAGING, STATE
from etl.model import schema

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_LINK = "is a symbolic link: a dataset must not contain any"
_TICK_NS = 50_000_000  # the clock of a file system may stand still for some milliseconds


class LocalFiles:
    """``Files`` on a local or mounted file system. A symbolic link below the root is refused where it is listed or opened."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._durable: set[Path] = set()
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
    def lock(self, now: datetime, *, is_stopped: Callable[[], bool] = never_stopped, note: str = "") -> Iterator[None]:  # noqa: ARG002
        """Hold the dataset's lock; see ``lock.exclusive``. Who holds it is known at once."""
        with lock.exclusive(self.root, now=now, note=note):
            yield

    def lock_holder(self) -> str | None:
        """Who holds the lock; see ``lock.holder``."""
        return lock.holder(self.root)

    def prepare(self) -> None:
        """Make the root and the state folder, and prove that files can be published there."""
        with self._naming(""):
            self._make_folder(self.root)
        self.examine()
        with self._naming(STAGING):
            for folder in (STATE, STAGING, QUARANTINE):
                if (self.root / folder).is_symlink():
                    raise DestinationError(f"{self.root / folder} {_LINK}")
            self._make_folder(self.root / STAGING)
            self._stage(b"probe").unlink()

    def examine(self) -> Probe:
        """Find what would stop anybody's export here; before the folder exists, in the nearest one above it."""
        with self._naming(""):
            folder = nearest_folder(self.root)
            free_bytes = require_space(folder)
            if folder == self.root:
                tables = [folder / name for name in schema.TABLES if (folder / name).is_dir()]
                found = [*folder.iterdir(), *(each for table in tables for each in table.iterdir())]
                refuse_other_things(self.where(), [path.relative_to(folder).as_posix() for path in found])
        listed(self, STAGING)  # as the sweep of every export does
        return Probe(is_there=folder == self.root, free_bytes=free_bytes)

    def probe(self) -> Probe:
        """Do what every export does, in a folder that is removed again: lock it, and write and replace a file."""
        found = self.examine()
        with self._naming(""):
            above = nearest_folder(self.root / STAGING)
            try:
                with TemporaryDirectory(prefix=".check-", dir=above) as name:
                    trial = LocalFiles(Path(name))
                    trial.prepare()
                    with trial.lock(datetime.now(UTC)):
                        for data in (b"first", b"second"):
                            trial.publish("probe", data)
            except (DestinationError, OSError) as exc:
                reason = why(exc) if isinstance(exc, OSError) else str(exc).partition(": ")[2]
                raise DestinationError(f"{above}: {reason}") from exc
            if found.is_there:
                check_access(self.root)
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
                self._make_folder(target.parent)
                staged.replace(target)
            except OSError:
                staged.unlink()
                raise
            fsync_folder(target.parent)

    def read(self, path: str) -> bytes:
        """The file's bytes; ForeignFileError when they are more than ``MOST_BYTES``."""
        with self._naming(path), open(self.root / path, "rb", opener=open_at_once) as file:
            if (size_bytes := os.fstat(file.fileno()).st_size) > MOST_BYTES:
                raise ForeignFileError(f"{self.root / path}: too large ({size_bytes:,} bytes, limit {MOST_BYTES:,})")
            if len(data := file.read()) != size_bytes:
                raise DestinationError(f"{self.where(path)}: {len(data):,} of {size_bytes:,} bytes arrived: run again")
            return data

    def open(self, path: str) -> BinaryIO:
        """The file, to read parts of it: they stay those of one version, even if the file is replaced or removed meanwhile."""
        with self._naming(path):
            return open(self.root / path, "rb", opener=open_at_once)

    def entries(self, folder: str) -> tuple[Entry, ...]:
        """Everything below the folder that is not a folder, sorted by path; nothing when it does not exist."""
        with self._naming(folder):
            if (self.root / folder).is_symlink():
                return (Entry(folder, oddity=_LINK),)
            return tuple(sorted(self._walk(folder), key=lambda entry: entry.path))

    def set_aside(self, path: str) -> str:
        """Move a file that cannot be read to the quarantine; returns its new path."""
        aside = next_aside([entry.path for entry in self.entries(QUARANTINE)], path)
        with self._naming(path):
            self._make_folder(self.root / QUARANTINE)
            (self.root / path).replace(self.root / aside)
            fsync_folder(self.root / QUARANTINE)
            fsync_folder((self.root / path).parent)
        return aside

    def sweep_staging(self) -> int:
        """Remove what killed runs left in staging; returns how many files. Only for the holder of the lock."""
        leftovers = listed(self, STAGING)
        for entry in leftovers:
            with self._naming(entry.path):
                (self.root / entry.path).unlink()
        return len(leftovers)

    def _stage(self, data: bytes | memoryview) -> Path:
        staged = self.root / STAGING / secrets.token_hex(16)
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            staged.unlink()
            raise
        return staged

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

    def _walk(self, folder: str) -> Iterator[Entry]:
        try:
            found = list(os.scandir(self.root / folder))
        except FileNotFoundError:
            return
        for each in found:
            path = f"{folder}/{each.name}" if folder else each.name
            if each.name.startswith("."):
                continue
            if each.is_symlink():
                yield Entry(path, oddity=_LINK)
            elif each.is_dir() and each.name.endswith(".parquet"):
                yield Entry(path, oddity="is a folder, where a file should be: move it out of the dataset")
            elif each.is_dir():
                yield from self._walk(path)
            elif not each.is_file():
                yield Entry(path, oddity="is neither a file nor a folder: move it out of the dataset")
            else:
                with suppress(FileNotFoundError):  # it is gone by now
                    told = each.stat(follow_symlinks=False)
                    version = f"{told.st_ino}-{told.st_mtime_ns}-{told.st_ctime_ns}-{told.st_size}"
                    is_fresh = time.time_ns() - told.st_ctime_ns < _TICK_NS
                    yield Entry(path, size_bytes=told.st_size, version=version, is_fresh=is_fresh)

    @contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        """Turn an operating system error into one line that names the place."""
        try:
            yield
        except OSError as exc:
            kind = FileMissingError if isinstance(exc, FileNotFoundError) else DestinationError
            raise kind(f"{self.root / path}: {why(exc)}") from exc
