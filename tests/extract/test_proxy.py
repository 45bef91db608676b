"""Requests through a real proxy: it sees where they go, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from etl.errors import ConfigurationError, RequestRefusedError, TransientError
from etl.extract.client import Client
from etl.extract.endpoints import Slice, get_call_metrics, list_run_tests
from etl.sandbox import Sandbox
from tests.certificates import certificate
from tests.proxy import Proxy, proxying
from tests.support import API_KEY, SECRET_KEY, client_of
from tests.worlds import settled_world

USER, PASSWORD = "canary-user", "canary-password"
ANY = list_run_tests(Slice(1, 1))


def behind(proxy_url: str, base_url: str, ca_file: Path | None, *, with_credentials: bool = True) -> Client:
    credentials = {"proxy_user": USER, "proxy_password": PASSWORD} if with_credentials else {}
    return client_of(base_url, keys=credentials, ca_file=ca_file, proxy=proxy_url, max_tries=2)


@asynccontextmanager
async def tunnelled(
    folder: Path, *, refusal: int | None = None, credentials: str | None = f"{USER}:{PASSWORD}"
) -> AsyncIterator[tuple[Sandbox, Proxy, Path]]:
    ca_file, tls = certificate(folder, "IP:127.0.0.1")
    world = settled_world(executions=1, calls=2)
    async with Sandbox(world, tls=tls) as server, proxying(credentials=credentials, refusal=refusal) as proxy:
        yield server, proxy, ca_file


@pytest.mark.parametrize("with_credentials", [True, False])
async def test_proxy_sees_its_credentials_and_the_host_and_never_a_key(tmp_path, with_credentials):
    credentials = f"{USER}:{PASSWORD}" if with_credentials else None
    async with tunnelled(tmp_path, credentials=credentials) as (server, proxy, ca_file):
        execution = server.world.run_tests[0].executions[0]
        async with behind(proxy.url, server.base_url, ca_file, with_credentials=with_credentials) as client:
            await client.get(ANY)
            for call in execution.calls:
                await client.get(get_call_metrics(call.call_execution_id, execution.execution_id))
    assert [request.status for request in server.requests] == [200] * 3
    (head,) = [head.decode() for head in proxy.seen]  # one tunnel for all
    assert head.startswith(f"CONNECT {server.base_url.removeprefix('https://')} HTTP/1.1")
    assert ("Proxy-Authorization: Basic " in head) == with_credentials
    assert "X-Api-Key" not in head
    assert "X-Secret-Key" not in head
    seen = b"".join(proxy.seen) + proxy.tunnelled
    assert proxy.tunnelled
    assert API_KEY.encode() not in seen
    assert SECRET_KEY.encode() not in seen


async def test_api_never_sees_the_credentials_of_the_proxy(tmp_path):
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            body = b'{"total_pages": 1, "current_page": 1, "count": 0, "results": []}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    ca_file, tls = certificate(tmp_path, "IP:127.0.0.1")
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as listener, proxying() as proxy:
        base_url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with behind(proxy.url, base_url, ca_file) as client:
            await client.get(ANY)
    (request,) = requests
    assert API_KEY.encode() in request
    assert b"roxy" not in request


@pytest.mark.parametrize(
    ("refusal", "with_credentials", "message"),
    [
        (None, False, r"\(407\)\. Check FI_PROXY_USER, FI_PROXY_PASSWORD and \[api\] proxy$"),
        (403, True, r"\(403\)\. Check \[api\] proxy$"),
    ],
)
async def test_proxy_that_refuses_is_a_mistake_of_the_settings(tmp_path, refusal, with_credentials, message):
    async with (
        tunnelled(tmp_path, refusal=refusal) as (server, proxy, ca_file),
        behind(proxy.url, server.base_url, ca_file, with_credentials=with_credentials) as client,
    ):
        with pytest.raises(
            ConfigurationError, match=rf"^the proxy http://\S+ denied access to 127\.0\.0\.1 {message}"
        ) as caught:
            await client.get(ANY)
    assert len(proxy.seen) == 1
    assert not server.requests
    assert "canary" not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("status", [408, 429, 502])
async def test_proxy_that_cannot_reach_the_api_now_is_retried(tmp_path, status):
    async with (
        tunnelled(tmp_path, refusal=status) as (server, proxy, ca_file),
        behind(proxy.url, server.base_url, ca_file) as client,
    ):
        with pytest.raises(
            TransientError, match=rf"through \[api\] proxy http://127.*, because the proxy answered {status}$"
        ) as caught:
            await client.get(ANY)
    assert len(proxy.seen) == caught.value.tries == 2


async def test_proxy_that_is_silent_is_given_up_after_the_time_to_connect():
    """Without it, a try would take five silences more."""
    limits: dict[str, Any] = {"connect_timeout_seconds": 0.1, "read_timeout_seconds": 600, "max_tries": 1}

    accepted = list[asyncio.StreamWriter]()

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as listener:
        proxy = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with client_of("https://api.example", proxy=proxy, **limits) as client, asyncio.timeout(30):
            with pytest.raises(TransientError, match="timeout"):
                await client.get(ANY)
        for writer in accepted:
            writer.close()


async def test_proxy_that_is_not_there_is_named_and_retried(tmp_path):
    async with (
        tunnelled(tmp_path) as (server, _, ca_file),
        behind("http://127.0.0.1:9", server.base_url, ca_file) as client,
    ):
        with pytest.raises(TransientError, match=r"cannot connect to the proxy http://127\.0\.0\.1:9 ") as caught:
            await client.get(ANY)
    assert caught.value.tries == 2
    assert "\n" not in str(caught.value)


async def test_certificate_is_checked_behind_the_proxy_too(tmp_path):
    async with tunnelled(tmp_path) as (server, proxy, _), behind(proxy.url, server.base_url, None) as client:
        with pytest.raises(RequestRefusedError, match=r"TLS connection to 127\.0\.0\.1 through \[api\] proxy"):
            await client.get(ANY)
    assert not server.requests
