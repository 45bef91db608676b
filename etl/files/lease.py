"""One writer at a time in a bucket: an object that its holder renews, and that a taker replaces if it is not renewed.

No clocks of two machines are compared. A taker watches the object for the life of a lease; if it does not change, its
holder is dead. A holder that could not renew its lease for half of that time writes nothing before it has. Every
replacement is conditional, so that of two takers one fails.
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
"""How long a lease lives after its last renewal."""
_LOOKS = 30
"""How often a taker looks at the object during that time."""
_MOST_BYTES = 500
"""As much of the lock object is read; ours is shorter."""
_OUTAGE_SECONDS = 120
"""How long a writer waits for a store that does not answer, counted from the last renewal."""


class Lease:
    """The lock object, from the moment this process takes it to the moment it gives it back.

    One thread renews it while others call ``require`` before they write. A store that fails or another holder is a
    DestinationError; only ``take`` raises LockHeldError.
    """

    def __init__(self, objects: Objects, now: datetime) -> None:
        self._objects = objects
        self._where = f"{objects.url}/{LOCK}"
        self._holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now.isoformat(timespec="seconds")}
        self._token = secrets.token_hex(16)
        self._renewals = 0
        self._seen: Version | None = None
        self._renewed_at = _clocks()
        self._lost: str | None = None
        self._using = Lock()

    def take(self, is_stopped: Callable[[], bool]) -> None:
        """Become the holder, unless the last one still lives, which takes up to ``LIFE_SECONDS`` to find out.

        The lock counts as held if ``is_stopped`` turns true meanwhile.

        Raises:
            LockHeldError: another export holds the lock, or took it at the same time.
            DestinationError: the store failed, or ignores conditions, without which there is no lock.
        """
        outdated = self._seen = self._released_version(is_stopped)
        try:
            self._write()
        except (ConflictError, FileMissingError):
            if holder(self._objects):
                raise LockHeldError(f"another export has just locked {self._where}, so nothing was changed") from None
            raise DestinationError(
                f"the lock {self._where} is free, but cannot be taken. Check for a proxy that changes ETags or answers"
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

    def _released_version(self, is_stopped: Callable[[], bool]) -> Version | None:
        """The version of the lock object, which no living process holds; None if there is no object yet."""
        try:
            stored, text = self._objects.get(LOCK, most_bytes=_MOST_BYTES)
        except FileMissingError:
            return None
        if words := _holder(text):
            deadline = time.monotonic() + LIFE_SECONDS
            while (seconds_left := deadline - time.monotonic()) > 0:
                time.sleep(min(seconds_left, LIFE_SECONDS / _LOOKS))
                if is_stopped() or self._objects.head(LOCK).version.e_tag != stored.version.e_tag:
                    raise LockHeldError(f"another export holds {self._where} ({words}), so nothing was changed")
        return stored.version

    def renew(self) -> None:
        """Show that the holder is alive, by writing the object again. Safe to call from several threads.

        Raises:
            DestinationError: another program replaced or removed the object; from then on each call raises it.
            StoreFailedError: the store did not answer; the lease may still be ours.
        """
        with self._using:
            if self._lost:
                raise DestinationError(self._lost)
            try:
                self._write()
            except (ConflictError, FileMissingError):
                self._lost = (
                    f"another program replaced or removed {self._where}, the lock of this export, as it may do after "
                    f"{LIFE_SECONDS:g} seconds without renewal. Nothing was lost, and the next run continues"
                )
                raise DestinationError(self._lost) from None

    def require(self) -> None:
        """Return if this process is still the holder; call it before each write.

        Sends nothing if the last renewal is recent. Otherwise renews the lease, and waits through an outage of the
        store for up to ``_OUTAGE_SECONDS`` from the last renewal.

        Raises:
            DestinationError: the lease is lost.
            StoreFailedError: the outage lasted too long.
        """
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
        """The time since the last renewal, by the clock that shows more of it."""
        return max(now - then for now, then in zip(_clocks(), self._renewed_at, strict=True))

    def release(self) -> None:
        """Give the lock back, so that the next export begins at once; if that fails, it waits for the lease's end."""
        with self._using, suppress(DestinationError):
            if not self._lost:
                self._replace(self._text(released=True))

    def _write(self) -> None:
        """Replace the object as its holder; ConflictError or FileMissingError if another one changed or removed it."""
        before = _clocks()  # the store may have taken the renewal at any time since
        self._renewals += 1
        self._replace(self._text(renewals=self._renewals))
        self._renewed_at = before

    def _replace(self, text: bytes) -> None:
        try:
            self._seen = self._objects.put(LOCK, text, self._seen)
        except ConflictError:
            # A renewal that seemed to fail may have arrived.
            stored, content = self._objects.get(LOCK, most_bytes=_MOST_BYTES)
            if self._token.encode() not in content:
                raise
            self._seen = self._objects.put(LOCK, text, stored.version)

    def _text(self, **facts: object) -> bytes:
        """The content of the object: who holds it, the token that proves it, and these facts."""
        return json.dumps(self._holder | {"token": self._token} | facts).encode()


def _clocks() -> tuple[float, float]:
    """Seconds by two clocks: the first stands still while the machine sleeps, the second may be set by somebody."""
    return time.monotonic(), time.time()


@contextmanager
def hold(objects: Objects, now: datetime, is_stopped: Callable[[], bool] = never_stopped) -> Iterator[Lease]:
    """Hold the lease of the dataset, renewed in the background at each third of its life.

    Errors as for ``Lease.take``.
    """
    lease, end = Lease(objects, now), Event()

    def renew_until_the_end() -> None:
        while not end.wait(LIFE_SECONDS / 3):
            with suppress(Exception):  # the next write hears of it from ``require``
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
    """Prove that the store honors conditions, with an object of its own; there must be nothing at this path.

    Writes, reads, replaces and removes the object.

    Raises:
        DestinationError: one of these failed, or the store overwrote what it was told not to.
    """
    first = objects.put(path, b"1", None)
    try:
        _must_refuse(objects, path, b"2", None)
        objects.put(path, b"3", first)
        _must_refuse(objects, path, b"4", first)
        if objects.get(path)[1] != b"3":
            raise DestinationError(f"{objects.url}/{path} changed between write and read. Check for a proxy or cache")
    finally:
        objects.delete(path)


def _must_refuse(objects: Objects, path: str, data: bytes, seen: Version | None) -> None:
    """Try to replace an object that is no longer what was ``seen``; DestinationError if the store lets it happen."""
    try:
        objects.put(path, data, seen)
    except ConflictError:
        return
    raise DestinationError(
        f"the store of {objects.url} ignores conditions (If-Match, If-None-Match), so two exports could overwrite "
        "each other's rows. Use a store that honors conditions, or a folder"
    )


def holder(objects: Objects) -> str | None:
    """Who holds the lease, in words; None if nobody does, or nobody has renewed it for three lives of a lease.

    This compares the store's clock with this machine's, which is good enough for a message. Who may write is decided
    without it.
    """
    try:
        stored, text = objects.get(LOCK, most_bytes=_MOST_BYTES)
    except FileMissingError:
        return None
    is_old = datetime.now(UTC) - stored.changed_at > timedelta(seconds=3 * LIFE_SECONDS)
    return None if is_old else _holder(text)


def _holder(text: bytes) -> str | None:
    """The holder that the lock object's text names; None if it was given back, or is no lease: then it may be taken."""
    try:
        lease = json.loads(text)
        if not lease["token"] or lease.get("released"):
            return None
        return f"pid {lease['pid']} on {lease['host']} since {lease['since']}"
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None
