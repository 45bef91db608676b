"""The client over loopback: what it retries, what it never does, and that the keys stay where they belong.

Backoff is cut to milliseconds here. Where a test must wait, it waits for an event, never for a while.
"""

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from etl.errors import (
    ConfigurationError,
    ExporterError,
    KeyRefusedError,
    NotFoundError,
    RequestRefusedError,
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
    Slice,
    get_call_metrics,
    get_execution,
    list_call_details,
    list_executions,
    list_run_tests,
)
from etl.extract.quota import Quota
from etl.model.records import METRICS
from etl.sandbox import Fault, Sandbox
from etl.version import __version__
from tests.certificates import certificate
from tests.support import API_KEY, SECRET_KEY, client_of
from tests.worlds import a_sandbox, small_world

CANARIES = {"api_key": "canary-key-7f3a", "secret_key": "canary-secret-91bc"}
OK = b'{"status": true, "result": {"execution_id": "x", "status": "completed"}}'
ANY = get_execution("x")
HTML = {"Content-Type": "text/html"}
server = a_sandbox(executions=2, calls=3)


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


async def test_request_carries_the_keys_and_says_who_asks():
    seen = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers)
        return web.Response(body=OK, headers={"Set-Cookie": "session=1"})

    async with serving(handler) as base_url, client_of(base_url) as client:
        await client.get(ANY)
        await client.get(ANY)
    for headers in seen:
        assert {
            name: headers[name] for name in ("X-Api-Key", "X-Secret-Key", "Accept", "User-Agent", "Cache-Control")
        } == {
            "X-Api-Key": API_KEY,
            "X-Secret-Key": SECRET_KEY,
            "Accept": "application/json",
            "User-Agent": f"simulation-metrics-etl/{__version__}",
            "Cache-Control": "no-cache",
        }
        assert not {"Authorization", "Cookie", "Proxy-Authorization"} & set(headers), "an answer's cookie is not kept"


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
        async with client_of(server.base_url) as client:
            await client.get(first_execution(server))  # an Authorization header would be a 401
    assert not proxied


# What is retried


async def test_request_that_the_limit_refuses_again_and_again_is_no_failed_try(server):
    """A limit by the second lets some of each burst through: chance must not make one request fail at each try."""
    server.fault = lambda _request, nth: Fault(status=429, headers={"Retry-After": "0.05"}) if nth <= 5 else None
    async with client_of(server.base_url, max_tries=1) as client:
        execution = await client.get(first_execution(server))
    assert execution.status == "completed"
    assert (client.traffic.requests, client.traffic.rejections, client.traffic.retries) == (6, 5, 5)


@pytest.mark.parametrize(("seconds", "rows"), [(60, 16_384), (30, 8192), (1, 256), (0.001, 1)])
async def test_largest_page_is_one_that_a_busy_server_gives_in_the_time_that_is_allowed(server, seconds, rows):
    """A row of a page takes 1.2 ms, or twice as long."""
    async with client_of(server.base_url, read_timeout_seconds=seconds) as client:
        assert client.largest_page.rows == rows


async def test_detail_of_an_execution_that_its_workspace_does_not_have_is_not_found(server):
    """It answers 500 where the other endpoints answer 404."""
    async with client_of(server.base_url) as client:
        with pytest.raises(NotFoundError, match="No TestExecution matches"):
            await client.get(list_call_details("2c1b8a60-0000-4000-8000-000000000000", Slice(1, 10)))
    assert len(server.requests) == 1


async def test_what_a_run_can_do_without_is_not_sent_again_to_a_server_that_is_busy_and_holds_nothing_for_hours(server):
    server.fault = lambda _request, nth: Fault(status=(503, 429)[nth % 2], headers={"Retry-After": "80000"})
    async with client_of(server.base_url) as client:
        for _ in range(2):
            with pytest.raises(TransientError):
                await client.get(list_call_details("2c1b8a60-0000-4000-8000-000000000000", Slice(1, 10)))
        assert len(server.requests) == 2
        server.fault = None
        assert (await client.get(first_execution(server))).status == "completed"


@pytest.mark.parametrize("status", [429, 503])
async def test_server_that_fails_between_two_refusals_lets_nothing_through(server, monkeypatch, status):
    """Of two servers behind a balancer one is being repaired, and the other is broken."""
    monkeypatch.setattr(gate, "_LONGEST_WAIT_SECONDS", 0.25)
    repaired, broken = Fault(status=status, headers={"Retry-After": "0.2"}), Fault(status=502)
    server.fault = lambda _request, nth: (repaired, broken)[nth % 2]
    async with client_of(server.base_url, max_tries=12) as client:
        with pytest.raises(SourceUnavailableError, match="the API allows no request until"):
            await client.get(first_execution(server))


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(status=status) for status in (301, 302, 303, 307, 308, 401, 403)),
        *(Fault(status=status, body=b"<html>", headers=HTML) for status in (401, 403, 404)),
    ],
)
async def test_refusal_among_answers_is_believed_when_it_is_repeated(server, fault):
    """One may be a mishap, or come from what is on the way to the API."""
    async with client_of(server.base_url) as client:
        await client.get(first_execution(server))
        server.fault = lambda _request, nth: fault if nth == 2 else None
        assert (await client.get(first_execution(server))).status == "completed"
        faults = [Fault(status=502), fault]
        server.fault = lambda _request, _nth: faults.pop(0) if faults else None
        assert (await client.get(first_execution(server))).status == "completed"
        server.fault = lambda _request, _nth: fault
        with pytest.raises((KeyRefusedError, RequestRefusedError)):
            await client.get(first_execution(server))
    assert len(server.requests) == client.traffic.requests == 1 + 2 + 3 + 2
    assert client.traffic.retries == 1 + 2 + 1


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
            async with client_of(server.base_url) as client:
                with pytest.raises(RequestRefusedError, match="a redirect, which metrics-etl does not follow"):
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
    async with serving(echo) as base_url, client_of(base_url, keys=CANARIES, max_tries=1) as client:
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
    async with client_of(server.base_url, keys=CANARIES, max_tries=2, read_timeout_seconds=0.05) as client:
        with pytest.raises(TransientError, match=r"got no complete answer from 127\.0\.0\.1: ") as caught:
            await client.get(first_execution(server))
    assert "canary" not in error_texts(caught.value)
    assert not any(type(each).__module__.startswith("aiohttp") for each in chain(caught.value))


async def test_bug_below_the_client_is_told_without_its_text(server, monkeypatch):
    async def fail(_: aiohttp.TCPConnector, request: aiohttp.ClientRequest, **__: Any) -> None:
        raise LookupError(f"no luck with {request.headers}")

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", fail)
    async with client_of(server.base_url, keys=CANARIES) as client:
        with pytest.raises(RuntimeError, match=r"^LookupError at .*test_client\.py:\d+$") as caught:
            await client.get(ANY)
    assert "canary" not in error_texts(caught.value)


async def test_client_and_access_show_no_key():
    client = client_of("https://127.0.0.1", keys=CANARIES)
    assert "canary" not in f"{client!r} {vars(client)}"


@pytest.mark.parametrize(
    ("key", "note"), [("canary-key-of-32-characters-7f3a", "called with [key]"), ("with", "called with with")]
)
async def test_payload_that_holds_a_key_comes_without_it_unless_that_may_be_a_word(key, note):
    """The dataset has more readers than the key: it is the one thing in an answer that is not kept."""

    async def handler(request: web.BaseRequest) -> web.Response:
        payload = {"execution_id": "x", "status": "completed", "note": f"called with {request.headers['X-Api-Key']}"}
        return web.json_response({"status": True, "result": payload})

    async with serving(handler) as base_url, client_of(base_url, keys={"api_key": key}) as client:
        execution = await client.get(ANY)
    assert execution.payload["note"] == note
    assert client.traffic.redactions == ("[key]" in note)


# TLS


async def test_tls_failure_is_not_retried(server):
    async with client_of(server.base_url.replace("http:", "https:")) as client:
        with pytest.raises(RequestRefusedError, match=r"TLS connection to 127\.0\.0\.1 failed: .*base_url and ca_file"):
            await client.get(ANY)
    assert client.traffic.requests == 1


@pytest.mark.parametrize(("name", "is_named"), [("IP:127.0.0.1", False), ("DNS:api.example.com", True)])
async def test_certificate_that_is_not_trusted_or_of_another_host_is_refused_before_a_key_is_sent(
    tmp_path, name, is_named
):
    ca_file, tls = certificate(tmp_path, name)
    trusted: dict[str, Any] = {"ca_file": ca_file} if is_named else {}
    async with Sandbox(small_world(), tls=tls) as source, client_of(source.base_url, **trusted) as client:
        with pytest.raises(RequestRefusedError, match=r"the TLS connection to 127\.0\.0\.1 failed") as refused:
            await client.get(ANY)
    assert (source.requests, client.traffic.requests) == ([], 1)
    assert is_named or "ca_file" in str(refused.value)


async def test_ca_file_is_used_or_named(tmp_path):
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ConfigurationError, match=r"ca_file .*empty\.pem"):
        async with client_of("https://127.0.0.1", ca_file=tmp_path / "empty.pem"):
            pass
    bundle = ssl.get_default_verify_paths().cafile
    async with client_of("https://127.0.0.1:9", ca_file=bundle, max_tries=1) as client:
        with pytest.raises(TransientError):
            await client.get(ANY)


# Holding back


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, headers={"Retry-After": "40"}),
        Fault(status=429, body=b'{"status": false, "result": {"retry_after": 40}}'),
        Fault(status=503, headers={"Retry-After": "40"}),
    ],
)
async def test_retry_after_holds_all_requests(server, fault):
    held = asyncio.Event()
    server.fault = lambda _request, _nth: fault
    async with client_of(server.base_url, on_hold=lambda _seconds: held.set()) as client:
        refused = asyncio.create_task(client.get(first_execution(server)))
        await held.wait()
        server.fault = None
        other = asyncio.create_task(client.get(list_run_tests(Slice(1, 1))))
        done, pending = await asyncio.wait([refused, other], timeout=0.05)
        assert not done
        assert len(server.requests) == 1
        assert 39 < client.quota.wait_seconds(asyncio.get_running_loop().time()) <= 40
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)


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

    async with serving(handler) as base_url, client_of(base_url, concurrency=3) as client:
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
    async with client_of(server.base_url, concurrency=1) as client:
        waiting = asyncio.create_task(client.get(first_execution(server)))
        await tried.wait()
        await asyncio.wait_for(client.get(list_run_tests(Slice(1, 1))), 10)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_cancelled_request_gives_everything_back(server):
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    server.fault = lambda _request, _nth: Fault(is_hanging=True)
    async with client_of(server.base_url, concurrency=1, quota=Quota(requests_per_minute=3)) as client:
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


async def give_up(
    client: Client, numbers: range, executions: int = 5, kind: type[SourceError] = TransientError
) -> None:
    for number in numbers:
        with pytest.raises(kind):
            await client.get(call(number, executions))


IS_CALL: dict[str, Callable[[Any], bool]] = {
    "everything": lambda _request: True,
    "calls": lambda request: "call_execution_id" in request.query,
    "calls but the first": lambda request: "00000000-" in request.target,
}


@pytest.mark.parametrize(
    ("answered", "failing", "executions", "ends_after"),
    [
        ("nothing", "everything", 5, client_module._GIVEN_UP_LIMIT),
        ("execution", "everything", 5, client_module._GIVEN_UP_LIMIT),
        ("call", "calls", 5, client_module._GIVEN_UP_LIMIT),
        ("execution", "calls", 5, client_module._NEVER_ANSWERED_LIMIT),
        # One poisoned execution would otherwise end every night's export at the same place.
        ("execution", "calls", 1, None),
        ("deleted execution", "calls", 1, None),
        ("call", "calls but the first", 5, None),
    ],
)
@pytest.mark.parametrize("fault", [Fault(status=502), Fault(status=302, headers={"Location": "/maintenance"})])
async def test_source_is_down_when_what_it_answered_before_fails_too(
    server, answered, failing, executions, ends_after, fault
):
    """Where no request of a kind was ever answered, many of several executions have to fail."""
    execution = server.world.run_tests[0].executions[0]
    kind = TransientError if fault.status == 502 else RequestRefusedError
    async with client_of(server.base_url, max_tries=1) as client:
        if answered == "call":
            await client.get(get_call_metrics(execution.calls[0].call_execution_id, execution.execution_id))
        elif answered != "nothing":
            await client.get(first_execution(server))
        execution.is_deleted = answered == "deleted execution"
        server.fault = lambda request, _nth: fault if IS_CALL[failing](request) else None
        tried = 2 * client_module._NEVER_ANSWERED_LIMIT if ends_after is None else ends_after - 1
        await give_up(client, range(tried), executions, kind)
        if ends_after is not None:
            with pytest.raises(SourceUnavailableError, match=f"{server.base_url} fails every request to {METRICS}"):
                await client.get(call(tried, executions))


@pytest.mark.parametrize("is_found", [True, False])
async def test_answer_in_between_shows_that_the_endpoint_is_there(server, is_found):
    known = first_execution(server) if is_found else get_execution("00000000-0000-4000-8000-000000000000")
    async with client_of(server.base_url, max_tries=1) as client:
        for _ in range(3):
            server.fault = lambda _request, _nth: Fault(status=500)
            for _ in range(client_module._GIVEN_UP_LIMIT - 1):
                with pytest.raises(TransientError):
                    await client.get(ANY)
            server.fault = None
            with suppress(NotFoundError):
                await client.get(known)


async def test_page_that_vanished_since_is_no_sign_of_a_source_that_is_down(server):
    _, *others = server.world.run_tests[0].executions
    name = server.world.run_tests[0].name
    async with client_of(server.base_url, max_tries=1) as client:
        for page in (1, 2):
            await client.get(list_executions(name, Slice(page, 1)))
        for execution in others:
            execution.is_deleted = True
        server.fault = lambda request, _nth: Fault(status=502) if request.query.get("limit") != "1" else None
        for limit in range(2, 2 + client_module._GIVEN_UP_LIMIT):
            with pytest.raises(TransientError):
                await client.get(list_executions(name, Slice(1, limit)))
