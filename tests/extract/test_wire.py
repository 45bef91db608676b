"""One GET over a connection: whose answer it takes, and what it never says."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp.http import HttpProcessingError

from etl.extract.wire import Wire
from tests.certificates import certificate

CLOSED = b""


class Server:
    """Gives each request the next of the ``answers``, whatever it asks; keeps the requests, by connection."""

    def __init__(self, answers: Sequence[bytes | None]) -> None:
        self.answers = iter(answers)
        self.connections: list[list[bytes]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.asked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests: list[bytes] = []
        self.connections.append(requests)
        self.writers.append(writer)
        try:
            while True:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = next(self.answers)
                self.asked.set()
                if answer == CLOSED:
                    break
                if answer is not None:
                    writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def connected(
    *answers: bytes | None, path: str = "", certified_in: Path | None = None, **headers: str
) -> AsyncIterator[tuple[Server, Wire]]:
    """Over TLS when there is a folder for its certificate."""
    server = Server(answers)
    ca_file, tls = certificate(certified_in, "IP:127.0.0.1") if certified_in else (None, None)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    url = f"http{'s' if tls else ''}://127.0.0.1:{listener.sockets[0].getsockname()[1]}{path}"
    trusted = ssl.create_default_context(cafile=ca_file) if ca_file else None
    wire = Wire(url, headers, connect_timeout_seconds=5, tls=trusted)
    try:
        yield server, wire
    finally:
        await wire.close()
        listener.close()


async def read(status: int, _headers: Mapping[str, str], content: aiohttp.StreamReader) -> tuple[int, bytes]:
    return status, await content.read()


def saying(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_request_says_what_and_by_whom_it_is_asked():
    async with connected(saying(b"x"), path="/a%20b", Accept="application/json", Key="k") as (server, wire):
        await wire.get("/c/?d=%C3%A9", read)
    ((request,),) = server.connections
    first, *lines = request.decode().splitlines()
    assert first == "GET /a%20b/c/?d=%C3%A9 HTTP/1.1"
    assert {"Accept: application/json", "Key: k"} <= set(lines)
    assert [line.split(":")[0] for line in lines].count("Host") == 1


async def test_header_that_could_hold_another_one_is_refused():
    for value in ("a\r\nb: c", "a\nb", "a\0"):
        with pytest.raises(ValueError, match="line break"):
            Wire("http://127.0.0.1:1", {"Key": value}, connect_timeout_seconds=5)


async def test_connection_is_used_again():
    async with connected(saying(b"1"), saying(b"2")) as (server, wire):
        assert [(await wire.get("/", read))[1] for _ in range(2)] == [b"1", b"2"]
    assert len(server.connections) == 1


async def test_connection_that_was_silent_for_long_is_not_used_again(monkeypatch):
    """A server that closes it may be about to."""
    monkeypatch.setattr("etl.extract.wire._KEPT_SECONDS", -1.0)
    async with connected(saying(b"1"), saying(b"2")) as (server, wire):
        assert [(await wire.get("/", read))[1] for _ in range(2)] == [b"1", b"2"]
    assert [len(requests) for requests in server.connections] == [1, 1]


async def test_connection_that_the_server_closed_meanwhile_is_not_used_again():
    async with connected(saying(b"1"), saying(b"2")) as (server, wire):
        assert await wire.get("/", read) == (200, b"1")
        ((_, idle),) = wire._idle
        server.writers[0].close()
        while idle.transport is not None:  # noqa: ASYNC110 - aiohttp tells nobody of it
            await asyncio.sleep(0)
        assert await wire.get("/", read) == (200, b"2")


async def test_answer_that_was_given_up_is_nobody_elses():
    async with connected(None, saying(b"mine")) as (server, wire):
        given_up = asyncio.create_task(wire.get("/", read))
        await server.asked.wait()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert (await wire.get("/", read))[1] == b"mine"
    assert [len(requests) for requests in server.connections] == [1, 1]


async def test_answer_that_nobody_asked_for_is_nobodys():
    async with connected(saying(b"asked") + saying(b"not asked"), saying(b"mine")) as (_, wire):
        assert [(await wire.get("/", read))[1] for _ in range(2)] == [b"asked", b"mine"]


async def test_answer_that_nobody_asked_for_is_nobodys_however_late_it_comes():
    async with connected(saying(b"asked"), saying(b"mine")) as (server, wire):
        assert await wire.get("/", read) == (200, b"asked")
        ((_, idle),) = wire._idle
        assert idle.protocol is not None
        server.writers[0].write(saying(b"not asked"))
        while not idle.protocol.should_close:  # noqa: ASYNC110 - aiohttp tells nobody that something has arrived
            await asyncio.sleep(0)
        assert await wire.get("/", read) == (200, b"mine")
    assert [len(requests) for requests in server.connections] == [1, 1]


async def test_interim_answers_are_passed_over():
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with connected(interim + saying(b"x")) as (_, wire):
        assert await wire.get("/", read) == (200, b"x")


async def test_connection_that_breaks_is_not_asked_again_in_secret():
    """The quota and max_tries would not know of the second request."""
    async with connected(saying(b"1"), CLOSED) as (server, wire):
        await wire.get("/", read)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await wire.get("/", read)
    assert sum(map(len, server.connections)) == 2


async def test_closing_waits_for_the_end_of_tls(tmp_path: Path) -> None:
    async with connected(saying(b"1"), certified_in=tmp_path) as (server, wire):
        await wire.get("/", read)
        await wire.close()
        assert server.writers[0].is_closing(), "the server was not told"


async def test_answer_that_is_not_http_is_an_error():
    async with connected(b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as (_, wire):
        with pytest.raises(HttpProcessingError):
            await wire.get("/", read)
