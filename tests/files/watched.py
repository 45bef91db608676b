"""Every system call by which an export touches its dataset, seen just before it is made and once it succeeded."""

import fcntl
import functools
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

STAGING = "_state/staging"
_BY_PATH = ("mkdir", "unlink", "scandir", "statvfs")
_BY_DESCRIPTOR = ("fsync", "ftruncate", "pwrite", "pread")
CHANGING = {"create", "write", "fsync", "rename", "mkdir", "unlink", "flock", "ftruncate", "pwrite"}


@dataclass(frozen=True)
class Step:
    """One system call on a path below the watched folder; a rename has a ``target``, a write its ``data``."""

    name: str
    path: str
    target: str = ""
    data: bytes = b""

    @property
    def kind(self) -> str:
        """The call and what it is made on, alike for all partitions and runs."""
        place = self.target or self.path
        words = [part.partition("=")[0] for part in place.split("/")]
        if place.startswith(f"{STAGING}/"):
            words[-1] = "*"
        elif words[0] == "runs" and len(words) == 3:
            words[-1] = "*.parquet"
        return f"{self.name} {'/'.join(words)}"


def _nothing(_step: Step) -> None:
    pass


@contextmanager
def watched(
    root: Path, *, before: Callable[[Step], None] = _nothing, after: Callable[[Step], None] = _nothing
) -> Iterator[None]:
    """Tell ``before`` and ``after`` of each call of this process below ``root``; if ``before`` raises, it is not made.

    A file is written in two halves, so that a call may fail, or the process die, between them.
    """
    calls = _Calls(root, before, after)
    with ExitStack() as patches:

        def patch(module: Any, name: str, replacement: Callable[..., Any]) -> None:
            patches.enter_context(mock.patch.object(module, name, replacement))

        patch(os, "open", functools.partial(calls.open, os.open))
        patch(os, "fdopen", functools.partial(calls.fdopen, os.fdopen))
        for name in _BY_PATH:
            patch(os, name, functools.partial(calls.by_path, name, getattr(os, name)))
        for name in ("rename", "replace"):
            patch(os, name, functools.partial(calls.rename, getattr(os, name)))
        for name in _BY_DESCRIPTOR:
            patch(os, name, functools.partial(calls.by_descriptor, name, getattr(os, name)))
        patch(fcntl, "flock", functools.partial(calls.by_descriptor, "flock", fcntl.flock))
        yield


class _Calls:
    def __init__(self, root: Path, before: Callable[[Step], None], after: Callable[[Step], None]) -> None:
        self._root = os.fspath(root)
        self._before, self._after = before, after
        self._open: dict[int, str] = {}

    def make(self, step: Step, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self._before(step)
        result = call(*arguments, **options)
        self._after(step)
        return result

    def place(self, path: Any) -> str | None:
        """The path below the root, None elsewhere."""
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if text == self._root:
            return "."
        return text[len(self._root) + 1 :] if text.startswith(f"{self._root}/") else None

    def open(self, call: Callable[..., int], path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if (place := self.place(path)) is None:
            return call(path, flags, *arguments, **options)
        step = Step("create" if flags & os.O_CREAT else "open", place)
        descriptor: int = self.make(step, call, path, flags, *arguments, **options)
        self._open[descriptor] = place
        return descriptor

    def fdopen(
        self, call: Callable[..., Any], descriptor: int, mode: str = "r", *arguments: Any, **options: Any
    ) -> Any:
        if descriptor not in self._open or mode not in ("rb", "wb"):
            return call(descriptor, mode, *arguments, **options)
        raw = _File(self, self._open[descriptor], descriptor, mode)
        return io.BufferedReader(raw) if mode == "rb" else io.BufferedWriter(raw)

    def by_path(self, name: str, call: Callable[..., Any], path: Any = ".", *arguments: Any, **options: Any) -> Any:
        if (place := self.place(path)) is None:
            return call(path, *arguments, **options)
        return self.make(Step(name, place), call, path, *arguments, **options)

    def by_descriptor(self, name: str, call: Callable[..., Any], descriptor: int, *arguments: Any) -> Any:
        if descriptor not in self._open:
            return call(descriptor, *arguments)
        data = arguments[0] if name == "pwrite" else b""
        return self.make(Step(name, self._open[descriptor], data=data), call, descriptor, *arguments)

    def rename(self, call: Callable[..., Any], path: Any, target: Any, **options: Any) -> Any:
        place, to = self.place(path), self.place(target)
        if place is None or to is None:
            return call(path, target, **options)
        return self.make(Step("rename", place, to), call, path, target, **options)


class _File(io.FileIO):
    def __init__(self, calls: _Calls, place: str, descriptor: int, mode: str) -> None:
        super().__init__(descriptor, mode)
        self._calls, self._place = calls, place

    def write(self, data: Any) -> int:
        """One half after the other, each a call of its own."""
        whole = memoryview(data).cast("B")
        half = len(whole) // 2
        for part in (whole[:half], whole[half:]):
            self._calls.make(Step("write", self._place, data=bytes(part)), super().write, part)
        return len(whole)

    def readall(self) -> bytes:
        """The whole file, as one call."""
        read: bytes = self._calls.make(Step("read", self._place), super().readall)
        return read
