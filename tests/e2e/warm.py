"""The installed command without the second that its imports take: forked from a process that has them already.

It is a process like any other, with a pid, streams, a folder and an environment of its own.
"""

import asyncio
import functools
import multiprocessing
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import etl
from etl.cli.app import main


@functools.cache
def fork_server() -> ForkServerContext:
    """Processes that need no second to start: all that they need is imported once, but for what is not installed."""
    context = multiprocessing.get_context("forkserver")
    modules = [module.name for module in pkgutil.walk_packages(etl.__path__, "etl.") if module.name != "etl.__main__"]
    context.set_forkserver_preload([*modules, "uvloop", "pyarrow.dataset", "rich.live", "tests.e2e.dying"])
    return context


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
        copies = [Connection(os.dup(each)) for each in streams]
        self._process = fork_server().Process(
            target=_be_command, args=(arguments, cwd, env, copies, is_session), daemon=True
        )
        self._process.start()
        for each in copies:
            each.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, below zero for a signal; None while it is at work."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:  # until then nobody else has its number
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        await asyncio.to_thread(self._process.join)
        assert self.returncode is not None
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
    nothing = os.open(os.devnull, os.O_RDONLY)
    pipes = [os.pipe() for _ in range(2)]
    process = Process(arguments, cwd, env, [nothing, *(writing for _, writing in pipes)])
    for each in (nothing, *(writing for _, writing in pipes)):
        os.close(each)
    for reader, (reading, _) in zip((process.stdout, process.stderr), pipes, strict=True):
        await asyncio.get_running_loop().connect_read_pipe(
            functools.partial(asyncio.StreamReaderProtocol, reader), os.fdopen(reading, "rb", buffering=0)
        )
    return process


def _be_command(
    arguments: list[str], cwd: Path, env: dict[str, str], streams: Sequence[Connection], is_session: bool
) -> None:
    for number, each in enumerate(streams):
        os.dup2(each.fileno(), number)
        each.close()
    if is_session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing gave it nothing to read
    sys.argv = arguments
    main()
