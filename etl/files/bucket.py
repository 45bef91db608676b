"""The files of a dataset in a bucket: each is one object, replaced in one step and only if it is what this run has seen.

While the lock is held, the bucket is listed once; what this run writes is kept in that list, and nobody else may write.
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
from etl.files.objects import Found, Objects
from etl.files.store import open_filesystem
from etl.model.locations import Options

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_READERS = 8
"""An answer takes 20 to 50 ms, and a part up to 16 MiB of memory for as long as it is read."""
_KEPT_BYTES = 64 << 20
"""Of what a run read or wrote last. A changed part is needed to compare, to merge and to index, and each request is paid for."""


class BucketFiles:
    """``Files`` in an object store that honors conditional writes."""

    def __init__(self, url: str, options: Options) -> None:
        self._objects = Objects(url, options)
        self._options = options
        self.requests: Mapping[str, int] = self._objects.requests
        self.readers = _READERS
        self._lease: lease.Lease | None = None
        self._listed: dict[str, Found] | None = None
        self._kept: dict[str, bytes] = {}
        self._noting = Lock()

    def where(self, path: str = "") -> str:
        """The whole URL, for messages."""
        return f"{self._objects.url}/{path}" if path else self._objects.url

    def arrow(self) -> tuple["FileSystem", str]:
        """The bucket through fsspec."""
        from pyarrow.fs import FSSpecHandler, PyFileSystem  # noqa: PLC0415 no export needs it

        filesystem, root = open_filesystem(self._objects.url, self._options)
        return PyFileSystem(FSSpecHandler(filesystem)), root

    def prepare(self) -> None:
        """Nothing: a bucket has no folders. The lock refuses a place of other things, and proves that objects can be replaced."""

    def examine(self) -> Probe:
        """Find out whether a dataset is there, or else that nothing is."""
        with suppress(FileMissingError):
            self._objects.get(IDENTITY, most_bytes=0)  # unlike a HEAD, one that is refused says why
            return Probe(is_there=True, free_bytes=None)
        paths = [each.path for each in self._below("")]
        refuse_other_things(self.where(), paths)
        return Probe(is_there=bool(paths), free_bytes=None)

    def probe(self) -> Probe:
        """Write, read, replace and remove an object of its own, and fail to replace what it has not seen."""
        found = self.examine()
        lease.prove(self._objects, f"{STAGING}/{secrets.token_hex(16)}")
        return found

    @contextmanager
    def lock(self, now: datetime, *, is_stopped: Callable[[], bool] = never_stopped, note: str = "") -> Iterator[None]:
        """Hold the dataset's lease; see ``lease.hold``."""
        self._objects.be_patient(is_stopped)
        self.examine()
        with lease.hold(self._objects, now, is_stopped, note) as held:
            self._lease, self._listed = held, {each.path: each for each in self._objects.list("")}
            try:
                yield
            finally:
                self._lease = self._listed = None
                self._kept.clear()

    def lock_holder(self) -> str | None:
        """Who holds the lease; see ``lease.holder``."""
        return lease.holder(self._objects)

    def entries(self, folder: str) -> tuple[Entry, ...]:
        """Everything below the folder, sorted by path."""
        below = sorted(self._below(folder), key=lambda each: each.path)
        return tuple(Entry(each.path, size_bytes=each.size_bytes, version=each.version.e_tag) for each in below)

    def read(self, path: str) -> bytes:
        """The whole object; one that is missing although this run has seen it is a DestinationError, and no FileMissingError."""
        if self._listed is not None and path not in self._listed:
            raise FileMissingError(f"{self.where(path)}: no such object")
        if kept := self._kept.get(path):
            return kept
        try:
            found, data = self._objects.get(path, most_bytes=MOST_BYTES)
        except FileMissingError as exc:
            if self._listed is None:
                raise
            raise DestinationError(  # else the rows that are there would be written over
                f"{self.where(path)}: missing, although this run has seen it: another program removed it, or the store gave "
                "a wrong answer; run again"
            ) from exc
        if found.size_bytes > MOST_BYTES:
            raise ForeignFileError(f"{self.where(path)}: too large ({found.size_bytes:,} bytes, limit {MOST_BYTES:,})")
        self._note(found, data)
        return data

    def open(self, path: str) -> BinaryIO:
        """The object, read whole: parts are small, and each request is paid for."""
        return BytesIO(self.read(path))

    def publish(self, path: str, data: bytes | memoryview) -> None:
        """Make ``data`` the whole object if it is what this run has seen; when that failed, it is the older one or ``data``."""
        self._require_lease()
        seen = self._seen(path)
        self._kept.pop(path, None)
        version = self._objects.put(path, data, seen.version if seen else None)
        self._note(Found(path, len(data), version, datetime.now(UTC)), bytes(data))

    def set_aside(self, path: str) -> str:
        """Move an unreadable object to the quarantine; returns its new path."""
        aside, seen = next_aside([each.path for each in self._below(QUARANTINE)], path), self._seen(path)
        self._require_lease()
        self._objects.copy(path, aside)
        self._note(self._objects.head(aside), b"")
        if seen is None or self._objects.head(path).version.e_tag != seen.version.e_tag:
            raise DestinationError(f"{self.where(path)}: changed by another program since it was read: run again")
        self._objects.delete(path)
        self._kept.pop(path, None)
        if self._listed is not None:
            del self._listed[path]
        return aside

    def sweep_staging(self) -> int:
        """Nothing: a run leaves nothing unfinished."""
        return 0

    def _require_lease(self) -> None:
        if self._lease is not None:
            self._lease.require()

    def _seen(self, path: str) -> Found | None:
        """The object as this run knows it; without the lock, as it is now."""
        if self._listed is not None:
            return self._listed.get(path)
        try:
            return self._objects.head(path)
        except FileMissingError:
            return None

    def _note(self, found: Found, data: bytes) -> None:
        if self._listed is None:
            return
        with self._noting:
            self._listed[found.path] = found
            self._kept.pop(found.path, None)
            self._kept[found.path] = data
            while sum(map(len, self._kept.values())) > _KEPT_BYTES:
                del self._kept[next(iter(self._kept))]

    def _below(self, folder: str) -> Iterator[Found]:
        if self._listed is None:
            yield from self._objects.list(folder)
        else:
            start = f"{folder}/" if folder else ""
            yield from [each for path, each in list(self._listed.items()) if path.startswith(start)]
