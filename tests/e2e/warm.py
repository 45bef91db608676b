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
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn

import etl
from etl.cli import process
from etl.cli.app import main

PRELOADED = ("uvloop", "pyarrow.dataset", "rich.progress")


async def run(arguments: list[str], cwd: Path, env: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Exit code (below zero for a signal), stdout and stderr of the command."""
    with TemporaryFile() as stdout, TemporaryFile() as stderr:
        reading, writing = os.pipe()
        request = json.dumps({"argv": arguments, "cwd": os.fspath(cwd), "env": env}).encode()
        socket.send_fds(_server(), [request], [stdout.fileno(), stderr.fileno(), writing])
        os.close(writing)
        assert _server().recv(1), "the server ended"
        report = asyncio.StreamReader()
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(report), pipe
            )
            pid, exit_code = int(await report.readline()), b""
            try:
                exit_code = await report.read()
            finally:
                transport.close()
                if not exit_code:
                    os.kill(pid, signal.SIGKILL)
        for stream in (stdout, stderr):
            stream.seek(0)
        return int(exit_code), stdout.read(), stderr.read()


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
    _import_everything()
    waiting: list[int] = []
    while True:
        text, descriptors, _, _ = socket.recv_fds(requests, 1 << 16, 3)
        if not text:
            return
        waiting = [pid for pid in waiting if os.waitpid(pid, os.WNOHANG)[0] == 0]
        waiting.append(os.fork())
        if waiting[-1] == 0:
            requests.close()
            _report_on_command(json.loads(text), *descriptors)
        for each in descriptors:
            os.close(each)
        requests.send(b".")


def _import_everything() -> None:
    process.prepare()
    for name in PRELOADED:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(etl.__path__, "etl."):
        if module.name != "etl.__main__":
            with suppress(ModuleNotFoundError):  # of a warehouse whose driver is not installed here
                importlib.import_module(module.name)
    gc.freeze()


def _report_on_command(request: dict[str, Any], stdout: int, stderr: int, report: int) -> NoReturn:
    """Tell the pid of the command, and how it ended."""
    pid = os.fork()
    if pid == 0:
        _be_command(request, stdout, stderr, report)
    os.write(report, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    os.write(report, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _be_command(request: dict[str, Any], stdout: int, stderr: int, report: int) -> NoReturn:
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for each in (stdout, stderr, report):
        os.close(each)
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
