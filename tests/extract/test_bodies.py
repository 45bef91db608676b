"""How much of the bodies is in memory at once, and that each of them is read to its end all the same."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.extract.bodies import AnswerTooLargeError, Bodies
from etl.extract.client import Client
from etl.extract.endpoints import get_execution
from etl.extract.transport import Access, Limits, Transport
from tests.support import examples

OK = b'{"status": true, "result": {"execution_id": "x", "status": "completed"}}'
MB = b" " * (1 << 20)
MOST_BYTES, CHUNK_BYTES, MOST_TURNS = 100, 10, 30


@asynccontextmanager
async def serving(size_mb: int) -> AsyncIterator[str]:
    """A server whose answers are of so many MB; yields its base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + OK + MB[len(OK) :])
        for _ in range(size_mb - 1):
            writer.write(MB)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


def connect(base_url: str, limits: Limits) -> Client:
    return Client(Access(base_url, lambda: "key", lambda: "secret"), version="1.0", limits=limits)


async def test_all_answers_together_take_little_more_memory_than_four_of_the_largest() -> None:
    """One more is joined and decoded, and the HTTP library reads 1.5 MB ahead of each."""
    at_once, size_mb = 16, 16
    limits = Limits(concurrency=at_once, max_response_bytes=size_mb << 20)
    async with serving(size_mb) as base_url, connect(base_url, limits) as client:
        tracemalloc.start()
        try:
            answers = await asyncio.gather(*(client.get(get_execution("x")) for _ in range(at_once)))
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [answer.status for answer in answers] == ["completed"] * at_once
    assert client.traffic.requests == at_once
    assert 3 * size_mb < peak_bytes >> 20 < 7 * size_mb


@dataclass
class Memory:
    """How many bytes of bodies are in it, and how many there were at most."""

    now: int = 0
    peak: int = 0

    def add(self, size_bytes: int) -> None:
        self.now += size_bytes
        self.peak = max(self.peak, self.now)


@dataclass
class Response:
    """What ``Bodies`` uses of a response: a body of so many bytes, each chunk of which arrives after so many turns of the loop.

    With ``is_cut`` the connection ends where the body should. ``cancelled_after`` so many turns, nobody wants it any more.
    """

    size_bytes: int
    turns: int = 0
    is_cut: bool = False
    cancelled_after: int | None = None
    memory: Memory = field(default_factory=Memory)
    read_bytes: int = 0
    status: int = 200

    @property
    def content(self) -> "Response":
        return self

    @property
    def headers(self) -> dict[str, str]:
        return {}

    def at_eof(self) -> bool:
        return self.read_bytes == self.size_bytes and not self.is_cut

    async def readany(self) -> bytes:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        size_bytes = min(CHUNK_BYTES, self.size_bytes - self.read_bytes)
        if not size_bytes:
            raise aiohttp.ClientPayloadError
        self.read_bytes += size_bytes
        self.memory.add(size_bytes)
        return b"x" * size_bytes

    @property
    def end(self) -> int | type[Exception]:
        """How reading it ends if nobody cancels it: the length of the body, or an error."""
        if self.size_bytes > MOST_BYTES:
            return AnswerTooLargeError
        return aiohttp.ClientPayloadError if self.is_cut else self.size_bytes


async def read_all(responses: list[Response]) -> tuple[list[int | type[BaseException]], int]:
    """How each of them ended, and how many bytes were in memory at most."""
    bodies, memory = Bodies(max_bytes=MOST_BYTES, concurrency=len(responses)), Memory()

    async def read(response: Any) -> int:
        response.memory = memory
        try:
            async with asyncio.timeout(60) as deadline:
                return len(await bodies.read(response, deadline))
        finally:
            memory.add(-response.read_bytes)

    tasks = [asyncio.create_task(read(response)) for response in responses]
    for turn in range(MOST_TURNS):
        await asyncio.sleep(0)
        for task, response in zip(tasks, responses, strict=True):
            if response.cancelled_after == turn:
                task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(end) if isinstance(end, BaseException) else end for end in ends], memory.peak


@settings(max_examples=examples(1000))
@given(
    st.lists(
        st.builds(
            Response,
            st.integers(0, 120),
            st.integers(0, 3),
            is_cut=st.booleans(),
            cancelled_after=st.none() | st.integers(0, MOST_TURNS),
        ),
        min_size=1,
        max_size=12,
    )
)
@example([Response(MOST_BYTES) for _ in range(12)])
@example([Response(MOST_BYTES, turns=1) for _ in range(12)])
def test_every_body_gets_its_turn_however_the_others_end(responses: list[Response]) -> None:
    ends, peak_bytes = asyncio.run(read_all(responses))
    for response, end in zip(responses, ends, strict=True):
        assert end == response.end or (response.cancelled_after is not None and end is asyncio.CancelledError)
    assert peak_bytes <= 4 * MOST_BYTES + len(responses) * CHUNK_BYTES, "each holds a chunk in hand while it waits"


async def test_time_for_which_a_body_waits_for_its_place_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as time nor as silence of the server, whose answer is held back. The clock jumps: nobody waits here."""
    loop, passed = asyncio.get_running_loop(), 0.0
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + passed)
    waits, is_held_back, place = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def pause_reading(protocol: ResponseHandler) -> None:
        paused(protocol)
        if waits.is_set():
            is_held_back.set()

    async def acquire() -> None:
        waits.set()
        await place.wait()

    paused = ResponseHandler.pause_reading
    monkeypatch.setattr(ResponseHandler, "pause_reading", pause_reading)
    async with serving(16) as base_url:
        transport = Transport(base_url, {}, limits=Limits(read_timeout_seconds=60))
        monkeypatch.setattr(transport._bodies._places, "acquire", acquire)
        answer = asyncio.create_task(transport.get("/", on_own_connection=False))
        await is_held_back.wait()
        passed += 10_000
        for _ in range(3):
            await asyncio.sleep(0)
        place.set()
        assert len((await answer).body) == 16 << 20
        await transport.close()
