"""What every storage of a dataset does. ``Files`` is all that the rest of the exporter knows of one; it names no implementation."""

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
"""No file of a dataset is larger: see ``load/parquet``."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A listed file, or something that is no file: then ``oddity`` says what it is and what to do about it.

    ``version`` changes whenever the file is written or replaced; it is empty where the storage does not say. ``is_fresh``: it was
    changed so lately that another change might leave the version as it is.
    """

    path: str
    size_bytes: int = 0
    version: str = ""
    oddity: str = ""
    is_fresh: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """A storage that would take an export: whether its root exists already, and its free bytes, None where it does not say."""

    is_there: bool
    free_bytes: int | None


def never_stopped() -> bool:
    """What ``is_stopped`` says by default."""
    return False


class Files(Protocol):
    """The files of one dataset, by paths from its root, with ``/``. Whatever fails is a DestinationError that names the place."""

    readers: int
    """How many files are best read at once."""

    @property
    def requests(self) -> Mapping[str, int]:
        """What was asked of a storage that counts its requests, by kind; nothing for a folder."""

    def where(self, path: str = "") -> str:
        """The path in full, for messages; that of the root by default."""

    def prepare(self) -> None:
        """Make the dataset's root if needed, and prove that files can be published there."""

    def examine(self) -> Probe:
        """Find what would stop anybody's export here, as far as reading tells. Writes nothing."""

    def probe(self) -> Probe:
        """Do here what every export does, and leave no trace: what would stop one is an error."""

    def lock(
        self, now: datetime, *, is_stopped: Callable[[], bool] = never_stopped, note: str = ""
    ) -> AbstractContextManager[None]:
        """Be the only writer inside the ``with`` block; LockHeldError when there is another one. ``prepare`` comes first.

        ``note`` is added to the words that name the holder to others.
        Where it takes time to find out whether there is another one, it counts as one once ``is_stopped``.
        """

    def lock_holder(self) -> str | None:
        """Who holds the lock, in words; None when nobody does, as far as can be told. Takes no lock itself."""

    def entries(self, folder: str) -> tuple[Entry, ...]:
        """Everything below the folder that is not a folder, sorted by path; nothing when it does not exist.

        Names that begin with a dot do not matter, whatever they are: file managers and file systems leave them.
        """

    def read(self, path: str) -> bytes:
        """The whole file; FileMissingError when there is none, ForeignFileError when it is larger than ``MOST_BYTES``."""

    def open(self, path: str) -> BinaryIO:
        """The file, to read parts of it, all of one version; FileMissingError when there is none."""

    def arrow(self) -> tuple["FileSystem", str]:
        """A pyarrow file system, and the root in it, for engines that read by themselves."""

    def publish(self, path: str, data: bytes | memoryview) -> None:
        """Make ``data`` the whole content of the file, durably and in one step."""

    def set_aside(self, path: str) -> str:
        """Move an unreadable file to the quarantine; returns its new path."""

    def sweep_staging(self) -> int:
        """Remove what killed runs left unfinished; returns how many files. Only for the holder of the lock."""


_OURS = re.compile(rf"{STATE}(/|$)|({'|'.join(schema.TABLES)})/(run_test|month)=")


def refuse_other_things(where: str, paths: Iterable[str]) -> None:
    """Refuse a place that has something in it and no dataset: tables do not belong into a checkout or a home.

    These are the ``paths`` in it, of which at most two levels count. A project may have a folder ``runs`` or ``evals``, too: only
    the partitions in it make it a table.
    """
    found = sorted(path for path in paths if not path.startswith(".") and path != "lost+found")
    if found and not any(_OURS.match(path) for path in found):
        name = found[0].partition("/")[0]
        raise DestinationError(
            f"{where} is not empty ({name}) and holds no dataset: set [destination] path to a new or empty folder"
        )


def listed(files: Files, folder: str) -> tuple[Entry, ...]:
    """What ``files.entries`` gives, when all of it are files; otherwise a DestinationError."""
    entries = files.entries(folder)
    for entry in entries:
        if entry.oddity:
            raise DestinationError(f"{files.where(entry.path)} {entry.oddity}")
    return entries


def data_files(files: Files, folder: str) -> tuple[Entry, ...]:
    """Those below the folder that readers of ``*.parquet`` take; any other one is nobody's. Errors as for ``listed``."""
    return tuple(entry for entry in listed(files, folder) if entry.path.lower().endswith(".parquet"))


def version_of(files: Files, path: str) -> str:
    """The version of the file; empty when there is none."""
    return next((each.version for each in files.entries(path.rpartition("/")[0]) if each.path == path), "")


def read_each(files: Files, read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What ``read`` makes of each item, in their order; as many at once as the storage is best read."""
    if files.readers == 1:
        yield from map(read, items)
        return
    pool = ThreadPoolExecutor(files.readers)
    try:
        yield from pool.map(read, items)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupted reader need not wait for a store that hangs


def next_aside(quarantined: Iterable[str], path: str) -> str:
    """Where to set the file aside, beside what is there already."""
    taken, dashed = {*quarantined}, path.replace("/", "-")
    return next(name for number in count(1) if (name := f"{QUARANTINE}/{number:04}-{dashed}") not in taken)
