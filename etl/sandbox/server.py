"""The simulated API as a loopback HTTP server, with keys, paging, rate limit, latency and faults.

Owns the socket, the clock, the record of requests, and how a fault changes an answer; ``dispatch`` decides the right
answers.
"""

import asyncio
import math
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from random import Random
from typing import Self

from aiohttp import web
from multidict import CIMultiDict

from etl.sandbox.dispatch import Rules, SandboxAnswer, SandboxRequest, answer_to, json_answer, rate_limited
from etl.sandbox.world import World

API_KEY = "sandbox-key"
SECRET_KEY = "sandbox-secret"  # noqa: S105 the sandbox has nothing to protect
HTML_502 = (
    b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How one answer differs from the right one. By default nothing does."""

    status: int | None = None
    """Sent in place of the right status."""
    body: bytes | None = None
    """Sent in place of the right body."""
    edit: Callable[[bytes], bytes] | None = None
    """Applied to the body, the right one or ``body``, before it is sent."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to the right headers, or replacing them."""
    delay_seconds: float = 0.0
    """How long the server waits before it answers."""
    drip_seconds: float = 0.0
    """How long the server waits after each byte of the body."""
    cut_after_bytes: int | None = None
    """How many bytes of the body are sent before the connection is reset, or closed in order if ``is_closed``.

    Content-Length is that of the whole body.
    """
    raw: Callable[[int, bytes], bytes] | None = None
    """Makes the whole answer, headers included, of status and body; then the connection is closed in order."""
    is_reset: bool = False
    """The connection is reset without an answer."""
    is_closed: bool = False
    """The connection is closed in order, without an answer unless ``cut_after_bytes`` is set."""
    is_hanging: bool = False
    """No answer is sent, and the connection stays open."""

    @property
    def is_silent(self) -> bool:
        """Whether no answer is sent at all."""
        return self.is_reset or self.is_hanging or (self.is_closed and self.cut_after_bytes is None)


FaultHook = Callable[[SandboxRequest, int], Fault | None]
"""Which fault the answer to a request has, if any. The number is how often its target was requested, from 1."""

MIXTURE = (
    Fault(status=500, body=b'{"status":false,"type":"server_error","code":"server_error","message":"Internal error."}'),
    Fault(status=502, body=HTML_502, headers={"Content-Type": "text/html"}),
    Fault(body=b""),
    Fault(body=b'{"status":true,"result":{"total_pages":1,"curr'),
    Fault(is_reset=True),
)


def random_faults(rng: Random, share: float) -> FaultHook:
    """A hook that gives this share of the answers a random fault of ``MIXTURE``."""
    return lambda _request, _nth: rng.choice(MIXTURE) if rng.random() < share else None


@dataclass(slots=True)
class FixedWindow:
    """The API's quota: so many requests in each window, which is aligned to the epoch. Refused requests count, too."""

    limit: int
    seconds: float = 60.0
    """How long a window lasts."""
    used: int = 0
    """How many requests the present window has."""
    resets_at: float = -math.inf
    """When the present window ends, in Unix seconds."""

    def take(self, now: float) -> bool:
        """Count one request at ``now`` (unix seconds); whether it is allowed."""
        if now >= self.resets_at:
            self.used, self.resets_at = 0, (math.floor(now / self.seconds) + 1) * self.seconds
        self.used += 1
        return self.used <= self.limit

    def headers(self) -> dict[str, str]:
        """What each answer says about the limit."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self.used)),
            "X-RateLimit-Reset": str(math.ceil(self.resets_at)),
        }


@dataclass(eq=False, repr=False)
class Sandbox:
    """A server for one world, running inside ``async with``.

    ``world``, ``fault`` and ``on_request`` may be changed while it runs.
    """

    world: World
    """What it serves; read anew for each request."""
    _: KW_ONLY
    api_key: str = API_KEY
    secret_key: str = SECRET_KEY
    port: int = 0
    """At 127.0.0.1; 0 takes a free one."""
    max_limit: int | None = None
    """The most rows of a page; None for no limit, as on the real server."""
    rate_limit: int | None = None
    """Requests per window, which is aligned to the epoch of ``clock``; None for no limit."""
    rate_window_seconds: float = 60.0
    latency_seconds: float = 0.0
    """How long each answer takes, beside what a fault adds."""
    clock: Callable[[], float] = time.time
    """The time in Unix seconds."""
    tls: ssl.SSLContext | None = None
    """With it, the server speaks HTTPS."""
    fault: FaultHook | None = None
    """Called before each answer."""
    on_request: Callable[[SandboxRequest], None] | None = None
    """Called before each answer is computed; it may change the world."""

    def __post_init__(self) -> None:
        self.requests: list[SandboxRequest] = []
        """All requests so far, in order of arrival."""
        self.base_url = ""
        """Where the server is, once it runs."""
        self._rules = Rules(self.api_key, self.secret_key, self.max_limit)
        self._window = None if self.rate_limit is None else FixedWindow(self.rate_limit, self.rate_window_seconds)
        self._requests_by_target: Counter[str] = Counter()
        self._runner: web.ServerRunner

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls).start()
        scheme = "http" if self.tls is None else "https"
        self.base_url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def count(self, path_fragment: str = "", **query: object) -> int:
        """How many requests had this fragment in their path, and these parameters."""
        wanted = {name: str(value) for name, value in query.items()}.items()
        return sum(path_fragment in request.path and wanted <= request.query.items() for request in self.requests)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        query = dict(request.query)
        received = SandboxRequest(request.method, request.path, request.raw_path, query, None, time.monotonic())
        answer, fault = self.answer(received, request.headers, f"{request.scheme}://{request.host}")
        delay_seconds = self.latency_seconds + fault.delay_seconds
        if delay_seconds:
            await asyncio.sleep(delay_seconds)
        if fault.is_hanging:
            await asyncio.Event().wait()
        if fault.raw is not None and request.transport is not None:
            request.transport.write(fault.raw(answer.status, answer.body))
            request.transport.close()
        if fault.is_silent:
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

    def answer(self, received: SandboxRequest, headers: Mapping[str, str], origin: str) -> tuple[SandboxAnswer, Fault]:
        """Compute the answer and record the request, without a socket. The caller sends the answer as the fault says.

        ``headers`` are those of the request, and must ignore case; links in the answer begin with ``origin``. Not a
        coroutine, so that no other request comes between.
        """
        now = self.clock()
        fault = Fault()
        if self._window is not None and not self._window.take(now):
            retry_after = max(1, math.ceil(self._window.resets_at - now))
            refusal = rate_limited(self._window.limit, retry_after)
            answer = json_answer(429, refusal, **{"Retry-After": str(retry_after)})
        else:
            self._requests_by_target[received.target] += 1
            if self.fault is not None:
                fault = self.fault(received, self._requests_by_target[received.target]) or fault
            if self.on_request is not None:
                self.on_request(received)
            answer = answer_to(self.world, received, headers, origin, self._rules)
        sent = CIMultiDict(answer.headers)
        sent.update(self._window.headers() if self._window is not None else {})
        sent.update(fault.headers)
        body = answer.body if fault.body is None else fault.body
        body = body if fault.edit is None else fault.edit(body)
        answer = SandboxAnswer(fault.status or answer.status, body, sent)
        self.requests.append(replace(received, status=None if fault.is_silent else answer.status))
        return answer, fault


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
