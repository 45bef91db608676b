"""The simulated API as a loopback HTTP server, with keys, paging, rate limit, latency and faults.

Owns the socket, the clock and the record of requests; ``dispatch`` decides the answers.
"""

import asyncio
import math
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from aiohttp import web
from multidict import CIMultiDict

from etl.sandbox.dispatch import Answer, Rules, answer_to, json_answer, rate_limited
from etl.sandbox.faults import Fault, FaultHook, SandboxRequest
from etl.sandbox.world import World

API_KEY = "sandbox-key"
SECRET_KEY = "sandbox-secret"  # noqa: S105 the sandbox has nothing to protect


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one request is allowed, and what the headers say about the limit."""

    is_allowed: bool
    limit: int
    remaining: int
    resets_at: float
    retry_after_seconds: int


@dataclass(slots=True)
class FixedWindow:
    """The API's quota: ``limit`` requests per window aligned to the epoch, in which refused requests count too."""

    limit: int
    window_seconds: float = 60.0
    _window: int = field(default=-1, init=False)
    _used: int = field(default=0, init=False)

    def take(self, now: float) -> Verdict:
        """Count one request at ``now`` (unix seconds)."""
        window = math.floor(now / self.window_seconds)
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1
        resets_at = (window + 1) * self.window_seconds
        return Verdict(
            is_allowed=self._used <= self.limit,
            limit=self.limit,
            remaining=max(0, self.limit - self._used),
            resets_at=resets_at,
            retry_after_seconds=max(1, math.ceil(resets_at - now)),
        )


class Sandbox:
    """A server for one world.

    ``world``, ``fault`` and ``on_request`` may be changed while it runs. ``requests`` holds all requests in order of
    arrival.

    Args:
        world: The data, read anew for each request.
        api_key: The only X-Api-Key that is accepted.
        secret_key: The only X-Secret-Key that is accepted.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        max_limit: The largest number of rows on a page; None for no limit, as on the real server.
        rate_limit: Requests per window; None for no limit.
        rate_window_seconds: Length of the window, which is aligned to the epoch.
        rate_headers: Whether to send X-RateLimit headers if there is a rate limit.
        latency_seconds: Delay of each answer.
        clock: Gives Unix seconds, for the rate limit.
        tls: The certificate, to serve https.
        fault: Called before each answer with the request and how many times its target was requested so far (from 1).
        on_request: Called before each answer is computed; it may change the world.
    """

    def __init__(  # noqa: PLR0913 all but the world have defaults, and a user sets one or two
        self,
        world: World,
        *,
        api_key: str = API_KEY,
        secret_key: str = SECRET_KEY,
        host: str = "127.0.0.1",
        port: int = 0,
        max_limit: int | None = None,
        rate_limit: int | None = None,
        rate_window_seconds: float = 60.0,
        rate_headers: bool = True,
        latency_seconds: float = 0.0,
        clock: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
        fault: FaultHook | None = None,
        on_request: Callable[[SandboxRequest], None] | None = None,
    ) -> None:
        self.world = world
        self.fault = fault
        self.on_request = on_request
        self.requests: list[SandboxRequest] = []
        self.base_url = ""
        self._rules = Rules(api_key, secret_key, max_limit)
        self._address = (host, port)
        self._window = None if rate_limit is None else FixedWindow(rate_limit, rate_window_seconds)
        self._rate_headers = rate_headers
        self._latency_seconds = latency_seconds
        self._clock = clock
        self._tls = tls
        self._requests_by_target: Counter[str] = Counter()
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start listening, and set ``base_url``."""
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        host, port = self._address
        await web.TCPSite(self._runner, host, port, ssl_context=self._tls).start()
        scheme = "http" if self._tls is None else "https"
        self.base_url = f"{scheme}://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening and close every connection; hanging requests get no answer."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def count(self, path_fragment: str = "", **query: object) -> int:
        """How many requests had this fragment in their path, and these parameters."""
        wanted = {name: str(value) for name, value in query.items()}.items()
        return sum(path_fragment in each.path and wanted <= each.query.items() for each in self.requests)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        received = SandboxRequest(
            request.method, request.path, request.raw_path, dict(request.query), None, time.monotonic()
        )
        answer, fault = self.answer(received, request.headers, f"{request.scheme}://{request.host}")
        delay_seconds = self._latency_seconds + fault.delay_seconds
        if delay_seconds:
            await asyncio.sleep(delay_seconds)
        if fault.is_hanging:
            await asyncio.Event().wait()
        if fault.raw is not None and request.transport is not None:
            request.transport.write(fault.raw(answer.status, answer.body))
            request.transport.close()
        if fault.is_reset or (fault.is_closed and fault.cut_after_bytes is None):
            _disconnect(request, fault)
        if fault.cut_after_bytes is None and not fault.drip_seconds:
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(answer.body)
        await response.prepare(request)
        if fault.drip_seconds:
            for position in range(len(answer.body)):
                await response.write(answer.body[position : position + 1])
                await asyncio.sleep(fault.drip_seconds)
        else:
            await response.write(answer.body[: fault.cut_after_bytes])
            _disconnect(request, fault)
        return response

    def answer(self, received: SandboxRequest, headers: Mapping[str, str], origin: str) -> tuple[Answer, Fault]:
        """Compute and record the answer, which needs no socket; ``headers`` must ignore case, links begin with ``origin``.

        Synchronous, so that no other request comes between. How the fault sends it is the caller's.
        """
        verdict = None if self._window is None else self._window.take(self._clock())
        if verdict is not None and not verdict.is_allowed:
            answer, fault = _refusal(verdict), Fault()
        else:
            self._requests_by_target[received.target] += 1
            fault = (self.fault and self.fault(received, self._requests_by_target[received.target])) or Fault()
            if self.on_request is not None:
                self.on_request(received)
            answer = answer_to(self.world, received, headers, origin, self._rules)
        quota = {} if verdict is None or not self._rate_headers else _quota_headers(verdict)
        headers = CIMultiDict(answer.headers)
        headers.update(quota)
        headers.update(fault.headers)
        body = answer.body if fault.body is None else fault.body
        body = body if fault.edit is None else fault.edit(body)
        answer = Answer(fault.status or answer.status, body, headers)
        is_silent = fault.is_reset or fault.is_hanging or (fault.is_closed and fault.cut_after_bytes is None)
        self.requests.append(replace(received, status=None if is_silent else answer.status))
        return answer, fault


def _refusal(verdict: Verdict) -> Answer:
    body = rate_limited(verdict.limit, verdict.retry_after_seconds)
    return json_answer(429, body, {"Retry-After": str(verdict.retry_after_seconds)})


def _quota_headers(verdict: Verdict) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(verdict.limit),
        "X-RateLimit-Remaining": str(verdict.remaining),
        "X-RateLimit-Reset": str(math.ceil(verdict.resets_at)),
    }


def _disconnect(request: web.BaseRequest, fault: Fault) -> None:
    """Close the connection in order if ``is_closed``, else with a reset."""
    if request.transport is None:
        return
    if fault.is_closed:
        request.transport.close()
        return
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
