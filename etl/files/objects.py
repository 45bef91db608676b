"""The objects of a bucket, through obstore: read, listed, and replaced only if they are still what was seen.

Owns every request to a store: how long it may take, how often it is sent again, and how it is counted. What obstore
raises is turned into errors of this exporter; see ``store`` for their texts. Knows nothing of datasets.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import obstore
from obstore.exceptions import BaseError, GenericError

from etl.errors import FileMissingError
from etl.files import store
from etl.files.background import in_background
from etl.files.interface import never_stopped
from etl.model.locations import Options

T = TypeVar("T")

READER_SECONDS = 30.0
"""How long a command that only reads waits for a store to begin its answer."""
STOPPED_SECONDS = 5.0
"""The same for a run that was told to stop."""
_LOOK_SECONDS = 0.2
"""How often a waiting caller looks whether it was told to stop."""
_PAGE = 1000
"""How many objects a store lists in one answer."""
_QUOTE = '"'


@dataclass(frozen=True, slots=True)
class Version:
    """What an object is at one time; another content has another version."""

    e_tag: str
    """In double quotes, never weak."""
    generation: str | None = None
    """What Google's stores compare in place of the ETag; None elsewhere, and where a list does not say it."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the store lists or returns it, without its content."""

    path: str
    """Relative to the URL of the ``Objects``."""
    size_bytes: int
    """Of its content."""
    version: Version
    """By which it can be replaced."""
    changed_at: datetime
    """When it was last written, by the store's clock."""


class Objects:
    """The objects below one URL; paths are relative to it. May be used by several threads.

    Whatever fails is a DestinationError: FileMissingError if there is no such object, ConflictError if it is not what
    was seen, StoreFailedError if the store gave no usable answer.

    A run waits for minutes for a store that fails, but only once: after that, each of its requests gives up within
    seconds. A reader gives up after ``READER_SECONDS``.
    """

    def __init__(self, url: str, options: Options) -> None:
        self.url = url.rstrip("/")
        self.requests: Counter[str] = Counter()
        """How many requests were sent, by kind; those that obstore repeats by itself count once."""
        self._store = store.open_store(self.url, options)
        self._hasty_store = store.open_store(self.url, options, is_hasty=True)
        self._counting = threading.Lock()
        self._most_seconds = READER_SECONDS
        self._is_stopped: Callable[[], bool] = never_stopped

    def be_patient(self, is_stopped: Callable[[], bool]) -> None:
        """Wait for the store for minutes from now on, as a run does, but for an answer only until it ``is_stopped``."""
        self._most_seconds = math.inf
        self._is_stopped = is_stopped

    def hasty(self) -> "Objects":
        """The same objects, for requests that should fail within seconds rather than wait for minutes."""
        other = copy(self)
        other._store = self._hasty_store  # noqa: SLF001 it is one of this class
        return other

    def put(self, path: str, data: bytes | memoryview, seen: Version | None) -> Version:
        """Make ``data`` the whole object in one step if it is the ``seen`` one or, for None, if there is none yet.

        Returns the new version.

        Raises:
            ConflictError: the object is not what was seen; it is unchanged.
            DestinationError: the write failed; ``data`` may have been written all the same.
        """
        content = memoryview(data).cast("B")
        mode: Any = "create" if seen is None else self._condition(path, seen)
        try:
            with self._naming(path, "put"):
                answer = self._write(lambda: obstore.put(self._store, path, content, mode=mode, use_multipart=False))
        except store.ConflictError:
            # A try whose answer was lost may have been the one that wrote it.
            with suppress(FileMissingError):
                stored, content_now = self.get(path, most_bytes=len(content))
                if content_now == content:
                    return stored.version
            raise
        return _version(answer)

    def _condition(self, path: str, seen: Version) -> dict[str, str]:
        """The condition under which the store replaces only the version that was seen, as obstore takes it."""
        if not self.url.startswith("gs://"):
            return {"e_tag": seen.e_tag}
        if seen.generation is None:  # lists do not say it
            stored = self.head(path)
            if stored.version.e_tag != seen.e_tag:
                raise store.ConflictError(f"another program changed {self.url}/{path} after it was listed. Run again")
            seen = stored.version
        return {"e_tag": seen.e_tag, "version": seen.generation or ""}

    def get(self, path: str, *, most_bytes: int | None = None) -> tuple[StoredObject, bytes]:
        """The object and its content, which is left empty if it has more than ``most_bytes``."""
        with self._naming(path, "get"):
            answer = self._answer(lambda: obstore.get(self._store, path))
            stored = _stored_object(answer.meta)
            if most_bytes is not None and stored.size_bytes > most_bytes:
                return stored, b""
            data = self._answer(lambda: answer.bytes().to_bytes(), is_content=True)
        if len(data) != stored.size_bytes:  # a content in chunks may end early under the header of the whole
            raise store.StoreFailedError(
                f"{self.url}/{path}: {len(data):,} of {stored.size_bytes:,} bytes arrived. Run again"
            )
        return stored, data

    def head(self, path: str) -> StoredObject:
        """The object without its content."""
        with self._naming(path, "head"):
            return _stored_object(self._answer(lambda: obstore.head(self._store, path)))

    def list(self, folder: str) -> list[StoredObject]:
        """All objects below the folder, but for dot files and the placeholders that consoles make for folders.

        Takes one request for each thousand objects.
        """
        objects: list[StoredObject] = []
        with self._naming(folder, "list"):
            pages = iter(obstore.list(self._store, prefix=folder or None, chunk_size=_PAGE))
            while (page := self._answer(lambda: next(pages, None))) is not None:
                objects += map(_stored_object, page)
        self._count("list", max(0, len(objects) - 1) // _PAGE)
        # No file of a dataset is empty, and all that readers take for data have an ending: the others are placeholders.
        objects = [stored for stored in objects if stored.size_bytes or "." in stored.path.rpartition("/")[2]]
        return [stored for stored in objects if "/." not in f"/{stored.path}"]

    def delete(self, path: str) -> None:
        """Remove the object, if there is one."""
        with suppress(FileMissingError), self._naming(path, "delete"):
            self._write(lambda: obstore.delete(self._store, path))

    def copy(self, path: str, to: str) -> None:
        """Copy the object to the path ``to``, over whatever is there."""
        with self._naming(path, "copy"):
            self._write(lambda: obstore.copy(self._store, path, to))

    def _write(self, work: Callable[[], T]) -> T:
        """The result of the work, which is repeated while its connection is cut: obstore does not repeat each write."""
        patience = store.HASTY_SECONDS if self._store is self._hasty_store else store.PATIENT_SECONDS
        ends_at = time.monotonic() + patience

        def persist() -> T:
            while True:
                try:
                    return work()
                except BaseError as exc:
                    if not store.is_cut_off(exc) or time.monotonic() > ends_at:
                        raise
                time.sleep(1)  # where obstore repeats the work by itself, the time is over by now

        return self._answer(persist, is_write=True)

    def _answer(self, work: Callable[[], T], *, is_write: bool = False, is_content: bool = False) -> T:
        """The result of the work, done in another thread: obstore would block this one for minutes, deaf to signals.

        Gives up after the time that a reader or a stopped run has. But a write is finished, even if the run is told to
        stop; and for content, which may be large and its line slow, only obstore's own limits count.

        Raises:
            StoreFailedError: no answer came in time.
        """
        answer = in_background(work)
        seconds_left = math.inf if is_content else self._most_seconds
        while not wait([answer], timeout=_LOOK_SECONDS).done:
            if self._is_stopped() and not (is_write or is_content):
                seconds_left = min(seconds_left, STOPPED_SECONDS)
            seconds_left -= _LOOK_SECONDS
            if seconds_left < 0:
                raise store.no_answer(self.url)
        return answer.result()

    def _count(self, kind: str, number: int = 1) -> None:
        with self._counting:
            self.requests[kind] += number

    @contextmanager
    def _naming(self, path: str, kind: str) -> Iterator[None]:
        """Count the request, and turn what obstore raises into a DestinationError of one line that names the object.

        After the first failure of the store, this object waits for it for seconds only.
        """
        self._count(kind)
        try:
            try:
                yield
            except (FileNotFoundError, BaseError) as exc:
                raise store.store_error(exc, self.url, path, kind) from exc
        except store.StoreFailedError:
            self._store = self._hasty_store
            raise


def _stored_object(meta: Any) -> StoredObject:
    return StoredObject(meta["path"], meta["size"], _version(meta), meta["last_modified"])


def _version(meta: Any) -> Version:
    if not meta["e_tag"]:
        raise GenericError("ETag Header missing")  # as obstore itself says after a put
    # Some stores list the ETag without the quotes that it has everywhere else, and some proxies make it a weak one.
    return Version(f'"{meta["e_tag"].removeprefix("W/").strip(_QUOTE)}"', meta["version"])
