"""One GET over a socket: what HTTP/1.1 allows is understood, and nothing is sent that nobody counts."""

import asyncio
import gzip
import json
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from etl.errors import RequestRefusedError, TransientError
from etl.extract.endpoints import get_call_metrics
from tests.support import client_of

CLOSED = b""
CLOSE = b"\0close"
"""At the end of an answer: the server then closes the connection."""
EXECUTION, CALL = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000c"
ANY = get_call_metrics(CALL, EXECUTION)
RESULT = {"call_execution_id": CALL, "execution_id": EXECUTION, "status": "completed"}
PLAIN = json.dumps({"status": True, "result": RESULT}).encode()


class Server:
    """Gives each request the next of the ``answers``; ``requests`` is how many came on each connection."""

    def __init__(self, answers: tuple[bytes | None, ...]) -> None:
        self.answers = iter(answers)
        self.requests: list[int] = []
        self.asked = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = len(self.requests)
        self.requests.append(0)
        self.writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests[connection] += 1
                answer = next(self.answers)
                self.asked.set()
                if answer is not None:
                    writer.write(answer.removesuffix(CLOSE))
                    if answer == CLOSED or answer.endswith(CLOSE):
                        break
        writer.close()


@asynccontextmanager
async def listening(*answers: bytes | None) -> AsyncIterator[tuple[Server, str]]:
    server = Server(answers)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        yield server, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        for writer in server.writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def saying(content: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def packed(content: bytes, encoding: str) -> bytes:
    return saying(content, f"Content-Encoding: {encoding}")


CHUNKS = b"5\r\n%b\r\n%x;name=value\r\n%b\r\n0\r\n" % (PLAIN[:5], len(PLAIN) - 5, PLAIN[5:])
ALLOWED = {
    "length": saying(PLAIN),
    "chunks with trailers": b"HTTP/1.1 200 OK\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNKS
    + b"Sum: 1\r\nOther: 2\r\n\r\n",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + saying(PLAIN),
    "gzip": packed(gzip.compress(PLAIN, mtime=0), "gzip"),
    "deflate": packed(zlib.compress(PLAIN), "deflate"),
    "lower case and no reason": b"HTTP/1.1 200 \r\ncontent-length:%d\r\n\r\n%b" % (len(PLAIN), PLAIN),
    "close": saying(PLAIN, "Connection: close") + CLOSE,
    "end of the connection is the end of the body": b"HTTP/1.1 200 OK\r\n\r\n" + PLAIN + CLOSE,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PLAIN), PLAIN) + CLOSE,
}


@pytest.mark.parametrize("answer", ALLOWED.values(), ids=ALLOWED)
async def test_whatever_http_allows_is_understood_at_once(answer):
    async with listening(*[answer] * 4) as (server, base_url), client_of(base_url, max_tries=1) as client:
        for _ in range(4):
            assert (await client.get(ANY)).call_execution_id == CALL
    assert sum(server.requests) == client.traffic.requests == 4


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "ClientResponseError"),
        # HTTP allows to refuse it or to take one of them; aiohttp refuses it.
        (saying(PLAIN, f"Content-Length: {len(PLAIN)}"), "ClientResponseError"),
        (saying(PLAIN)[:-1] + CLOSE, "ClientPayloadError"),
        (packed(PLAIN, "gzip"), "ClientPayloadError"),
    ],
)
async def test_answer_that_is_not_whole_is_an_error(answer, reason):
    async with listening(answer) as (_, base_url), client_of(base_url, max_tries=1) as client:
        with pytest.raises(TransientError, match=rf"got no complete answer from 127\.0\.0\.1: {reason}"):
            await client.get(ANY)


@pytest.mark.parametrize("is_too_large", [False, True])
@pytest.mark.parametrize(
    "pack", [saying, lambda content: packed(gzip.compress(content), "gzip")], ids=["plain", "gzip"]
)
async def test_body_is_capped_as_it_arrives_and_unpacked(pack: Callable[[bytes], bytes], *, is_too_large: bool):
    answer = pack(PLAIN.ljust((1 << 20) + is_too_large))
    async with listening(answer) as (_, base_url), client_of(base_url, max_response_mb=1) as client:
        if is_too_large:
            with pytest.raises(RequestRefusedError, match="larger than 1 MiB"):
                await client.get(ANY)
        else:
            assert (await client.get(ANY)).call_execution_id == CALL
    assert client.traffic.requests == 1


@pytest.mark.parametrize(
    ("base_url", "reason"),
    [("http://127.0.0.1:{port}", "connection refused"), ("https://metrics.invalid", "Name or service not known")],
)
async def test_server_that_cannot_be_reached_names_the_setting(base_url, reason):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with client_of(base_url.format(port=port), max_tries=1) as client:
        with pytest.raises(
            TransientError, match=rf"{reason}\. Check the network, then \[api\] base_url or FI_BASE_URL$"
        ):
            await client.get(ANY)


# Connections


async def test_connection_is_used_again():
    async with listening(*[saying(PLAIN)] * 3) as (server, base_url), client_of(base_url) as client:
        for _ in range(3):
            await client.get(ANY)
    assert server.requests == [3]


async def test_answer_that_was_given_up_is_nobody_elses():
    async with listening(None, saying(PLAIN)) as (server, base_url), client_of(base_url) as client:
        given_up = asyncio.create_task(client.get(ANY))
        await server.asked.wait()
        given_up.cancel()
        await asyncio.wait([given_up])
        assert (await client.get(ANY)).call_execution_id == CALL
    assert server.requests == [1, 1]


@pytest.mark.parametrize("first", [CLOSED, saying(PLAIN)], ids=["new", "kept"])
async def test_connection_that_breaks_is_not_retried_in_secret(first):
    """Neither the quota nor max_tries would know of the second request."""
    async with (
        listening(first, CLOSED, CLOSED, CLOSED) as (server, base_url),
        client_of(base_url, max_tries=1) as client,
    ):
        with suppress(TransientError):
            await client.get(ANY)
        with pytest.raises(TransientError):
            await client.get(ANY)
    assert sum(server.requests) == client.traffic.requests == 2


async def test_server_that_closes_after_each_answer_without_a_word_costs_no_more_than_retries():
    """The next request may be on its way already."""
    answers = [saying(PLAIN) + CLOSE] * 40
    async with listening(*answers) as (server, base_url), client_of(base_url, max_tries=2) as client:
        for _ in range(20):
            assert (await client.get(ANY)).call_execution_id == CALL
    assert sum(server.requests) <= client.traffic.requests == 20 + client.traffic.retries


# Time


async def test_silent_server_is_cut_off_when_its_time_is_over_and_not_before():
    async with listening(None) as (_, base_url), client_of(base_url, read_timeout_seconds=0.1, max_tries=1) as client:
        begun_at = time.monotonic()
        with pytest.raises(TransientError, match="timeout"):
            await client.get(ANY)
    assert 0.09 < time.monotonic() - begun_at < 5


async def test_server_that_drips_is_given_more_time_but_not_more_than_the_total():
    ended = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        ended.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as listener:
        base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with client_of(base_url, connect_timeout_seconds=0.1, read_timeout_seconds=0.4, max_tries=1) as client:
            begun_at = time.monotonic()
            with pytest.raises(TransientError, match="timeout"):
                await client.get(ANY)
            assert 2.05 < time.monotonic() - begun_at < 20, "connect + 5 x read"
        await ended.wait()
