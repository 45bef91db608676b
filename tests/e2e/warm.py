"""The installed command without the second that its imports take: forked from a process that has them already.

It is a process like any other, with a pid, streams, a folder and an environment of its own; only what its interpreter would tear
down at the end is left to the system.
"""

import asyncio
import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import etl
from etl.cli import process
from etl.cli.app import main

PRELOADED = ("uvloop", "pyarrow.dataset", "rich.progress")


class Process:
    """The command at work on these three streams, with as much of ``asyncio.subprocess.Process`` as tests need."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: dict[str, str],
        streams: Sequence[int],
        *,
        is_session: bool = False,
    ) -> None:
        self.stdout, self.stderr = asyncio.StreamReader(), asyncio.StreamReader()
        self.returncode: int | None = None
        self._end, writing = os.pipe()
        request = {"argv": arguments, "cwd": os.fspath(cwd), "env": env, "is_session": is_session}
        self.pid = _ask(request, [*streams, writing])
        os.close(writing)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:  # until then nobody else has its number
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        """The exit code, below zero for a signal."""
        if self.returncode is None:
            loop, has_ended = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(self._end, has_ended.set)
            try:
                await has_ended.wait()
            finally:
                loop.remove_reader(self._end)
            self.returncode = _ask({"pid": self.pid}, [])
            os.close(self._end)
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """All that it writes, once it has ended."""
        try:
            stdout, stderr = await asyncio.gather(self.stdout.read(), self.stderr.read())
            await self.wait()
        finally:
            self.kill()
        return stdout, stderr


async def start(arguments: Sequence[str], cwd: Path, env: dict[str, str]) -> Process:
    """The command, with what it writes in pipes and nothing to read."""
    nothing, pipes = os.open(os.devnull, os.O_RDONLY), [os.pipe() for _ in range(2)]
    process = Process(arguments, cwd, env, [nothing, *(writing for _, writing in pipes)])
    for each in (nothing, *(writing for _, writing in pipes)):
        os.close(each)
    for reader, (reading, _) in zip((process.stdout, process.stderr), pipes, strict=True):
        await asyncio.get_running_loop().connect_read_pipe(
            functools.partial(asyncio.StreamReaderProtocol, reader), os.fdopen(reading, "rb", buffering=0)
        )
    return process


def _ask(request: dict[str, Any], descriptors: list[int]) -> int:
    socket.send_fds(_server(), [json.dumps(request).encode()], descriptors)
    answer = _server().recv(100)
    assert answer, "the server ended"
    return int(answer)


@functools.cache
def _server() -> socket.socket:
    """A process that forks a command for each request, as long as this one lives; its environment is a cron job's."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, str(theirs.fileno())],
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(requests: socket.socket) -> None:
    """Start a command and tell its pid, or tell how the one of a pid ended."""
    _import_everything()
    while True:
        text, descriptors, _, _ = socket.recv_fds(requests, 1 << 16, 4)
        if not text:
            return
        request = json.loads(text)
        if "pid" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["pid"], 0)[1])
        elif (answer := os.fork()) == 0:
            requests.close()
            _be_command(request, *descriptors)
        for each in descriptors:
            os.close(each)
        requests.send(str(answer).encode())


def _import_everything() -> None:
    process.prepare()
    for name in PRELOADED:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(etl.__path__, "etl."):
        if module.name != "etl.__main__":
            with suppress(ModuleNotFoundError):  # of a warehouse whose driver is not installed here
                importlib.import_module(module.name)
    gc.freeze()


def _be_command(request: dict[str, Any], stdin: int, stdout: int, stderr: int, end: int) -> NoReturn:
    """Be it until the process ends, which closes ``end``."""
    for number, each in enumerate((stdin, stdout, stderr)):
        os.dup2(each, number)
        os.close(each)
    os.set_inheritable(end, False)
    if request["is_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    try:
        main()
    except SystemExit as exc:
        sys.stdout.flush()
        os._exit(exc.code if isinstance(exc.code, int) else 1)
    finally:  # only where the command itself does not end
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
