"""A real terminal of a given width around the command, and what was drawn on it."""

import asyncio
import codecs
import fcntl
import os
import re
import struct
import subprocess
import termios
from pathlib import Path

from tests.e2e import warm
from tests.e2e.command import COMMAND, is_warm

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOR = re.compile(r"\x1b\[(?:\d+;)*3\d(?:;\d+)*m")


class Terminal:
    """The command with stdin, stdout and stderr on one terminal; ``written`` is all that it wrote so far.

    ``echoes``: whether the terminal shows what is typed once the command has ended.
    """

    def __init__(self, *arguments: str, cwd: Path, env: dict[str, str], columns: int = 80) -> None:
        self.written = ""
        self._answered = 0
        self.echoes = False
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._main, other = os.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        words = [os.fspath(COMMAND), *arguments]
        self.process = (
            warm.Process(words, cwd, env, [other] * 3, is_session=True)
            if is_warm(env)
            else subprocess.Popen(
                words, cwd=cwd, env=env, stdin=other, stdout=other, stderr=other, start_new_session=True
            )
        )
        os.close(other)

    async def read_until(self, words: str | None) -> None:
        """Read until the words were written, or to the end when there are none to wait for."""
        while words is None or words not in self.written:
            if not await self._read_more(words):
                break

    async def _read_more(self, words: str | None) -> bool:
        """Whether there was more, as there must be while words are still to come."""
        loop = asyncio.get_running_loop()
        is_ready = asyncio.Event()  # a thread that reads could not be cancelled, and a test that fails would never end
        loop.add_reader(self._main, is_ready.set)
        try:
            await is_ready.wait()
            chunk = os.read(self._main, 65536)
        except OSError:  # the other end is closed
            chunk = b""
        finally:
            loop.remove_reader(self._main)
        assert chunk or words is None, f"{words!r} was never written: {self.written}"
        self.written += self._decoder.decode(chunk)
        return bool(chunk)

    async def answer(self, question: str, text: str) -> None:
        """Type a line once the words of a question were written."""
        while question not in self.written[self._answered :]:
            await self._read_more(question)
        self._answered = self.written.index(question, self._answered) + len(question)
        self.type(text)

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    async def ended(self) -> int:
        """The exit code, once everything was read."""
        await self.read_until(None)
        if isinstance(self.process, warm.Process):
            exit_code = await self.process.wait()
        else:
            exit_code = await asyncio.to_thread(self.process.wait)
        self.echoes = bool(termios.tcgetattr(self._main)[3] & termios.ECHO)
        os.close(self._main)
        return exit_code

    @property
    def lines(self) -> list[str]:
        """Each line as it was drawn, also those that were drawn over."""
        return [line for line in re.split(r"[\r\n]+", _CONTROL.sub("", self.written)) if line]
