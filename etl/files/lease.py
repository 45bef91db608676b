"""One writer at a time in a bucket: an object that its holder renews, and that nobody replaces who has not seen it stand still.

No clocks are compared. A taker watches for as long as a lease lives whether the object changes; a holder that could not renew it
for so long writes nothing before it has. Every replacement is conditional, so that of two takers one fails.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from threading import Event, Lock, Thread

from etl.errors import DestinationError, FileMissingError, LockHeldError
from etl.files.interface import never_stopped
from etl.files.names import LOCK
from etl.files.objects import Objects, Version
from etl.files.store import ConflictError, StoreFailedError

LIFE_SECONDS = 30.0
_LOOKS = 30
_MOST_BYTES = 500
_OUTAGE_SECONDS = 120


class Lease:
    """The lock object, while this process holds it.

    Whatever ends that, a store that fails or another holder, is a DestinationError; LockHeldError is for who cannot begin.
    """

    def __init__(self, objects: Objects, now: datetime, note: str = "") -> None:
        self._objects = objects
        self._where = f"{objects.url}/{LOCK}"
        self._holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now.isoformat(timespec="seconds")}
        self._holder |= {"note": note} if note else {}
        self._token = secrets.token_hex(16)
        self._renewals = 0
        self._seen: Version | None = None
        self._renewed_at = _clocks()
        self._lost: str | None = None
        self._using = Lock()

    def take(self, is_stopped: Callable[[], bool]) -> None:
        """Become the holder, after a look at whether the last one still lives, which ends early once ``is_stopped``."""
        outdated = self._seen = self._look(is_stopped)
        try:
            self._write()
        except (ConflictError, FileMissingError):
            if holder(self._objects):
                raise LockHeldError(f"another export has just locked {self._where}; nothing was changed") from None
            raise DestinationError(
                f"{self._where}: the lock is free, but cannot be replaced: check for a proxy that alters ETags or answers"
            ) from None
        try:
            # Only this process writes the object now, so what must fail can be tried on it.
            for unseen in (None, outdated or Version('"0"', "1")):
                _must_refuse(self._objects, LOCK, self._text(attempt="must fail"), unseen)
        except DestinationError:
            self.release()
            raise
        # A renewal that hangs must not outlast the life of the lease.
        self._objects = self._objects.hasty()

    def _look(self, is_stopped: Callable[[], bool]) -> Version | None:
        """Make sure that no living process holds the lock; returns the version to be replaced, None if there is no lock yet."""
        try:
            found, text = self._objects.get(LOCK, most_bytes=_MOST_BYTES)
        except FileMissingError:
            return None
        if holder := _holder(text):
            deadline = time.monotonic() + LIFE_SECONDS
            while (left := deadline - time.monotonic()) > 0:
                time.sleep(min(left, LIFE_SECONDS / _LOOKS))
                if is_stopped() or self._objects.head(LOCK).version.e_tag != found.version.e_tag:
                    raise LockHeldError(f"another export holds {self._where} ({holder}); nothing was changed")
        return found.version

    def renew(self) -> None:
        """Show that the holder is alive."""
        with self._using:
            if self._lost:
                raise DestinationError(self._lost)
            try:
                self._write()
            except (ConflictError, FileMissingError):
                self._lost = (
                    f"{self._where}: this export lost its lock: another program replaced or removed it (an export may, "
                    f"{LIFE_SECONDS:g} seconds after the last renewal); nothing was lost, and the next run continues"
                )
                raise DestinationError(self._lost) from None

    def require(self) -> None:
        """Be the holder still, as far as can be known; an outage of the store is waited for, from the last renewal on."""
        while self._lost or self._passed_seconds() > LIFE_SECONDS / 2:
            try:
                self.renew()
            except StoreFailedError:
                if self._passed_seconds() > _OUTAGE_SECONDS:
                    raise
                time.sleep(1)  # a renewal gives up after seconds, an outage may last for minutes
            else:
                return

    def _passed_seconds(self) -> float:
        return max(now - then for now, then in zip(_clocks(), self._renewed_at, strict=True))

    def release(self) -> None:
        """Let the next export begin at once; if that fails, it waits until the lease has died."""
        with self._using, suppress(DestinationError):
            if not self._lost:
                self._replace(self._text(released=True))

    def _write(self) -> None:
        before = _clocks()
        self._renewals += 1
        self._replace(self._text(renewals=self._renewals))
        self._renewed_at = before

    def _replace(self, text: bytes) -> None:
        try:
            self._seen = self._objects.put(LOCK, text, self._seen)
        except ConflictError:
            # A renewal that seemed to fail may have been heard.
            found, there = self._objects.get(LOCK, most_bytes=_MOST_BYTES)
            if self._token.encode() not in there:
                raise
            self._seen = self._objects.put(LOCK, text, found.version)

    def _text(self, **facts: object) -> bytes:
        return json.dumps(self._holder | {"token": self._token} | facts).encode()


def _clocks() -> tuple[float, float]:
    """Seconds by two clocks: one stands still while the machine sleeps, the other may be set."""
    return time.monotonic(), time.time()


@contextmanager
def hold(
    objects: Objects, now: datetime, is_stopped: Callable[[], bool] = never_stopped, note: str = ""
) -> Iterator[Lease]:
    """Hold the lease of the dataset, and renew it at every third of its life; ``note`` is added to the words for the holder."""
    lease, end = Lease(objects, now, note), Event()

    def renew_until_the_end() -> None:
        while not end.wait(LIFE_SECONDS / 3):
            with suppress(Exception):  # ``require`` tells the next write
                lease.renew()

    lease.take(is_stopped)
    thread = Thread(target=renew_until_the_end, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        end.set()
        thread.join()
        lease.release()


def prove(objects: Objects, path: str) -> None:
    """Write, read, replace and remove the object, and fail to write over what was not seen. Nothing may be at this path."""
    first = objects.put(path, b"1", None)
    try:
        _must_refuse(objects, path, b"2", None)
        objects.put(path, b"3", first)
        _must_refuse(objects, path, b"4", first)
        if objects.get(path)[1] != b"3":
            raise DestinationError(f"{objects.url}/{path}: changed between write and read: check for a proxy or cache")
    finally:
        objects.delete(path)


def _must_refuse(objects: Objects, path: str, data: bytes, seen: Version | None) -> None:
    try:
        objects.put(path, data, seen)
    except ConflictError:
        return
    raise DestinationError(
        f"{objects.url}: this store ignores conditions (If-Match, If-None-Match), so two exports could overwrite each other's "
        "rows: use a store that honors them, or a folder"
    )


def holder(objects: Objects) -> str | None:
    """Who holds the lease, in words; None when nobody does, or nobody renewed it for three lives by this machine's clock.

    Good enough to tell somebody; who writes is decided without any clock.
    """
    try:
        found, text = objects.get(LOCK, most_bytes=_MOST_BYTES)
    except FileMissingError:
        return None
    is_old = datetime.now(UTC) - found.changed_at > timedelta(seconds=3 * LIFE_SECONDS)
    return None if is_old else _holder(text)


def _holder(text: bytes) -> str | None:
    """The holder that the lock names; None when it was given back, or is no lease at all: then it may be taken."""
    try:
        told = json.loads(text)
        if not told["token"] or told.get("released"):
            return None
        return f"pid {told['pid']} on {told['host']} since {told['since']}{told.get('note', '')}"
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None
