"""The client over loopback: what it asks again, what it never does, and that the keys stay where they belong.

Backoff is cut to milliseconds here. Where a test must wait, it waits for an event, never for a while.
"""

import asyncio
import ssl
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
from aiohttp import web

from etl.errors import (
    ConfigurationError,
    ExporterError,
    KeyRefusedError,
    NotFoundError,
    RequestRefusedError,
    ServerFaultError,
    SourceError,
    SourceUnavailableError,
    TransientError,
)
from etl.extract import client as client_module
from etl.extract import gate
from etl.extract import quota as quota_module
from etl.extract.client import Client
from etl.extract.endpoints import (
    Request,
    get_call_metrics,
    get_execution,
    list_call_details,
    list_executions,
    list_run_tests,
)
from etl.extract.quota import Quota
from etl.extract.transport import Access, Limits
from etl.model.records import METRICS
from etl.sandbox import Fault, Sandbox
from tests.support import API_KEY, SECRET_KEY
from tests.worlds import settled_world

CANARY_KEY, CANARY_SECRET = "canary-key-7f3a", "canary-secret-91bc"
OK = b'{"status": true, "result": {"execution_id": "x", "status": "completed"}}'
ANY = get_execution("x")
HTML = {"Content-Type": "text/html"}


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(executions=2, calls=3)) as sandbox:
        yield sandbox


def connect(base_url: str, *, api_key: str = API_KEY, secret_key: str = SECRET_KEY, **options: Any) -> Client:
    ca_file, quota, on_hold = (options.pop(name, None) for name in ("ca_file", "quota", "on_hold"))
    access = Access(base_url, api_key=lambda: api_key, secret_key=lambda: secret_key, ca_file=ca_file)
    return Client(access, version="1.0", limits=Limits(**options), quota=quota, on_hold=on_hold)


@asynccontextmanager
async def serving(handler: Callable[[web.BaseRequest], Any]) -> AsyncIterator[str]:
    """A server of one function; yields its base URL."""
    runner = web.ServerRunner(web.Server(handler, access_log=None, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def first_execution(server: Sandbox) -> Request[Any]:
    return get_execution(server.world.run_tests[0].executions[0].execution_id)


def chain(error: BaseException | None) -> list[BaseException]:
    """The error, its causes and contexts, suppressed or not."""
    found: list[BaseException] = []
    pending = [error]
    while pending:
        each = pending.pop()
        if each is not None and each not in found:
            found.append(each)
            pending += [each.__cause__, each.__context__]
    return found


# What goes out


async def test_request_carries_the_keys_and_says_who_asks(server):
    seen = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers)
        return web.Response(body=OK)

    async with serving(handler) as base_url, connect(base_url) as client:
        await client.get(ANY)
    assert {name: seen[0][name] for name in ("X-Api-Key", "X-Secret-Key", "Accept", "User-Agent")} == {
        "X-Api-Key": API_KEY,
        "X-Secret-Key": SECRET_KEY,
        "Accept": "application/json",
        "User-Agent": "simulation-metrics-etl/1.0",
    }


async def test_name_arrives_unchanged(server):
    names = ["a&b=c+d", "100% #1/2?", "two\nlines", "nul\0", "🙂", "\u00e9", "e\u0301", "%2F", "..", "a;b"]
    async with connect(server.base_url) as client:
        for name in names:
            with suppress(NotFoundError):
                await client.get(list_executions(name, page=1, limit=2))
    for request, name in zip(server.requests, names, strict=True):
        assert request.query == {"run_test_name": name, "page": "1", "limit": "2"}
        assert unquote(request.target.partition("run_test_name=")[2].partition("&")[0]) == name


async def test_environment_and_home_change_nothing(server, monkeypatch, tmp_path):
    """A proxy would see the keys; credentials of a .netrc make the API ignore them."""
    proxied = []

    async def proxy(request: web.BaseRequest) -> web.Response:
        proxied.append(request.path)
        return web.Response(body=OK)

    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with serving(proxy) as proxy_url:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy_url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with connect(server.base_url) as client:
            await client.get(first_execution(server))  # an Authorization header would be a 401
    assert not proxied


async def test_cookies_are_not_kept():
    seen = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        return web.Response(body=OK, headers={"Set-Cookie": "session=1"})

    async with serving(handler) as base_url, connect(base_url) as client:
        await client.get(ANY)
        await client.get(ANY)
    assert seen == [None, None]


# What is asked again


async def test_answer_comes_through_after_any_mixture_of_faults(server):
    faults = [
        Fault(status=500, body=b"{}"),
        Fault(status=502, body=b"<html>", headers=HTML),
        Fault(status=503),
        Fault(status=429, headers={"Retry-After": "0"}),
        Fault(body=b""),
        Fault(body=b"<html>", headers=HTML),
        Fault(body=b'{"status": false}'),
        Fault(cut_after_bytes=20),
        Fault(cut_after_bytes=0),
        Fault(is_reset=True),
        Fault(headers={"Content-Encoding": "gzip"}),
    ]
    server.fault = lambda _request, nth: faults[nth - 1] if nth <= len(faults) else None
    quota = Quota(requests_per_minute=1000)  # known, so that nothing is learned from the one refusal
    async with connect(server.base_url, max_tries=len(faults) + 1, quota=quota) as client:
        execution = await client.get(first_execution(server))
    assert execution.status == "completed"
    assert len(server.requests) == client.traffic.requests == len(faults) + 1
    assert client.traffic.retries == len(faults)
    assert client.traffic.rejections == 1


async def test_request_that_the_limit_refuses_again_and_again_is_no_failed_try(server):
    """A limit by the second lets some of each burst through: chance must not refuse the same request until it is given up."""
    server.fault = lambda _request, nth: Fault(status=429, headers={"Retry-After": "0.05"}) if nth <= 5 else None
    async with connect(server.base_url, max_tries=1) as client:
        execution = await client.get(first_execution(server))
    assert execution.status == "completed"
    assert (client.traffic.requests, client.traffic.rejections, client.traffic.retries) == (6, 5, 5)


@pytest.mark.parametrize("fault", [Fault(status=502), Fault(body=b""), Fault(cut_after_bytes=0), Fault(status=401)])
async def test_what_a_run_can_do_without_is_tried_once(server, fault):
    server.fault = lambda _request, _nth: fault
    async with connect(server.base_url, max_tries=6) as client:
        for _ in range(3):
            with pytest.raises(SourceError):
                await client.get(list_call_details("2c1b8a60-0000-4000-8000-000000000000", limit=10))
    assert len(server.requests) <= 3 + 1


async def test_what_a_run_can_do_without_holds_nothing_for_hours(server):
    server.fault = lambda _request, nth: Fault(status=(503, 429)[nth % 2], headers={"Retry-After": "80000"})
    async with connect(server.base_url) as client:
        for _ in range(2):
            with pytest.raises(SourceError):
                await client.get(list_call_details("2c1b8a60-0000-4000-8000-000000000000", limit=10))
        server.fault = None
        assert (await client.get(first_execution(server))).status == "completed"


@pytest.mark.parametrize(
    "other", [Fault(status=502), Fault(status=500), Fault(body=b"<html>", headers=HTML), Fault(is_reset=True)]
)
@pytest.mark.parametrize("status", [429, 503])
async def test_server_that_fails_between_two_refusals_lets_nothing_through(server, monkeypatch, status, other):
    """Of two servers behind a balancer one is being repaired, and the other is broken."""
    monkeypatch.setattr(gate, "_LONGEST_WAIT_SECONDS", 0.25)
    repaired = Fault(status=status, headers={"Retry-After": "0.2"})
    server.fault = lambda _request, nth: (repaired, other)[nth % 2]
    async with connect(server.base_url, max_tries=12) as client:
        with pytest.raises(SourceUnavailableError, match="accepts no requests until"):
            await client.get(first_execution(server))


async def test_request_that_is_refused_for_ever_is_given_up(server):
    server.fault = lambda _request, _nth: Fault(status=429, headers={"Retry-After": "0.01"})
    async with connect(server.base_url, max_tries=2) as client:
        with pytest.raises(TransientError):
            await client.get(first_execution(server))
    assert client.traffic.rejections == len(server.requests) == 12


@pytest.mark.parametrize(
    "fault", [Fault(status=500), Fault(status=504), Fault(body=b"null"), Fault(cut_after_bytes=5), Fault(is_reset=True)]
)
@pytest.mark.parametrize("max_tries", [1, 3])
async def test_max_tries_bounds_the_tries(server, fault, max_tries):
    server.fault = lambda _request, _nth: fault
    async with connect(server.base_url, max_tries=max_tries) as client:
        with pytest.raises(TransientError) as caught:
            await client.get(first_execution(server))
    assert caught.value.tries == max_tries == len(server.requests)
    assert client.traffic.retries == max_tries - 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        *((Fault(status=status), RequestRefusedError) for status in (204, 301, 302, 307, 400, 405, 406, 410, 422)),
        (Fault(status=404, body=b"<html>", headers=HTML), RequestRefusedError),
        (Fault(status=404, body=b'{"status": false, "message": "Gone."}'), NotFoundError),
        (Fault(status=401), KeyRefusedError),
        (Fault(status=403, body=b"<html>", headers=HTML), RequestRefusedError),
    ],
)
async def test_refusal_is_asked_once(server, fault, kind):
    server.fault = lambda _request, _nth: fault
    async with connect(server.base_url) as client:
        with pytest.raises(kind) as caught:
            await client.get(first_execution(server))
    assert type(caught.value) is kind
    assert len(server.requests) == 1


async def test_500_on_a_later_page_is_for_the_one_who_pages(server):
    name = server.world.run_tests[0].name
    async with connect(server.base_url) as client:
        with pytest.raises(ServerFaultError, match="page 9") as caught:
            await client.get(list_executions(name, page=9, limit=10))
    assert caught.value.is_final
    assert caught.value.tries == len(server.requests) == 1


async def test_other_faults_on_a_later_page_are_asked_again(server):
    server.fault = lambda _request, nth: [Fault(status=502), Fault(is_reset=True), None][min(nth, 3) - 1]
    name = server.world.run_tests[0].name
    async with connect(server.base_url) as client:
        assert len((await client.get(list_executions(name, page=2, limit=1))).results) == 1
    assert len(server.requests) == 3


# Keys


async def test_redirect_is_not_followed_and_its_target_sees_nothing(server):
    reached = []

    async def target(request: web.BaseRequest) -> web.Response:
        reached.append(dict(request.headers))
        return web.Response(body=OK)

    async with serving(target) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            server.fault = lambda _request, _nth, status=status: Fault(
                status=status, headers={"Location": f"{elsewhere}/x"}
            )
            async with connect(server.base_url) as client:
                with pytest.raises(RequestRefusedError, match="never followed"):
                    await client.get(first_execution(server))
    assert not reached
    assert len(server.requests) == 5


async def echo(request: web.BaseRequest) -> web.Response:
    """What a debugging proxy, or a wrong FI_BASE_URL, may do."""
    status = int(request.query.get("execution_id", "500"))
    text = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
    return web.Response(status=status, text=f"{request.headers['X-Api-Key']} {request.headers['X-Secret-Key']} {text}")


def error_texts(error: BaseException) -> str:
    return "\n".join(
        [*traceback.format_exception(error), *(f"{each!s} {each!r} {each.args} {vars(each)}" for each in chain(error))]
    )


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 429, 500, 503])
async def test_error_about_an_answer_holds_no_key_even_when_the_server_echoes_them(monkeypatch, status):
    monkeypatch.setattr(quota_module, "_NO_HINT_SECONDS", 0.02)
    keys = {"api_key": CANARY_KEY, "secret_key": CANARY_SECRET}
    async with serving(echo) as base_url, connect(base_url, **keys, max_tries=1) as client:
        with pytest.raises(ExporterError) as caught:
            await client.get(get_execution(str(status)))
    assert "canary" not in error_texts(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(is_reset=True),
        Fault(cut_after_bytes=10),
        Fault(is_hanging=True),
        Fault(headers={"Content-Encoding": "gzip"}),
        Fault(headers={"Content-Encoding": "deflate"}, body=b"\0\0\0"),
    ],
)
async def test_error_without_a_whole_answer_holds_no_key(server, fault):
    server.fault = lambda _request, _nth: fault
    keys = {"api_key": CANARY_KEY, "secret_key": CANARY_SECRET}
    async with connect(server.base_url, **keys, max_tries=2, read_timeout_seconds=0.05) as client:
        with pytest.raises(TransientError, match=r"no complete answer from 127\.0\.0\.1: ") as caught:
            await client.get(first_execution(server))
    assert "canary" not in error_texts(caught.value)
    assert not any(type(each).__module__.startswith("aiohttp") for each in chain(caught.value))


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_error_about_a_foreign_protocol_holds_no_key(scheme):
    listener = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    base_url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener, connect(base_url, api_key=CANARY_KEY, secret_key=CANARY_SECRET, max_tries=1) as client:
        with pytest.raises(SourceError) as caught:
            await client.get(ANY)
    assert "canary" not in error_texts(caught.value)


async def test_bug_below_the_client_is_told_without_its_text(server, monkeypatch):
    async def fail(_: aiohttp.TCPConnector, request: aiohttp.ClientRequest, **__: Any) -> None:
        raise LookupError(f"no luck with {request.headers}")

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", fail)
    async with connect(server.base_url, api_key=CANARY_KEY, secret_key=CANARY_SECRET) as client:
        with pytest.raises(RuntimeError, match=r"^execution x: LookupError at .*test_client\.py:\d+$") as caught:
            await client.get(ANY)
    assert "canary" not in error_texts(caught.value)


async def test_client_and_access_show_no_key():
    client = connect("https://127.0.0.1", api_key=CANARY_KEY, secret_key=CANARY_SECRET)
    assert "canary" not in f"{client!r} {client._access!r} {vars(client)}"


LONG_KEY = "canary-key-of-32-characters-7f3a"


async def test_payload_that_holds_a_key_comes_without_it():
    """The dataset has more readers than the key: it is the one thing in an answer that is not kept."""

    async def handler(request: web.BaseRequest) -> web.Response:
        payload = {"execution_id": "x", "status": "completed", "note": f"called with {request.headers['X-Api-Key']}"}
        return web.json_response({"status": True, "result": payload})

    async with serving(handler) as base_url, connect(base_url, api_key=LONG_KEY) as client:
        execution = await client.get(ANY)
    assert execution.payload["note"] == "called with [key]"
    assert client.traffic.redactions == 1


async def test_short_key_takes_no_word_out_of_the_data():
    """A server of one's own may have the key "completed"."""

    async def handler(_request: web.BaseRequest) -> web.Response:
        return web.Response(body=OK)

    async with serving(handler) as base_url, connect(base_url, api_key="completed") as client:
        assert (await client.get(ANY)).status == "completed"
    assert client.traffic.redactions == 0


# TLS


async def test_tls_failure_is_not_asked_again(server):
    async with connect(server.base_url.replace("http:", "https:")) as client:
        with pytest.raises(RequestRefusedError, match=r"TLS failed at 127\.0\.0\.1: .*ca_file"):
            await client.get(ANY)
    assert client.traffic.requests == 1


async def test_ca_file_is_used_or_named(tmp_path):
    (tmp_path / "empty.pem").write_text("")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(ConfigurationError, match=f"ca_file: .*{name}"):
            async with connect("https://127.0.0.1", ca_file=str(tmp_path / name)):
                pass
    bundle = ssl.get_default_verify_paths().cafile
    async with connect("https://127.0.0.1:9", ca_file=bundle, max_tries=1) as client:
        with pytest.raises(TransientError):
            await client.get(ANY)


# Sizes


async def test_answer_beyond_the_cap_is_refused_while_it_streams(server):
    sent = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            for _ in range(1024):
                await response.write(b" " * (1 << 16))
                sent += 1 << 16
        return response

    async with serving(handler) as base_url, connect(base_url, max_response_bytes=1 << 20) as client:
        with pytest.raises(RequestRefusedError, match=r"exceeds 1 MiB; see .api. max_response_mb"):
            await client.get(ANY)
    assert client.traffic.requests == 1
    assert sent < 16 << 20


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("text", [b"<", b"{}"], ids=["page", "JSON"])
async def test_error_does_not_keep_the_body_that_it_tells_of(text, status):
    """A retry waits with the error in hand, and many may."""
    page = text + b" " * (8 << 20)

    async def handler(_request: web.BaseRequest) -> web.Response:
        return web.Response(body=page, status=status)

    async with serving(handler) as base_url, connect(base_url, max_tries=2) as client:
        tracemalloc.start()
        try:
            with pytest.raises(SourceError) as caught:
                await client.get(ANY)
            kept_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert caught.value.tries == (1 if status == 404 else 2)
    assert kept_bytes < 1 << 20


async def test_body_of_a_refusal_is_not_kept_while_the_rate_limit_holds(monkeypatch):
    monkeypatch.setattr(quota_module, "_NO_HINT_SECONDS", 0.01)
    answers = iter([web.Response(body=b" " * (8 << 20), status=429), web.Response(body=OK)])
    kept_bytes = []

    async def handler(_request: web.BaseRequest) -> web.Response:
        return next(answers)

    async with serving(handler) as base_url, connect(base_url) as client:
        wait = client.gate.wait

        async def noting_wait() -> None:
            kept_bytes.append(tracemalloc.get_traced_memory()[0])
            await wait()

        monkeypatch.setattr(client.gate, "wait", noting_wait)
        tracemalloc.start()
        try:
            await client.get(ANY)
        finally:
            tracemalloc.stop()
    assert len(kept_bytes) == 2
    assert kept_bytes[1] < 1 << 20


# Holding back


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, headers={"Retry-After": "40"}),
        Fault(status=429, body=b'{"status": false, "result": {"retry_after": 40}}'),
        Fault(status=503, headers={"Retry-After": "40"}),
    ],
)
async def test_retry_after_holds_all_requests(server, fault, monkeypatch):
    held = asyncio.Event()
    quota = Quota()
    hold = quota.hold

    def hold_and_tell(now: float, seconds: float) -> None:
        hold(now, seconds)
        held.set()

    monkeypatch.setattr(quota, "hold", hold_and_tell)
    server.fault = lambda _request, _nth: fault
    async with connect(server.base_url, quota=quota) as client:
        refused = asyncio.create_task(client.get(first_execution(server)))
        await held.wait()
        server.fault = None
        other = asyncio.create_task(client.get(list_run_tests(page=1, limit=1)))
        done, pending = await asyncio.wait([refused, other], timeout=0.05)
        assert not done
        assert len(server.requests) == 1
        assert 39 < quota.wait_seconds(asyncio.get_running_loop().time()) <= 40
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)


async def test_held_requests_go_out_when_the_hold_ends(server):
    server.fault = lambda _request, nth: Fault(status=429, headers={"Retry-After": "0.2"}) if nth == 1 else None
    async with connect(server.base_url) as client:
        await asyncio.gather(client.get(first_execution(server)), client.get(first_execution(server)))
    refused, *later = server.requests
    assert refused.status == 429
    assert any(request.status == 200 and request.received_at - refused.received_at >= 0.19 for request in later)
    assert client.traffic.rejections == 1


async def test_told_window_is_kept_without_a_refusal():
    world = settled_world(executions=1)
    async with Sandbox(world, rate_limit=8, rate_window_seconds=1.0) as server, connect(server.base_url) as client:
        await client.get(list_run_tests(page=1, limit=1))  # tells the window
        await asyncio.gather(*(client.get(list_run_tests(page=1, limit=1)) for _ in range(12)))
    assert [request.status for request in server.requests] == [200] * 13


async def test_concurrency_is_never_exceeded():
    under_way, most = 0, 0
    all_there = asyncio.Event()

    async def handler(_request: web.BaseRequest) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 3:
            all_there.set()
        await all_there.wait()
        await asyncio.sleep(0)
        under_way -= 1
        return web.Response(body=OK)

    async with serving(handler) as base_url, connect(base_url, concurrency=3) as client:
        await asyncio.gather(*(client.get(ANY) for _ in range(30)))
    assert most == 3


async def test_request_that_waits_for_its_next_try_leaves_its_place(server, monkeypatch):
    monkeypatch.setattr(client_module, "_BACKOFF_MAX_SECONDS", 3600.0)
    monkeypatch.setattr("backoff.full_jitter", lambda value: value)
    tried = asyncio.Event()

    def fail_calls(request: Any, _nth: int) -> Fault | None:
        if "execution_id" in request.query:
            tried.set()
            return Fault(status=500)
        return None

    server.fault = fail_calls
    async with connect(server.base_url, concurrency=1) as client:
        waiting = asyncio.create_task(client.get(first_execution(server)))
        await tried.wait()
        await asyncio.wait_for(client.get(list_run_tests(page=1, limit=1)), 10)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_cancelled_request_gives_everything_back(server):
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    server.fault = lambda _request, _nth: Fault(is_hanging=True)
    async with connect(server.base_url, concurrency=1, quota=Quota(requests_per_minute=3)) as client:
        task = asyncio.create_task(client.get(first_execution(server)))
        await asked.wait()
        task.cancel()
        await asyncio.wait([task])
        server.fault = None
        await client.get(first_execution(server))
        assert client.quota._in_flight == 0


# A source that is down


def call(number: int, executions: int = 5) -> Request[Any]:
    return get_call_metrics(f"00000000-0000-4000-8000-{number:012}", f"execution {number % executions}")


@pytest.mark.parametrize("has_answered", [True, False])
async def test_source_that_fails_whatever_is_asked_is_unavailable(server, has_answered):
    keys = {"api_key": CANARY_KEY, "secret_key": CANARY_SECRET}
    async with connect(server.base_url, **(keys if not has_answered else {}), max_tries=2) as client:
        if has_answered:
            await client.get(first_execution(server))
        await server.stop()
        for number in range(client_module._GIVEN_UP_LIMIT - 1):
            with pytest.raises(TransientError, match=r"no complete answer from 127\.0\.0\.1: ") as caught:
                await client.get(call(number))
            assert caught.value.tries == 2
            assert "canary" not in error_texts(caught.value)
        with pytest.raises(SourceUnavailableError, match=server.base_url) as ended:
            await client.get(call(99))
        assert "canary" not in error_texts(ended.value)


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_many_calls_that_fail_for_ever_are_no_source_that_is_down(server, is_deleted):
    """One poisoned execution would otherwise end every night's export at the same place."""
    server.fault = lambda request, _nth: Fault(status=500) if "call_execution_id" in request.query else None
    async with connect(server.base_url, max_tries=1) as client:
        await client.get(first_execution(server))
        server.world.run_tests[0].executions[0].is_deleted = is_deleted
        for number in range(2 * client_module._GIVEN_UP_LIMIT):
            with pytest.raises(TransientError):
                await client.get(call(number))
    assert server.count(METRICS, execution_id=server.world.run_tests[0].executions[0].execution_id) == 3


@pytest.mark.parametrize("is_found", [True, False])
async def test_answer_in_between_shows_that_the_endpoint_is_there(server, is_found):
    known = first_execution(server) if is_found else get_execution("00000000-0000-4000-8000-000000000000")
    async with connect(server.base_url, max_tries=1) as client:
        for _ in range(3):
            server.fault = lambda _request, _nth: Fault(status=500)
            for _ in range(client_module._GIVEN_UP_LIMIT - 1):
                with pytest.raises(TransientError):
                    await client.get(ANY)
            server.fault = None
            with nullcontext() if is_found else pytest.raises(NotFoundError):
                await client.get(known)


async def give_up(client: Client, numbers: range, kind: type[SourceError] = TransientError) -> None:
    for number in numbers:
        with pytest.raises(kind):
            await client.get(call(number))


@pytest.mark.parametrize("has_answered", [True, False])
async def test_endpoint_that_fails_is_unavailable_though_another_answers(server, has_answered):
    """More of them are given up where it never answered."""
    execution = server.world.run_tests[0].executions[0]
    good = get_call_metrics(execution.calls[0].call_execution_id, execution.execution_id)
    limit = client_module._GIVEN_UP_LIMIT if has_answered else client_module._NEVER_ANSWERED_LIMIT
    async with connect(server.base_url, max_tries=1) as client:
        if has_answered:
            await client.get(good)
        server.fault = lambda request, _nth: Fault(status=502) if "call_execution_id" in request.query else None
        for number in range(limit - 1):
            await give_up(client, range(number, number + 1))
            await client.get(first_execution(server))
        with pytest.raises(SourceUnavailableError, match=f"fails every request to {METRICS}"):
            await client.get(call(999))


async def test_endpoint_that_answers_for_others_is_there_however_many_fail(server):
    execution = server.world.run_tests[0].executions[0]
    good = get_call_metrics(execution.calls[0].call_execution_id, execution.execution_id)
    server.fault = lambda request, _nth: Fault(status=502) if "00000000-" in request.target else None
    async with connect(server.base_url, max_tries=1) as client:
        await client.get(good)
        await give_up(client, range(2 * client_module._NEVER_ANSWERED_LIMIT))
    assert server.count(call_execution_id=execution.calls[0].call_execution_id) == 1 + 8, "a probe for each 25"


async def test_calls_of_one_execution_that_all_fail_are_no_endpoint_that_is_down(server):
    server.fault = lambda request, _nth: Fault(status=500) if "call_execution_id" in request.query else None
    async with connect(server.base_url, max_tries=1) as client:
        await client.get(first_execution(server))
        for number in range(2 * client_module._NEVER_ANSWERED_LIMIT):
            with pytest.raises(TransientError):
                await client.get(call(number, executions=1))


async def test_source_that_refuses_whatever_is_asked_is_unavailable(server):
    """As one does that redirects everything to a page about its maintenance."""
    async with connect(server.base_url) as client:
        await client.get(first_execution(server))
        server.fault = lambda _request, _nth: Fault(status=302, headers={"Location": "/maintenance"})
        await give_up(client, range(client_module._GIVEN_UP_LIMIT - 1), RequestRefusedError)
        with pytest.raises(SourceUnavailableError, match="a redirect, never followed"):
            await client.get(call(99))


async def test_vanished_pages_are_no_source_that_is_down(server):
    name = server.world.run_tests[0].name
    async with connect(server.base_url) as client:
        for _ in range(2 * client_module._GIVEN_UP_LIMIT):
            with pytest.raises(TransientError, match="page 9"):
                await client.get(list_executions(name, page=9, limit=10))


async def test_page_that_vanished_since_is_no_sign_of_a_source_that_is_down(server):
    first, *others = server.world.run_tests[0].executions
    name = server.world.run_tests[0].name
    async with connect(server.base_url, max_tries=1) as client:
        for page in (1, 2):
            await client.get(list_executions(name, page=page, limit=1))
        for execution in others:
            execution.is_deleted = True
        server.fault = lambda request, _nth: Fault(status=502) if request.query.get("limit") != "1" else None
        for limit in range(2, 2 + client_module._GIVEN_UP_LIMIT):
            with pytest.raises(TransientError):
                await client.get(list_executions(name, page=1, limit=limit))
    assert not first.is_deleted
