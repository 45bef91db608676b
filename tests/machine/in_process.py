"""An export without a socket, a disk, a thread or a wait: its API, its files and its time are in this process.

* ``JumpingLoop``: an event loop whose time jumps to the next timer when nothing is ready, and that does in place what
  is meant for a thread. So a retry costs nothing, and the order of everything is the same each time.
* ``transport_of``: what a ``Client`` sends goes straight to a sandbox's own answers.
* ``MemoryFiles``: a dataset as a dict. A folder in memory (/dev/shm) would do, at some forty system calls for each file
  that is published. That those are right is what ``tests/load/files`` and ``tests/e2e/test_killed`` are for; here a
  file is published in one step, just before or after which the process may die. And a dict is copied at once, so that
  one night can be tried twice.
"""

import asyncio
import io
import selectors
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote

from multidict import CIMultiDict

from etl.errors import FileMissingError, ForeignFileError, LockHeldError
from etl.extract.transport import Answer, NoAnswerError
from etl.files.interface import Entry, Probe
from etl.files.names import LOCK, QUARANTINE, STAGING
from etl.sandbox import Sandbox, SandboxRequest
from etl.settings import Settings

BASE_URL = "http://127.0.0.1:9"


class _NothingToWaitFor(selectors.SelectSelector):
    """Nothing ever comes from outside; the time that would be waited has passed."""

    passed_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "the run waits for something that will never happen"
        self.passed_seconds += max(0.0, timeout)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._passed = _NothingToWaitFor()
        super().__init__(self._passed)

    def time(self) -> float:
        return self._passed.passed_seconds

    def run_in_executor(  # type: ignore[override]
        self, _executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:  # noqa: BLE001 as a thread would hand it over
            future.set_exception(error)
        return future


@lru_cache(maxsize=4096)
def _parsed(target: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    path, _, query = target.partition("?")
    return unquote(path), tuple(parse_qsl(query, keep_blank_values=True))


def transport_of(sandbox: Sandbox) -> type:
    """A ``Transport`` for the client, whose server is this sandbox."""

    class InProcess:
        def __init__(self, settings: Settings, headers: Mapping[str, str]) -> None:
            self._origin, self._headers = settings.api.base_url, CIMultiDict(headers)

        async def close(self) -> None:
            pass

        async def get(self, target: str) -> Answer:
            path, query = _parsed(target)
            request = SandboxRequest("GET", path, target, dict(query), None, asyncio.get_running_loop().time())
            answer, fault = sandbox.answer(request, self._headers, self._origin)
            await asyncio.sleep(fault.delay_seconds)
            if fault.is_hanging:
                await asyncio.sleep(300)
                raise NoAnswerError("timeout")
            if fault.is_reset or (fault.is_closed and fault.cut_after_bytes is None):
                raise NoAnswerError("no complete answer: reset")
            if fault.cut_after_bytes is not None:
                raise NoAnswerError("no complete answer: cut")
            assert fault.raw is None, "that is for a socket"
            headers = CIMultiDict(answer.headers)
            headers.setdefault("Date", format_datetime(datetime.now(UTC), usegmt=True))
            return Answer(answer.status, headers, answer.body)

    return InProcess


class Killed(BaseException):
    """The process is dead: whatever it wants to do to its files does not happen."""


@dataclass(slots=True)
class Death:
    """Dies at the ``nth`` change of a file, just before it or just after."""

    nth: int
    is_after: bool = False
    is_dead: bool = False
    steps: int = 0


@dataclass(slots=True)
class Store:
    """The files of one dataset, each with its version; they outlive the processes that use them."""

    content: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    death: Death | None = None
    is_locked: bool = False
    written: int = 0
    published: list[tuple[str, bytes]] = field(default_factory=list)

    def put(self, path: str, data: bytes | None) -> None:
        """Write or remove a file, whoever does it."""
        if data is None:
            self.content.pop(path, None)
        else:
            self.written += 1
            self.content[path] = (self.written, data)

    def versions(self, *, state: bool = False) -> dict[str, int]:
        return {path: version for path, (version, _) in self.content.items() if state or not path.startswith("_state")}

    @contextmanager
    def changing(self) -> Iterator[None]:
        death = self.death
        if death is not None:
            if death.is_dead:
                raise Killed
            death.steps += 1
            if not death.is_after and death.steps > death.nth:
                death.is_dead = True
                raise Killed
        yield
        if death is not None and death.is_after and death.steps > death.nth:
            death.is_dead = True
            raise Killed


STORES: dict[str, Store] = {}
"""By the path of the dataset."""


class MemoryFiles:
    """``Files`` of a ``Store``; in place of ``LocalFiles``, whose arguments it takes."""

    readers = 1
    requests: Mapping[str, int] = {}

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, STORES[str(root)]

    def where(self, path: str = "") -> str:
        return f"{self.root}/{path}"

    def arrow(self) -> Any:
        raise NotImplementedError("no export needs it")

    def prepare(self) -> None:
        pass

    def examine(self) -> Probe:
        return Probe(is_there=True, free_bytes=None)

    probe = examine

    @contextmanager
    def lock(self, now: datetime, *, is_stopped: Callable[[], bool] = bool, note: str = "") -> Iterator[None]:  # noqa: ARG002
        if self.store.is_locked:
            raise LockHeldError(f"another export holds {LOCK}")
        self.store.is_locked = True
        try:
            yield
        finally:
            self.store.is_locked = False

    def lock_holder(self) -> str | None:
        return "a run" if self.store.is_locked else None

    def list(self, folder: str) -> list[str]:
        return [entry.path for entry in self.entries(folder)]

    def entries(self, folder: str) -> tuple[Entry, ...]:
        return tuple(
            Entry(path, size_bytes=len(data), version=str(version))
            for path, (version, data) in sorted(self.store.content.items())
            if not folder or path.startswith(f"{folder}/")
        )

    def read(self, path: str, *, most_bytes: int = 1 << 40) -> bytes:
        if path not in self.store.content:
            raise FileMissingError(f"{self.where(path)}: missing")
        data = self.store.content[path][1]
        if len(data) > most_bytes:
            raise ForeignFileError(f"{self.where(path)}: too large")
        return data

    def open(self, path: str) -> BinaryIO:
        return io.BytesIO(self.read(path))

    def publish(self, path: str, data: bytes | memoryview) -> None:
        with self.store.changing():
            self.store.put(path, content := bytes(data))
            self.store.published.append((path, content))

    def set_aside(self, path: str) -> str:
        aside = f"{QUARANTINE}/{self.store.written:04}-{path.replace('/', '-')}"
        with self.store.changing():
            self.store.put(aside, self.read(path))
            self.store.put(path, None)
        return aside

    def sweep_staging(self) -> int:
        assert not self.list(STAGING)
        return 0
