"""Where the bytes of a dataset go: what every storage does, and the table from URL scheme to storage.

``Files`` is all that the rest of the exporter knows of a storage. A new kind of destination is added here alone.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol

from etl.errors import ConfigurationError, DestinationError
from etl.load.layout import is_data

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
    """A storage to which an export could write, tried at ``where``; ``is_there``: the dataset's root exists already.

    ``free_bytes`` is None where the storage does not say.
    """

    where: str
    is_there: bool
    free_bytes: int | None


class Files(Protocol):
    """The files of one dataset. Paths are relative to its root, with ``/`` between parts.

    Whatever fails is a DestinationError: one line that names the place.
    """

    def where(self, path: str = "") -> str:
        """The path in full, for messages; that of the root by default."""

    def prepare(self) -> None:
        """Make the dataset's root if needed, and prove that files can be published there."""

    def probe(self) -> Probe:
        """Prove that an export could write here, and leave no trace."""

    def lock(self, now: datetime) -> AbstractContextManager[None]:
        """Be the only writer inside the ``with`` block; LockHeldError when there is another one. ``prepare`` comes first."""

    def lock_holder(self) -> str | None:
        """Who holds the lock, in words; None when nobody does, as far as can be told. Takes no lock itself."""

    def has(self, path: str) -> bool:
        """Whether there is a file or folder of this path."""

    def list(self, folder: str) -> list[str]:
        """Paths of all files below the folder, sorted; an error when anything else lies there."""

    def entries(self, folder: str) -> tuple[Entry, ...]:
        """Everything below the folder that is not a folder, sorted by path; nothing when it does not exist."""

    def read(self, path: str, *, most_bytes: int = MOST_BYTES) -> bytes:
        """The whole file; FileMissingError when there is none, ForeignFileError when it is no file or has more bytes."""

    def open(self, path: str) -> BinaryIO:
        """The file, to read parts of it, all of one version; FileMissingError when there is none."""

    def publish(self, path: str, data: bytes | memoryview) -> None:
        """Make ``data`` the whole content of the file, durably and in one step."""

    def remove(self, path: str) -> None:
        """Remove a file, durably."""

    def set_aside(self, path: str) -> str:
        """Move an unreadable file to the quarantine; returns its new path."""

    def sweep_staging(self) -> int:
        """Remove what killed runs left unfinished; returns how many files. Only for the holder of the lock."""


def listed(files: Files, folder: str) -> tuple[Entry, ...]:
    """What ``files.entries`` gives, when all of it are files.

    Raises:
        DestinationError: something there is none, or a folder cannot be listed.
    """
    entries = files.entries(folder)
    for entry in entries:
        if entry.oddity:
            raise DestinationError(f"{files.where(entry.path)} {entry.oddity}")
    return entries


def data_files(files: Files, folder: str) -> tuple[Entry, ...]:
    """Those files below the folder that are data for readers.

    Raises:
        DestinationError: as ``listed``.
    """
    return tuple(entry for entry in listed(files, folder) if is_data(entry.path))


def open_files(location: str) -> Files:
    """The storage of the dataset at this location, a folder's path; ``~`` is the user's home. Reads and writes nothing yet.

    Raises:
        ConfigurationError: there is no storage for this kind of location.
    """
    scheme, separator, _ = location.partition("://")
    storage = _STORAGES.get(scheme if separator else "")
    if storage is None:
        raise ConfigurationError(f"buckets are not supported yet: give a folder, got {location!r}")
    return storage(location)


def _folder(location: str) -> Files:
    from pathlib import Path  # noqa: PLC0415 each storage is imported on use

    from etl.load.files.local import LocalFiles  # noqa: PLC0415 as above

    try:
        folder = Path(location).expanduser()
    except RuntimeError:
        raise ConfigurationError(f"{location}: this machine knows no such user's home: give the whole path") from None
    return LocalFiles(folder)


_STORAGES: Mapping[str, Callable[[str], Files]] = {"": _folder}
"""By URL scheme; a folder has none."""
