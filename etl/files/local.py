"""The files of a dataset in a folder: published durably in one step, read, listed, set aside, locked.

A file appears under its final name with all its bytes on disk, or not at all. The steps are: write a staging file,
fsync it, rename it, fsync its folder and every new folder above. Staged and quarantined files lie under ``_state``,
never beside data.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

from etl.errors import DestinationError, FileMissingError, ForeignFileError
from etl.files import lock
from etl.files.folder import fsync_folder, nearest_folder, open_at_once, require_space, why
from etl.files.interface import MOST_BYTES, Entry, Probe, listed, never_stopped, next_aside, refuse_other_things
from etl.files.names import QUARANTINE, STAGING, STATE
from etl.model import schema

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_LINK = "is a symbolic link, which a dataset must not contain"
_TICK_NS = 50_000_000
"""A file younger than this may change again and keep its time: a file system's clock stands still for milliseconds."""


class LocalFiles:
    """``Files`` on a local or mounted file system. Symbolic links below the root are refused when listed or opened."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._durable: set[Path] = set()
        self.readers = 1
        self.requests: Mapping[str, int] = {}

    def where(self, path: str = "") -> str:
        """The absolute path, for messages."""
        return str(self.root / path)

    def arrow(self) -> tuple["FileSystem", str]:
        """The machine's own file system, and the absolute path of the root."""
        from pyarrow.fs import LocalFileSystem  # noqa: PLC0415 no export needs it

        return LocalFileSystem(), str(self.root)

    def lock(
        self,
        now: datetime,
        *,
        is_stopped: Callable[[], bool] = never_stopped,  # noqa: ARG002 only a bucket waits for its lease
    ) -> AbstractContextManager[None]:
        """Hold the dataset's lock; see ``lock.exclusive``. ``is_stopped`` is not needed: nothing is waited for."""
        return lock.exclusive(self.root, now=now)

    def lock_holder(self) -> str | None:
        """Who holds the lock; see ``lock.holder``."""
        return lock.holder(self.root)

    def prepare(self) -> None:
        """Make the root and the folders of ``_state``, and prove that files can be published there.

        Raises:
            DestinationError: one of these is a symbolic link or cannot be made, or see ``examine``.
        """
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
        """Find what would stop any export here, by reading alone; without a root, in the nearest folder above it."""
        with self._naming(""):
            folder = nearest_folder(self.root)
            free_bytes = require_space(folder)
            if folder == self.root:
                tables = [folder / name for name in schema.TABLES if (folder / name).is_dir()]
                paths = [*folder.iterdir(), *(path for table in tables for path in table.iterdir())]
                refuse_other_things(self.where(), [path.relative_to(folder).as_posix() for path in paths])
        listed(self, STAGING)  # as the sweep of every export does
        return Probe(is_there=folder == self.root, free_bytes=free_bytes)

    def probe(self) -> Probe:
        """Do what every export does, in a temporary folder beside its own: lock it, and write and replace a file."""
        examined = self.examine()
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
        return examined

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
        """The whole file; ForeignFileError if it is larger than ``MOST_BYTES``, FileMissingError if there is none."""
        with self._naming(path), open(self.root / path, "rb", opener=open_at_once) as file:
            if (size_bytes := os.fstat(file.fileno()).st_size) > MOST_BYTES:
                raise ForeignFileError(f"{self.root / path} has {size_bytes:,} bytes (limit: {MOST_BYTES:,})")
            if len(data := file.read()) != size_bytes:
                raise DestinationError(f"{self.where(path)}: {len(data):,} of {size_bytes:,} bytes arrived. Run again")
            return data

    def open(self, path: str) -> BinaryIO:
        """The file for reading parts of it, all of one version: an open file outlives its replacement or removal."""
        with self._naming(path):
            return open(self.root / path, "rb", opener=open_at_once)

    def entries(self, folder: str) -> tuple[Entry, ...]:
        """Everything below the folder but folders, sorted by path; empty if it does not exist."""
        with self._naming(folder):
            if (self.root / folder).is_symlink():
                return (Entry(folder, oddity=_LINK),)
            return tuple(sorted(self._walk(folder), key=lambda entry: entry.path))

    def set_aside(self, path: str) -> str:
        """Move an unreadable file to the quarantine, durably; returns its new path."""
        aside = next_aside([entry.path for entry in self.entries(QUARANTINE)], path)
        with self._naming(path):
            self._make_folder(self.root / QUARANTINE)
            (self.root / path).replace(self.root / aside)
            fsync_folder(self.root / QUARANTINE)
            fsync_folder((self.root / path).parent)
        return aside

    def sweep_staging(self) -> int:
        """Remove what killed runs left in staging; returns how many files. Only the holder knows that they are dead."""
        leftovers = listed(self, STAGING)
        for entry in leftovers:
            with self._naming(entry.path):
                (self.root / entry.path).unlink()
        return len(leftovers)

    def _stage(self, data: bytes | memoryview) -> Path:
        """Write the data durably to a new file in staging; if that fails, the file is removed."""
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
        """The entries below the folder, in any order; links are never followed."""
        try:
            children = list(os.scandir(self.root / folder))
        except FileNotFoundError:
            return
        for child in children:
            path = f"{folder}/{child.name}" if folder else child.name
            if child.name.startswith("."):
                continue
            if child.is_symlink():
                yield Entry(path, oddity=_LINK)
            elif child.is_dir() and child.name.endswith(".parquet"):
                yield Entry(path, oddity="is a folder, but should be a file. Move it out of the dataset")
            elif child.is_dir():
                yield from self._walk(path)
            elif not child.is_file():
                yield Entry(path, oddity="is neither a file nor a folder. Move it out of the dataset")
            else:
                with suppress(FileNotFoundError):  # it may be gone by now
                    status = child.stat(follow_symlinks=False)
                    version = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_size}"
                    is_fresh = time.time_ns() - status.st_ctime_ns < _TICK_NS
                    yield Entry(path, size_bytes=status.st_size, version=version, is_fresh=is_fresh)

    @contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        """Turn an operating system error into a DestinationError of one line that names the place and the fix."""
        try:
            yield
        except OSError as exc:
            kind = FileMissingError if isinstance(exc, FileNotFoundError) else DestinationError
            raise kind(f"{self.root / path}: {why(exc)}") from exc
