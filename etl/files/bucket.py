"""The files of a dataset in a bucket: each is one object, replaced in one step, and only if it is what this run saw.

The bucket is listed once, when the lock is taken. From then on the list is kept up to date with what this run writes:
nobody else may write, and an object that differs from the list is an error.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO

from etl.errors import DestinationError, FileMissingError, ForeignFileError
from etl.files import lease
from etl.files.interface import MOST_BYTES, Entry, Probe, never_stopped, next_aside, refuse_other_things
from etl.files.names import IDENTITY, QUARANTINE, STAGING
from etl.files.objects import Objects, StoredObject
from etl.files.store import open_filesystem
from etl.model.locations import Options

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_READERS = 8
"""How many objects are read at once: an answer takes 20 to 50 ms, and each part up to 16 MiB of memory meanwhile."""
_KEPT_BYTES = 64 << 20
"""How much of what was read or written last stays in memory: a part is compared, merged and indexed for one request."""


class BucketFiles:
    """``Files`` in an object store that honors conditional writes. May be used by several threads that read."""

    def __init__(self, url: str, options: Options) -> None:
        self._objects = Objects(url, options)
        self._options = options
        self.requests: Mapping[str, int] = self._objects.requests
        self.readers = _READERS
        # The lease, and the objects as this run knows them, by path: both None unless the lock is held.
        self._lease: lease.Lease | None = None
        self._listed: dict[str, StoredObject] | None = None
        self._kept: dict[str, bytes] = {}
        self._noting = Lock()

    def where(self, path: str = "") -> str:
        """The full URL, for messages."""
        return f"{self._objects.url}/{path}" if path else self._objects.url

    def arrow(self) -> tuple["FileSystem", str]:
        """The bucket through fsspec, and the dataset's folder in it."""
        from pyarrow.fs import FSSpecHandler, PyFileSystem  # noqa: PLC0415 no export needs it

        filesystem, root = open_filesystem(self._objects.url, self._options)
        return PyFileSystem(FSSpecHandler(filesystem)), root

    def prepare(self) -> None:
        """Do nothing: a bucket has no folders. ``lock`` refuses a place of other things, and proves the rest."""

    def examine(self) -> Probe:
        """Check that there is either a dataset or nothing."""
        with suppress(FileMissingError):
            self._objects.get(IDENTITY, most_bytes=0)  # unlike a HEAD, a GET that is refused says why
            return Probe(is_there=True, free_bytes=None)
        paths = [stored.path for stored in self._below("")]
        refuse_other_things(self.where(), paths)
        return Probe(is_there=bool(paths), free_bytes=None)

    def probe(self) -> Probe:
        """Write, read, replace and remove an object of its own, and prove that the store honors conditions."""
        examined = self.examine()
        lease.prove(self._objects, f"{STAGING}/{secrets.token_hex(16)}")
        return examined

    @contextmanager
    def lock(self, now: datetime, *, is_stopped: Callable[[], bool] = never_stopped) -> Iterator[None]:
        """Hold the dataset's lease, see ``lease.hold``, and list the bucket once."""
        self._objects.be_patient(is_stopped)
        self.examine()
        with lease.hold(self._objects, now, is_stopped) as held:
            self._lease = held
            self._listed = {stored.path: stored for stored in self._objects.list("")}
            try:
                yield
            finally:
                self._lease = self._listed = None
                self._kept.clear()

    def lock_holder(self) -> str | None:
        """Who holds the lease; see ``lease.holder``."""
        return lease.holder(self._objects)

    def entries(self, folder: str) -> tuple[Entry, ...]:
        """The objects below the folder, sorted by path; their versions are ETags."""
        below = sorted(self._below(folder), key=lambda stored: stored.path)
        return tuple(Entry(stored.path, size_bytes=stored.size_bytes, version=stored.version.e_tag) for stored in below)

    def read(self, path: str) -> bytes:
        """The whole object.

        Raises:
            FileMissingError: there is no such object.
            ForeignFileError: the object is larger than ``MOST_BYTES``.
            DestinationError: the object is missing although this run has seen it, or cannot be read.
        """
        if self._listed is not None and path not in self._listed:
            raise FileMissingError(f"there is no object {self.where(path)}")
        if kept := self._kept.get(path):
            return kept
        try:
            stored, data = self._objects.get(path, most_bytes=MOST_BYTES)
        except FileMissingError as exc:
            if self._listed is None:
                raise
            raise DestinationError(  # else the rows that are there would be written over
                f"{self.where(path)} is missing, although this run has seen it. Another program removed the object, or "
                "the store gave a wrong answer. Run again"
            ) from exc
        if stored.size_bytes > MOST_BYTES:
            raise ForeignFileError(f"{self.where(path)} has {stored.size_bytes:,} bytes (limit: {MOST_BYTES:,})")
        self._note(stored, data)
        return data

    def open(self, path: str) -> BinaryIO:
        """The object, read whole into memory: parts are small, and each request is paid for."""
        return BytesIO(self.read(path))

    def publish(self, path: str, data: bytes | memoryview) -> None:
        """Make ``data`` the whole object, provided that the object there is what this run has seen.

        Raises:
            DestinationError: the lease is lost, another program changed the object, or the store failed. The object is
                what it was before, or ``data`` as a whole.
        """
        self._require_lease()
        seen = self._seen(path)
        self._kept.pop(path, None)
        version = self._objects.put(path, data, seen.version if seen else None)
        self._note(StoredObject(path, len(data), version, datetime.now(UTC)), bytes(data))

    def set_aside(self, path: str) -> str:
        """Move an unreadable object to the quarantine by copying and deleting it; returns its new path."""
        aside = next_aside([stored.path for stored in self._below(QUARANTINE)], path)
        seen = self._seen(path)
        self._require_lease()
        self._objects.copy(path, aside)
        self._note(self._objects.head(aside), b"")
        if seen is None or self._objects.head(path).version.e_tag != seen.version.e_tag:
            raise DestinationError(f"another program changed {self.where(path)} after it was read. Run again")
        self._objects.delete(path)
        self._kept.pop(path, None)
        if self._listed is not None:
            del self._listed[path]
        return aside

    def sweep_staging(self) -> int:
        """Do nothing: a killed run leaves no object unfinished."""
        return 0

    def _require_lease(self) -> None:
        """Return if this run may write: it holds the lease, or writes a note without it."""
        if self._lease is not None:
            self._lease.require()

    def _seen(self, path: str) -> StoredObject | None:
        """The object as this run knows it, or as it is now if the lock is not held; None if there is none."""
        if self._listed is not None:
            return self._listed.get(path)
        try:
            return self._objects.head(path)
        except FileMissingError:
            return None

    def _note(self, seen: StoredObject, data: bytes) -> None:
        """Remember the object, and its content as the newest of those that are kept in memory."""
        if self._listed is None:
            return
        with self._noting:
            self._listed[seen.path] = seen
            self._kept.pop(seen.path, None)
            self._kept[seen.path] = data
            while sum(map(len, self._kept.values())) > _KEPT_BYTES:
                del self._kept[next(iter(self._kept))]

    def _below(self, folder: str) -> list[StoredObject]:
        """The objects below the folder, from the list while the lock is held."""
        if self._listed is None:
            return self._objects.list(folder)
        start = f"{folder}/" if folder else ""
        # Other threads may add to the list meanwhile.
        return [stored for path, stored in list(self._listed.items()) if path.startswith(start)]
