"""What every storage of a dataset does, whether it is a folder or a bucket.

``Files`` is all that the rest of the exporter knows of a storage. This module names no implementation: ``open`` does.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from etl.errors import DestinationError
from etl.files.names import QUARANTINE, STATE
from etl.model import schema

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

T = TypeVar("T")
R = TypeVar("R")

MOST_BYTES = 8 << 30
"""No file of a dataset may be larger; ``dataset/parquet`` writes none that takes more memory than this once decoded."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a storage lists: a file, or something in a file's place."""

    path: str
    """Relative to the dataset's root, with ``/``."""
    size_bytes: int = 0
    """The size of the file; 0 for an oddity."""
    version: str = ""
    """Changes whenever the file is written or replaced; empty where the storage does not say."""
    oddity: str = ""
    """Empty for a file. Otherwise what this is instead (a link, a pipe, a folder), and what to do about it."""
    is_fresh: bool = False
    """Whether the file changed so lately that another change might leave ``version`` as it is."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found out about a storage that would take an export."""

    is_there: bool
    """Whether the dataset's root exists already; in a bucket, whether anything lies below it."""
    free_bytes: int | None
    """How many bytes are free; None where the storage does not say."""


def never_stopped() -> bool:
    """The default of ``is_stopped``: the run was not told to stop."""
    return False


class Files(Protocol):
    """The files of one dataset. Paths are relative to its root, with ``/``; the empty path is the root itself.

    Anybody may read and list, at any time. Only the holder of the lock changes data; a note for people or monitors,
    such as the record of a run that could not begin, may be published without it. What fails is a DestinationError that
    names the place, of which FileMissingError and ForeignFileError are kinds; only ``lock`` may raise a LockHeldError
    instead.
    """

    readers: int
    """How many files are best read at the same time: 1 in a folder, more where each answer takes a while."""

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests were sent to the store so far, by kind (get, put, …); empty for a folder. Never raises."""

    def where(self, path: str = "") -> str:
        """The full path or URL, for messages. Sends nothing, may be called at any time and never raises."""

    def prepare(self) -> None:
        """Make the dataset's root if it is missing, and prove that files can be published in it. Comes before ``lock``.

        A bucket has nothing to prepare: there ``lock`` proves the same.

        Raises:
            DestinationError: the root cannot be made or written, is short of space, or holds other things and no
                dataset.
        """

    def examine(self) -> Probe:
        """Find what would stop any export here, as far as reading tells. Writes nothing; the root may be missing.

        Raises:
            DestinationError: an export could not begin here.
        """

    def probe(self) -> Probe:
        """Do once what every export does (write, replace, remove, …), and leave no trace. The root may be missing.

        Raises:
            DestinationError: the first step that failed; an export would fail there, too.
        """

    def lock(self, now: datetime, *, is_stopped: Callable[[], bool] = never_stopped) -> AbstractContextManager[None]:
        """Be the only writer inside the ``with`` block. Call ``prepare`` first.

        Others are told who holds the lock since ``now``. Some storages need time to find out whether another writer
        lives: when ``is_stopped`` turns true meanwhile, the lock counts as held.

        Raises:
            LockHeldError: another export holds the lock; nothing was changed.
            DestinationError: the lock cannot be taken for another reason.
        """

    def lock_holder(self) -> str | None:
        """Who holds the lock, in words; None if nobody does, as far as can be told. Never takes the lock.

        Raises:
            DestinationError: the store gave no answer. A lock file in a folder that cannot be read counts as held by
                nobody.
        """

    def entries(self, folder: str) -> tuple[Entry, ...]:
        """Everything at any depth below the folder but folders, sorted by path; empty if the folder does not exist.

        Names that begin with a dot are left out, whatever they are: file managers and file systems make them.

        Raises:
            DestinationError: the folder cannot be listed. Something that is no file raises nothing: see
                ``Entry.oddity``.
        """

    def read(self, path: str) -> bytes:
        """The whole file.

        Raises:
            FileMissingError: there is no such file.
            ForeignFileError: the file is larger than ``MOST_BYTES``.
            DestinationError: the file cannot be read, or not all of its bytes arrived.
        """

    def open(self, path: str) -> BinaryIO:
        """The file for reading parts of it; they are all of one version, even if the file is replaced meanwhile.

        Raises:
            FileMissingError: there is no such file.
            DestinationError: the file cannot be opened.
        """

    def arrow(self) -> tuple["FileSystem", str]:
        """A pyarrow file system and the dataset's root in it, for engines that read by themselves.

        Nothing is opened yet: what fails later is the engine's own error.
        """

    def publish(self, path: str, data: bytes | memoryview) -> None:
        """Make ``data`` the whole content of the file, durably and in one step. For data, the lock must be held.

        Raises:
            DestinationError: it failed. The file is what it was before, or ``data`` as a whole; never a part of it.
        """

    def set_aside(self, path: str) -> str:
        """Move an unreadable file to the quarantine; returns its new path. Only for the holder of the lock.

        Raises:
            DestinationError: it could not be moved, or another program has changed it since it was read.
        """

    def sweep_staging(self) -> int:
        """Remove what killed runs left unfinished; returns how many files. Only for the holder of the lock.

        Raises:
            DestinationError: a file cannot be removed.
        """


_OURS = re.compile(rf"{STATE}(/|$)|({'|'.join(schema.TABLES)})/(run_test|month)=")
"""Paths that only a dataset has. Any project may have a folder ``runs``; only partitions in it make it a table."""


def refuse_other_things(where: str, paths: Iterable[str]) -> None:
    """Refuse a place that has something in it and no dataset: tables do not belong in a checkout or a home.

    ``paths`` are what lies there, relative to it; their first two levels suffice.

    Raises:
        DestinationError: there is something, and none of it is a dataset's.
    """
    occupied = sorted(path for path in paths if not path.startswith(".") and path != "lost+found")
    if occupied and not any(_OURS.match(path) for path in occupied):
        name = occupied[0].partition("/")[0]
        raise DestinationError(f"{where} holds {name}, but no dataset. Set [destination] path to a new or empty folder")


def listed(files: Files, folder: str) -> tuple[Entry, ...]:
    """The entries below the folder, all of which are files.

    Raises:
        DestinationError: one of them is not, or the folder cannot be listed.
    """
    entries = files.entries(folder)
    for entry in entries:
        if entry.oddity:
            raise DestinationError(f"{files.where(entry.path)} {entry.oddity}")
    return entries


def data_files(files: Files, folder: str) -> tuple[Entry, ...]:
    """The files below the folder that readers of ``*.parquet`` take for data. Errors as for ``listed``."""
    return tuple(entry for entry in listed(files, folder) if entry.path.lower().endswith(".parquet"))


def version_of(files: Files, path: str) -> str:
    """The version of the file; empty if there is none, or the storage does not say."""
    entries = files.entries(path.rpartition("/")[0])
    return next((entry.version for entry in entries if entry.path == path), "")


def read_each(files: Files, read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The result of ``read`` for each item, in their order; ``files.readers`` of them are read at the same time."""
    if files.readers == 1:
        yield from map(read, items)
        return
    pool = ThreadPoolExecutor(files.readers)
    try:
        yield from pool.map(read, items)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupted reader need not wait for a store that hangs


def next_aside(quarantined: Iterable[str], path: str) -> str:
    """Where in the quarantine to move the file; none of the ``quarantined`` paths has this name."""
    taken = {*quarantined}
    candidates = (f"{QUARANTINE}/{number:04}-{path.replace('/', '-')}" for number in count(1))
    return next(candidate for candidate in candidates if candidate not in taken)
