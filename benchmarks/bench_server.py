"""A server of the API's answers that costs almost nothing: it renders a list once, and joins a call's metrics.

Run as a process of its own (``python -m benchmarks.bench_server``); prints its address. It serves a ``World``, with a
latency and a rate limit if asked for. It checks no key and parses no more of a request than its target: it is not what
is measured.
"""

import argparse
import asyncio
import json
import math
import time
from dataclasses import fields
from typing import Any

from benchmarks.bench_world import World


class Quota:
    """A fixed window on the server's clock, which may be ahead of everybody else's; refused requests count as well.

    Other clients send ``others`` requests as soon as a window opens, and ``others_first`` in the first one.
    """

    def __init__(
        self,
        limit: int,
        *,
        window_seconds: float,
        has_headers: bool,
        skew_seconds: float,
        others: int,
        others_first: int,
    ) -> None:
        self.refused = 0
        self.allowed: dict[int, int] = {}
        self._limit = limit
        self._window_seconds = window_seconds
        self._has_headers = has_headers
        self._skew_seconds = skew_seconds
        self._others = others
        self._others_first = others_first
        self._window = -1
        self._taken = 0

    def take(self, now: float) -> tuple[bool, bytes]:
        """Count a request; whether it is allowed, and the headers to send."""
        now += self._skew_seconds
        window = int(now // self._window_seconds)
        if window != self._window:
            self._taken = self._others_first if self._window < 0 else self._others
            self._window = window
        self._taken += 1
        is_allowed = self._taken <= self._limit
        self.refused += not is_allowed
        self.allowed[self._window] = self.allowed.get(self._window, 0) + is_allowed
        reset = (window + 1) * self._window_seconds
        headers = b"" if is_allowed else b"Retry-After: %d\r\n" % max(1, math.ceil(reset - now))
        served_at = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode()
        headers += b"Date: %b\r\n" % served_at
        if self._has_headers:
            remaining = max(0, self._limit - self._taken)
            headers += b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n" % (
                self._limit,
                remaining,
                math.ceil(reset),
            )
        return is_allowed, headers


class Server:
    """Answers targets, and counts what it answered."""

    def __init__(self, world: World, quota: Quota | None, latency_seconds: float) -> None:
        self.latency_seconds = latency_seconds
        self._world = world
        self._quota = quota
        self._lists: dict[bytes, bytes] = {}
        self._room_bytes = _CACHE_BYTES
        self._requests = 0
        self._first_at = self._last_at = 0.0

    def answer(self, target: bytes) -> bytes:
        """The whole answer to one request."""
        if target == b"/stats":
            stats = json.dumps(self._stats()).encode()
            self._first_at = 0.0
            return self._render(b"200 OK", b"", stats)
        self._last_at = time.time()
        self._first_at = self._first_at or self._last_at
        self._requests += 1
        is_allowed, headers = self._quota.take(self._last_at) if self._quota else (True, b"")
        if not is_allowed:
            return self._render(b"429 Too Many Requests", headers, _REFUSAL)
        body = self._lists.get(target) or self._world.body(target.decode())
        if target.startswith(b"/sdk/") and b"&limit=" in target and self._room_bytes > 0:
            self._room_bytes -= 0 if target in self._lists else len(body)
            self._lists[target] = body
        return self._render(b"200 OK" if body else b"404 Not Found", headers, body)

    def _stats(self) -> dict[str, Any]:
        return {
            "requests": self._requests,
            "refused": self._quota.refused if self._quota else 0,
            "windows": list(self._quota.allowed.items()) if self._quota else [],
            "first_at": self._first_at,  # since they were asked for last
            "last_at": self._last_at,
            "cpu_seconds": time.process_time(),
        }

    @staticmethod
    def _render(status: bytes, headers: bytes, body: bytes) -> bytes:
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
        return head % (status, len(body), headers) + body


_CACHE_BYTES = 256 << 20
"""So much of rendered lists is kept; nothing of whole calls, which a night requests once."""
_REFUSAL = b'{"status": false, "result": {"code": "RATE_LIMITED", "message": "Too many requests."}}'


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests have no bodies."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: Any = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            target = self._received[4 : self._received.index(b" ", 4)]
            self._received = self._received[end + 4 :]
            answer = self._server.answer(target)
            if self._server.latency_seconds:
                asyncio.get_running_loop().call_later(self._server.latency_seconds, self._transport.write, answer)
            else:
                self._transport.write(answer)


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only-changed", action="store_true", help="serve no other executions than those that ran again"
    )
    parser.add_argument(
        "--details", action="store_true", help="serve executions' details and lists of voice calls, too"
    )
    for each in fields(World):
        if each.type is int:
            parser.add_argument(f"--{each.name.replace('_', '-')}", type=int, default=each.default)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--limit", type=int, help="requests in a window; without it, there is no limit")
    parser.add_argument("--window-seconds", type=float, default=60)
    parser.add_argument("--no-headers", action="store_true")
    parser.add_argument("--skew-seconds", type=float, default=0)
    parser.add_argument("--others", type=int, default=0)
    parser.add_argument("--others-first", type=int, default=0)
    arguments = parser.parse_args()
    quota = None
    if arguments.limit:
        quota = Quota(
            arguments.limit,
            window_seconds=arguments.window_seconds,
            has_headers=not arguments.no_headers,
            skew_seconds=arguments.skew_seconds,
            others=arguments.others,
            others_first=arguments.others_first or arguments.others,
        )
    world = World(**{each.name: getattr(arguments, each.name) for each in fields(World)})
    served = Server(world, quota, arguments.latency_ms / 1000)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(served), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
