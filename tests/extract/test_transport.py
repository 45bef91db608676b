"""One GET over a socket: all that HTTP/1.1 allows is understood, and no answer is taken for another one's."""

import asyncio
import gzip
import json
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from etl.errors import NotFoundError
from etl.extract.bodies import AnswerTooLargeError, NoAnswerError
from etl.extract.client import Client
from etl.extract.endpoints import Request, get_call_metrics, get_execution, list_calls, list_executions, list_run_tests
from etl.extract.transport import Access, ConnectionLostError, Limits, Transport
from tests.certificates import certificate

CLOSED = b""
CLOSE = b"\0close"
"""At the end of an answer: the server then closes the connection."""


class Server:
    """Gives each request the next of the ``answers``, whatever it asks; keeps the requests, by connection."""

    def __init__(self, answers: Sequence[bytes | None]) -> None:
        self.answers = iter(answers)
        self.connections: list[list[bytes]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.answered: list[bytes] = []
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
                    writer.write(answer.removesuffix(CLOSE))
                    if answer.endswith(CLOSE):
                        break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def requests(self) -> list[int]:
        """How many came on each connection."""
        return [len(requests) for requests in self.connections]


@asynccontextmanager
async def listening(*answers: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, str]]:
    server = Server(answers)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server, f"http{'s' if tls else ''}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for writer in server.writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def connected(
    *answers: bytes | None,
    path: str = "",
    certified_in: Path | None = None,
    limits: Limits | None = None,
    **headers: str,
) -> AsyncIterator[tuple[Server, Transport]]:
    """Over TLS when there is a folder for its certificate."""
    ca_file, tls = certificate(certified_in, "IP:127.0.0.1") if certified_in else (None, None)
    async with listening(*answers, tls=tls) as (server, base_url):
        trusted = ssl.create_default_context(cafile=ca_file) if ca_file else None
        transport = Transport(base_url + path, headers, limits=limits or Limits(), tls=trusted)
        try:
            yield server, transport
        finally:
            await transport.close()


async def body(transport: Transport, target: str = "/", *, on_own_connection: bool = False) -> bytes:
    return (await transport.get(target, on_own_connection=on_own_connection)).body


def saying(content: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


# What goes out


async def test_request_says_what_and_by_whom_it_is_asked():
    async with connected(saying(b"x"), path="/a%20b", Accept="application/json", Key="k") as (server, transport):
        await body(transport, "/c/?d=%C3%A9")
    ((request,),) = server.connections
    first, *lines = request.decode().splitlines()
    assert first == "GET /a%20b/c/?d=%C3%A9 HTTP/1.1"
    told = {"Accept: application/json", "Key: k", "Accept-Encoding: gzip, deflate", "Cache-Control: no-cache"}
    assert told <= set(lines)
    names = [line.split(":")[0] for line in lines]
    assert names.count("Host") == 1
    assert not {"Authorization", "Cookie", "Proxy-Authorization"} & set(names)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0"])
async def test_header_that_could_hold_another_one_is_refused(value):
    for headers in ({"Key": value}, {value: "key"}):
        with pytest.raises(ValueError, match="line break"):
            Transport("http://127.0.0.1:1", headers, limits=Limits())


# All that HTTP/1.1 allows

EXECUTION, OTHER = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
CALL = "00000000-0000-4000-8000-00000000000c"


def metrics_json(call: str) -> bytes:
    result = {"call_execution_id": call, "execution_id": EXECUTION, "status": "completed"}
    return json.dumps({"status": True, "result": result}).encode()


PLAIN = metrics_json(CALL)
CHUNKS = b"5\r\n%b\r\n%x;name=value\r\n%b\r\n0\r\n" % (PLAIN[:5], len(PLAIN) - 5, PLAIN[5:])


def packed(content: bytes, encoding: str) -> bytes:
    return saying(content, f"Content-Encoding: {encoding}")


RAW_DEFLATE = zlib.compressobj(wbits=-zlib.MAX_WBITS)

ALLOWED = {
    "length": saying(PLAIN),
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"\r\n",
    "chunks with trailers": b"HTTP/1.1 200 OK\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNKS
    + b"Sum: 1\r\nOther: 2\r\n\r\n",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + saying(PLAIN),
    "gzip": packed(gzip.compress(PLAIN, mtime=0), "gzip"),
    "gzip in two members": packed(gzip.compress(PLAIN[:5]) + gzip.compress(PLAIN[5:]), "gzip"),
    "gzip in many members": packed(
        b"".join(gzip.compress(PLAIN[each : each + 1]) for each in range(len(PLAIN))), "gzip"
    ),
    "x-gzip": packed(gzip.compress(PLAIN, mtime=0), "X-GZip"),
    "deflate": packed(zlib.compress(PLAIN), "deflate"),
    "deflate without its header": packed(RAW_DEFLATE.compress(PLAIN) + RAW_DEFLATE.flush(), "deflate"),
    "packed twice": packed(gzip.compress(zlib.compress(PLAIN)), "deflate, gzip"),
    "identity": packed(PLAIN, "identity"),
    "lower case and no reason": b"HTTP/1.1 200 \r\ncontent-length:%d\r\n\r\n%b" % (len(PLAIN), PLAIN),
    "close": saying(PLAIN, "Connection: close") + CLOSE,
    "close without a word": saying(PLAIN) + CLOSE,
    "end of the connection is the end of the body": b"HTTP/1.1 200 OK\r\n\r\n" + PLAIN + CLOSE,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PLAIN), PLAIN) + CLOSE,
}


def client_of(base_url: str, **limits: Any) -> Client:
    access = Access(base_url, api_key=lambda: "key", secret_key=lambda: "secret")
    return Client(access, version="1.0", limits=Limits(**limits))


@pytest.mark.parametrize("answer", ALLOWED.values(), ids=ALLOWED)
async def test_whatever_http_allows_is_understood_at_once(answer):
    async with listening(*[answer] * 4) as (server, base_url):
        async with client_of(base_url, max_tries=1) as client:
            for _ in range(4):
                assert (await client.get(get_call_metrics(CALL, EXECUTION))).call_execution_id == CALL
        assert client.traffic.retries == 0
    assert sum(server.requests) == 4


async def test_empty_body_needs_no_unpacking():
    async with connected(saying(b"", "Content-Encoding: gzip", status="404 Not Found")) as (_, transport):
        assert await body(transport) == b""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "ClientResponseError"),
        # HTTP allows to refuse it or to take one of them; aiohttp refuses it.
        (saying(PLAIN, f"Content-Length: {len(PLAIN)}"), "ClientResponseError"),
        (saying(b"x" * 9)[:-1] + CLOSE, "ClientPayloadError"),
        (packed(b"x", "br"), "Content-Encoding br"),
        (packed(gzip.compress(b"", mtime=0), "deflate, gzip"), "damaged Content-Encoding"),
        (packed(b"x", "gzip"), "damaged Content-Encoding"),
        (packed(gzip.compress(PLAIN, mtime=0)[:-9], "gzip"), "damaged Content-Encoding"),
        (packed(b"x", "deflate"), "damaged Content-Encoding"),
        (packed(zlib.compress(PLAIN)[:-9], "deflate"), "damaged Content-Encoding"),
    ],
)
async def test_answer_that_is_not_whole_is_an_error(answer, reason):
    async with connected(answer) as (_, transport):
        with pytest.raises(NoAnswerError, match=rf"no complete answer from 127\.0\.0\.1: {reason}"):
            await body(transport)


@pytest.mark.parametrize("size", [999, 1000, 1001, 5000])
@pytest.mark.parametrize(
    "pack",
    [
        saying,
        lambda content: packed(gzip.compress(content), "gzip"),
        lambda content: packed(zlib.compress(content), "deflate"),
    ],
    ids=["plain", "gzip", "deflate"],
)
async def test_body_is_capped_as_it_arrives_and_unpacked(pack: Callable[[bytes], bytes], size: int):
    async with connected(pack(b" " * size), limits=Limits(max_response_bytes=1000)) as (_, transport):
        if size <= 1000:
            assert len(await body(transport)) == size
        else:
            with pytest.raises(AnswerTooLargeError):
                await body(transport)


# Connections


@pytest.mark.parametrize(
    ("base_url", "reason"),
    [("http://127.0.0.1:{port}", "connection refused"), ("http://metrics.invalid", "Name or service not known")],
)
async def test_server_that_cannot_be_reached_names_the_setting(base_url, reason):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    transport = Transport(base_url.format(port=port), {}, limits=Limits())
    with pytest.raises(NoAnswerError, match=rf"{reason}; check \[api\] base_url or FI_BASE_URL$"):
        await body(transport)
    await transport.close()


async def test_connection_is_used_again():
    async with connected(saying(b"1"), saying(b"2")) as (server, transport):
        kept = [transport.has_kept]
        for answer in (b"1", b"2"):
            assert await body(transport) == answer
            kept.append(transport.has_kept)
    assert kept == [False, True, True]
    assert server.requests == [2]


async def test_request_on_its_own_connection_shares_it_with_nobody():
    async with connected(*map(saying, (b"1", b"2", b"3", b"4"))) as (server, transport):
        for on_own_connection in (False, True, True, False):
            await body(transport, on_own_connection=on_own_connection)
    assert server.requests == [2, 1, 1]


async def test_connection_that_was_silent_for_long_is_not_used_again(monkeypatch):
    """A server that closes it may be about to. The clock jumps by a quarter of a minute."""
    async with connected(saying(b"1"), saying(b"2")) as (server, transport):
        assert await body(transport) == b"1"
        monkeypatch.setattr("aiohttp.connector.monotonic", lambda: time.monotonic() + 15.1)
        assert await body(transport) == b"2"
    assert server.requests == [1, 1]


async def test_connection_that_the_server_closed_meanwhile_is_not_used_again():
    async with connected(saying(b"1"), saying(b"2")) as (server, transport):
        assert await body(transport) == b"1"
        server.writers[0].close()
        await server.writers[0].wait_closed()
        await asyncio.sleep(0.01)
        assert await body(transport) == b"2"


async def test_answer_that_was_given_up_is_nobody_elses():
    async with connected(None, saying(b"mine")) as (server, transport):
        given_up = asyncio.create_task(body(transport))
        await server.asked.wait()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert await body(transport) == b"mine"
    assert server.requests == [1, 1]


async def test_second_answer_that_comes_with_the_first_is_nobodys():
    async with connected(saying(b"asked") + saying(b"not asked"), saying(b"mine")) as (_, transport):
        assert [await body(transport) for _ in range(2)] == [b"asked", b"mine"]


async def test_late_answer_is_never_taken_by_a_request_on_its_own_connection():
    async with connected(saying(b"asked"), saying(b"mine")) as (server, transport):
        assert await body(transport) == b"asked"
        server.writers[0].write(saying(b"not asked"))
        await server.writers[0].drain()
        await asyncio.sleep(0.01)
        assert await body(transport, on_own_connection=True) == b"mine"


@pytest.mark.parametrize("on_own_connection", [False, True])
@pytest.mark.parametrize("first", [CLOSED, saying(b"1")], ids=["new", "kept"])
async def test_connection_that_breaks_is_not_asked_again_in_secret(first, on_own_connection):
    """Neither the quota nor max_tries would know of the second request."""
    async with connected(first, CLOSED, CLOSED, CLOSED) as (server, transport):
        with suppress(ConnectionLostError):
            await body(transport, on_own_connection=on_own_connection)
        with pytest.raises(ConnectionLostError):
            await body(transport, on_own_connection=on_own_connection)
    assert sum(server.requests) == 2


async def test_closing_waits_for_the_end_of_tls(tmp_path: Path) -> None:
    async with connected(saying(b"1"), saying(b"2"), certified_in=tmp_path) as (server, transport):
        await body(transport)
        await body(transport, on_own_connection=True)
        await transport.close()
        assert all(writer.is_closing() for writer in server.writers), "the server was not told"


@pytest.mark.parametrize(
    "answer",
    [
        packed(b"plain", "utf-8"),
        packed(b"plain", "none"),
        packed(gzip.compress(b"plain", mtime=0) + b"\0\0", "gzip"),
        packed(gzip.compress(b"plain", mtime=0) + b"trailing", "gzip"),
        packed(gzip.compress(b"pl", mtime=0) + gzip.compress(b"ain", mtime=0), "gzip"),
    ],
    ids=["utf-8", "none", "padded", "trailed", "in two members"],
)
async def test_odd_encoding_whose_content_is_plain_is_read(answer):
    async with connected(answer) as (_, transport):
        assert await body(transport) == b"plain"


# Time


SHORT = Limits(connect_timeout_seconds=0.1, read_timeout_seconds=0.1)


async def test_silent_server_is_cut_off_when_its_time_is_over_and_not_before():
    async with connected(None, limits=SHORT) as (_, transport):
        begun_at = time.monotonic()
        with pytest.raises(NoAnswerError, match="timeout"):
            await body(transport)
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
        transport = Transport(base_url, {}, limits=Limits(connect_timeout_seconds=0.1, read_timeout_seconds=0.5))
        begun_at = time.monotonic()
        try:
            with pytest.raises(NoAnswerError, match="timeout"):
                await body(transport)
        finally:
            await transport.close()
            await ended.wait()
    assert 2.55 < time.monotonic() - begun_at < 10, "connect + 5 x read"


@pytest.mark.parametrize("cut", ["silence", "total"])
@pytest.mark.parametrize("is_cut_first", [True, False])
async def test_whoever_cancels_a_request_that_is_cut_off_as_well_hears_of_it(is_cut_first, cut, monkeypatch):
    """Both are due in the same turn of the loop, in either order. The clock jumps: nobody waits here."""
    loop, passed = asyncio.get_running_loop(), 0.0
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + passed)
    limits = Limits(connect_timeout_seconds=1, read_timeout_seconds=100)
    answer = None if cut == "silence" else b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"
    async with connected(answer, limits=limits) as (server, transport):
        task = asyncio.create_task(body(transport))
        await server.asked.wait()
        due_at = loop.time() + (100 if cut == "silence" else 501)
        while due_at - loop.time() > 100:
            passed += 80
            server.writers[0].write(b" ")
            await asyncio.sleep(0.02)
        loop.call_at(due_at + (5 if is_cut_first else -5), task.cancel)
        passed += due_at + 10 - loop.time()
        with pytest.raises(asyncio.CancelledError):
            await task


# What the client makes of late answers


def metrics_of(call: str) -> bytes:
    return saying(metrics_json(call))


def calls_of(execution: str, count: int = 0) -> bytes:
    page = f'{{"total_pages": 1, "current_page": 1, "count": {count}, "results": []}}'
    return saying(f'{{"status": true, "result": {{"execution_id": "{execution}", "call_results": {page}}}}}'.encode())


EXECUTIONS = saying(
    f'{{"status": true, "result": {{"total_pages": 1, "current_page": 1, "count": 1, "results": '
    f'[{{"execution_id": "{EXECUTION}", "status": "completed"}}]}}}}'.encode()
)
EXECUTION_ITSELF = saying(
    f'{{"status": true, "result": {{"execution_id": "{EXECUTION}", "status": "completed"}}}}'.encode()
)
RUN_TESTS = saying(b'{"total_pages": 1, "current_page": 1, "count": 1, "results": [{"id": "r", "name": "mine"}]}')
OTHER_RUN_TESTS = saying(
    b'{"total_pages": 1, "current_page": 1, "count": 1, "results": [{"id": "s", "name": "theirs"}]}'
)
NOBODYS = saying(
    b'{"status": true, "result": {"total_pages": 1, "current_page": 1, "count": 1, "results": '
    b'[{"execution_id": "theirs", "status": "completed"}]}}'
)
NOT_FOUND = saying(b'{"status": false, "message": "Gone."}', status="404 Not Found")


@pytest.mark.parametrize(
    ("late", "request_", "own"),
    [
        (metrics_of(OTHER), get_call_metrics(CALL, EXECUTION), metrics_of(CALL)),
        (saying(b"{}", status="401 No"), get_call_metrics(CALL, EXECUTION), metrics_of(CALL)),
        (saying(b"{}", status="400 No"), get_call_metrics(CALL, EXECUTION), metrics_of(CALL)),
        (NOT_FOUND, get_call_metrics(CALL, EXECUTION), metrics_of(CALL)),
        (NOT_FOUND, list_calls(EXECUTION, page=1, limit=9), calls_of(EXECUTION)),
        (calls_of(OTHER, count=7), list_calls(EXECUTION, page=1, limit=9), calls_of(EXECUTION)),
        (metrics_of(CALL), list_calls(EXECUTION, page=1, limit=9), calls_of(EXECUTION)),
        (NOBODYS, list_executions("A", page=1, limit=9), EXECUTIONS),
        (NOBODYS, list_executions("A", page=1, limit=9, is_probe=True), EXECUTIONS),
        (OTHER_RUN_TESTS, list_run_tests(page=1, limit=9), RUN_TESTS),
        (calls_of(EXECUTION), get_execution(EXECUTION), EXECUTION_ITSELF),
        (NOT_FOUND, get_execution(EXECUTION), EXECUTION_ITSELF),
        (saying(b"{}", status="500 Oops"), list_calls(EXECUTION, page=1, limit=9, is_probe=True), calls_of(EXECUTION)),
    ],
)
async def test_late_answer_to_another_request_is_never_taken(late, request_: Request[Any], own):
    warm_up = get_call_metrics("00000000-0000-4000-8000-00000000000d", EXECUTION)
    first = metrics_of("00000000-0000-4000-8000-00000000000d")
    async with listening(first, own, own) as (server, base_url), client_of(base_url) as client:
        await client.get(warm_up)
        server.writers[0].write(late)
        await server.writers[0].drain()
        await asyncio.sleep(0.01)
        value = await client.get(request_)
        assert value == request_.decode(_result(own))
        assert client.traffic.requests == (3 if request_.names_subject else 2)
        assert client.traffic.retries == 0


@pytest.mark.parametrize("late", [NOT_FOUND, metrics_of(OTHER)], ids=["an error", "another call"])
async def test_late_answer_does_not_shift_those_of_all_requests_that_follow(late):
    calls = [f"00000000-0000-4000-8000-0000000000{number:02}" for number in range(8)]

    async with (
        listening(metrics_of(calls[0]), *(metrics_of(each) for each in calls[1:] for _ in range(2))) as (
            server,
            base_url,
        ),
        client_of(base_url) as client,
    ):
        await client.get(get_call_metrics(calls[0], EXECUTION))
        server.answers = answers_for(server)
        server.writers[0].write(late)
        await server.writers[0].drain()
        await asyncio.sleep(0.01)
        for call in calls[1:]:
            assert (await client.get(get_call_metrics(call, EXECUTION))).call_execution_id == call
        assert client.traffic.requests <= len(calls) + 2
        assert client.traffic.retries == 0


def answers_for(server: Server) -> Iterator[bytes]:
    """To each request its own answer."""
    while True:
        asked = next(
            requests[-1] for requests in server.connections if requests and requests[-1] not in server.answered
        )
        server.answered.append(asked)
        yield metrics_of(asked.partition(b"call_execution_id=")[2].split()[0].decode())


async def test_call_that_is_gone_is_confirmed_on_a_connection_of_its_own():
    async with listening(metrics_of(OTHER), NOT_FOUND, NOT_FOUND) as (server, base_url), client_of(base_url) as client:
        await client.get(get_call_metrics(OTHER, EXECUTION))
        with pytest.raises(NotFoundError):
            await client.get(get_call_metrics(CALL, EXECUTION))
    assert (server.requests, client.traffic.requests) == ([2, 1], 3)


def _result(answer: bytes) -> Any:
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    return document.get("result", document)


async def test_server_that_closes_after_each_answer_costs_neither_a_retry_nor_a_failure():
    """It says nothing of it, so that the next request may be on its way already."""
    calls = [f"00000000-0000-4000-8000-0000000000{number:02}" for number in range(20)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(metrics_of(request.partition(b"call_execution_id=")[2].split()[0].decode()))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with client_of(base_url, max_tries=1) as client:
            for call in calls:
                assert (await client.get(get_call_metrics(call, EXECUTION))).call_execution_id == call
    assert client.traffic.retries == 0
    assert len(calls) <= client.traffic.requests < 1.5 * len(calls), "each request that went out is counted"
    assert client.quota._in_flight == 0


async def test_request_on_a_kept_connection_that_breaks_is_sent_once_more_and_counted():
    first, second = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2))
    async with (
        listening(metrics_of(first), CLOSED, metrics_of(second)) as (server, base_url),
        client_of(base_url, max_tries=1) as client,
    ):
        await client.get(get_call_metrics(first, EXECUTION))
        await client.get(get_call_metrics(second, EXECUTION))
    assert server.requests == [2, 1]
    assert (client.traffic.requests, client.traffic.retries) == (3, 0)
