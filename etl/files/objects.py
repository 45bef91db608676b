"""The objects of a bucket, through obstore: read, listed, and replaced only if they are still what was seen."""

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
_PAGE = 1000
_QUOTE = '"'


@dataclass(frozen=True, slots=True)
class Version:
    """What an object is at a time: its ETag; and in Google's stores, which compare it instead, its generation, if it was told."""

    e_tag: str
    generation: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An object as it is listed or read."""

    path: str
    size_bytes: int
    version: Version
    changed_at: datetime


class Objects:
    """The objects below one URL; paths are relative to it.

    Whatever fails is a DestinationError: ConflictError where an object is not what was seen, FileMissingError where there is none.

    ``requests`` counts what was asked of the store, by kind; what obstore sends again is not in it. A run waits for minutes for a
    store that fails, once: what it still has to say after that may rather fail than take long. A reader does not wait so long.
    """

    def __init__(self, url: str, options: Options) -> None:
        self.url = url.rstrip("/")
        self.requests: Counter[str] = Counter()
        self._store = store.open_store(self.url, options)
        self._hasty_store = store.open_store(self.url, options, is_hasty=True)
        self._counting = threading.Lock()
        self._most_seconds = READER_SECONDS
        self._is_stopped: Callable[[], bool] = never_stopped

    def be_patient(self, is_stopped: Callable[[], bool]) -> None:
        """Wait for the store for minutes from now on, as a run does; for answers only until it ``is_stopped``."""
        self._most_seconds, self._is_stopped = math.inf, is_stopped

    def hasty(self) -> "Objects":
        """The same objects, for requests that may rather fail than take long."""
        other = copy(self)
        other._store = self._hasty_store  # noqa: SLF001 it is one of this class
        return other

    def put(self, path: str, data: bytes | memoryview, seen: Version | None) -> Version:
        """Make ``data`` the whole object, in one step, if it is what was seen; None: if there is none.

        One that failed may be there all the same, but for a ConflictError.
        """
        content = memoryview(data).cast("B")
        mode: Any = "create" if seen is None else self._condition(path, seen)
        try:
            with self._naming(path, "put"):
                told = self._write(lambda: obstore.put(self._store, path, content, mode=mode, use_multipart=False))
        except store.ConflictError:
            # A try whose answer was lost may have been the one that wrote it.
            with suppress(FileMissingError):
                found, there = self.get(path, most_bytes=len(content))
                if there == content:
                    return found.version
            raise
        return _version(told)

    def _condition(self, path: str, seen: Version) -> dict[str, str]:
        if not self.url.startswith("gs://"):
            return {"e_tag": seen.e_tag}
        if seen.generation is None:  # lists do not tell it
            found = self.head(path)
            if found.version.e_tag != seen.e_tag:
                raise store.ConflictError(
                    f"{self.url}/{path}: changed by another program since it was listed: run again"
                )
            seen = found.version
        return {"e_tag": seen.e_tag, "version": seen.generation or ""}

    def get(self, path: str, *, most_bytes: int | None = None) -> tuple[Found, bytes]:
        """The object; its content is empty if it has more bytes than ``most_bytes``."""
        with self._naming(path, "get"):
            answer = self._answer(lambda: obstore.get(self._store, path))
            found = _found(answer.meta)
            if most_bytes is not None and found.size_bytes > most_bytes:
                return found, b""
            data = self._answer(lambda: answer.bytes().to_bytes(), is_content=True)
        if len(data) != found.size_bytes:  # as it came in chunks, with the header of the whole
            raise store.StoreFailedError(
                f"{self.url}/{path}: {len(data):,} of {found.size_bytes:,} bytes arrived: run again"
            )
        return found, data

    def head(self, path: str) -> Found:
        """The object without its content."""
        with self._naming(path, "head"):
            return _found(self._answer(lambda: obstore.head(self._store, path)))

    def list(self, folder: str) -> list[Found]:
        """All objects below the folder, a thousand in each request. Neither placeholders of consoles for folders nor dot files."""
        found: list[Found] = []
        with self._naming(folder, "list"):
            pages = iter(obstore.list(self._store, prefix=folder or None, chunk_size=_PAGE))
            while (page := self._answer(lambda: next(pages, None))) is not None:
                found += map(_found, page)
        self._count("list", max(0, len(found) - 1) // _PAGE)
        # No file of a dataset is empty, and all that readers take for data have an ending.
        found = [each for each in found if each.size_bytes or "." in each.path.rpartition("/")[2]]
        return [each for each in found if "/." not in f"/{each.path}"]

    def delete(self, path: str) -> None:
        """Remove the object, if there is one."""
        with suppress(FileMissingError), self._naming(path, "delete"):
            self._write(lambda: obstore.delete(self._store, path))

    def copy(self, path: str, to: str) -> None:
        """Make ``to`` the same as the object; whatever was there is gone."""
        with self._naming(path, "copy"):
            self._write(lambda: obstore.copy(self._store, path, to))

    def _write(self, work: Callable[[], T]) -> T:
        """The result of the work, which is done again while its connection is cut: obstore does not do so for each store."""
        ends_at = time.monotonic() + (
            store.HASTY_SECONDS if self._store is self._hasty_store else store.PATIENT_SECONDS
        )

        def persist() -> T:
            while True:
                try:
                    return work()
                except BaseError as exc:
                    if not store.is_cut_off(exc) or time.monotonic() > ends_at:
                        raise
                time.sleep(1)  # not where obstore repeats it, which waits itself until the time is over

        return self._answer(persist, is_write=True)

    def _answer(self, work: Callable[[], T], *, is_write: bool = False, is_content: bool = False) -> T:
        """The result of the work, for which obstore itself waits for minutes and hears of no signal.

        A run that is told to stop finishes what it writes. Content may be large, and its line slow: obstore's own limits do.
        """
        answer, left = in_background(work), math.inf if is_content else self._most_seconds
        while not wait([answer], timeout=_LOOK_SECONDS).done:
            if self._is_stopped() and not (is_write or is_content):
                left = min(left, STOPPED_SECONDS)
            left -= _LOOK_SECONDS
            if left < 0:
                raise store.no_answer(self.url)
        return answer.result()

    def _count(self, kind: str, number: int = 1) -> None:
        with self._counting:
            self.requests[kind] += number

    @contextmanager
    def _naming(self, path: str, kind: str) -> Iterator[None]:
        """Count the request, and turn what obstore raises into one line that names the object."""
        self._count(kind)
        try:
            try:
                yield
            except (FileNotFoundError, BaseError) as exc:
                raise store.store_error(exc, self.url, path, kind) from exc
        except store.StoreFailedError:
            self._store = self._hasty_store
            raise


def _found(meta: Any) -> Found:
    return Found(meta["path"], meta["size"], _version(meta), meta["last_modified"])


def _version(told: Any) -> Version:
    if not told["e_tag"]:
        raise GenericError("ETag Header missing")  # as obstore itself says after a put
    # Some stores list it without the quotes that it has everywhere else, and some proxies call it weak.
    return Version(f'"{told["e_tag"].removeprefix("W/").strip(_QUOTE)}"', told["version"])
