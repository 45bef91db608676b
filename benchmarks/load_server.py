"""A server of the API's three answers that costs almost nothing: bodies are rendered before, a request is one dictionary look-up.

Run as a process of its own; prints its address. It serves ``executions`` executions of ``calls`` calls each, with a latency and
a rate limit if asked for. It checks no key and parses no more of a request than its target: it is not what is measured.
"""

import argparse
import asyncio
import json
import math
import time
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

FIRST_DAY = date(2023, 1, 1)


def execution_id(number: int) -> str:
    """Identifies the execution."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def call_id(execution: int, call: int) -> str:
    """Identifies the call of the execution."""
    return f"{execution:08x}-0000-4000-8001-{call:012x}"


def execution_row(number: int, calls: int, *, day: date, generation: int) -> dict[str, Any]:
    """One execution as the list of a run test gives it; each generation is another run of it."""
    return {
        "execution_id": execution_id(number),
        "status": "completed",
        "started_at": f"{day}T00:00:00.000000Z",
        "completed_at": f"{day}T01:{generation % 60:02d}:00.000000Z",
        "total_calls": calls,
        "completed_calls": calls,
        "failed_calls": 0,
        "metrics": {
            "latency": {
                "avg_agent_latency_ms": 1210.0,
                "avg_response_time_ms": 801.0,
                "percentiles": {"p50": 1180.0, "p95": 2210.5, "p99": 2890.1},
            },
            "cost": {"total_duration_seconds": 93 * calls},
            "conversation": {"avg_user_wpm": 141.2, "avg_bot_wpm": 163.9, "avg_talk_ratio": 1.31},
            "chat": {},
            "calls": {"total": calls, "completed": calls, "failed": 0, "pending": 0},
        },
    }


def call_row(execution: int, call: int) -> dict[str, Any]:
    """One call as its execution lists it."""
    return {
        "call_execution_id": call_id(execution, call),
        "scenario_id": f"5ce0a210-0000-4000-8000-{call % 7:012x}",
        "scenario_name": f"Scenario {call % 7}",
        "status": "completed",
        "duration_seconds": 60 + call % 90,
        "eval_outputs": {
            "e7a10000-0000-4000-8000-000000000001": {
                "name": "Task Completion",
                "output": "Passed",
                "output_type": "Pass/Fail",
                "reason": "The caller's request was fulfilled.",
                "status": "completed",
            }
        },
    }


def render(body: object) -> bytes:
    """Compact, as Django REST framework renders what the API says."""
    return json.dumps(body, separators=(",", ":")).encode()


def call_body(variant: int) -> tuple[bytes, bytes, bytes]:
    """A call's raw metrics in three parts, between which the two ids go."""
    latency = 900 + 13 * variant
    result = {
        "call_execution_id": "@@@",
        "execution_id": "@@@",
        "status": "completed",
        "duration_seconds": 60 + variant,
        "latency": {
            "avg_agent_latency_ms": latency,
            "response_time_ms": latency - 310,
            "system_metrics": {
                "bot_wpm": 149.53 + variant,
                "user_wpm": 196.1,
                "talk_ratio": 1.699,
                "ai_interruption_rate": 0.62,
                "avg_agent_latency_ms": latency,
                "ai_interruption_count": 1,
                "user_interruption_rate": 0.0,
                "user_interruption_count": 0,
                "avg_stop_time_after_interruption_ms": None,
            },
        },
        "cost": {
            "total_cost_cents": 24,
            "stt_cost_cents": 0,
            "llm_cost_cents": 2,
            "tts_cost_cents": 6,
            "breakdown": {"llm": {"cost": 0.034, "promptTokens": 12685 + variant}, "stt": {"cost": 0.012}},
        },
        "conversation": {
            "user_wpm": 196.1,
            "bot_wpm": 149.53 + variant,
            "talk_ratio": 1.699,
            "user_interruption_count": 0,
            "user_interruption_rate": 0.0,
            "ai_interruption_count": 1,
            "ai_interruption_rate": 0.62,
            "avg_stop_time_after_interruption_ms": None,
        },
        "chat_metrics": None,
    }
    first, second, third = render({"status": True, "result": result}).split(b"@@@")
    return first, second, third


class World:
    """What is served: ``answer`` gives the body for a target."""

    def __init__(
        self, executions: int, calls: int, *, per_day: int, changed: int, generation: int, padding_mb: int
    ) -> None:
        self._executions = [
            execution_row(
                number,
                calls,
                day=FIRST_DAY + timedelta(days=number // per_day),
                generation=generation if number < changed else 0,
            )
            for number in range(executions)
        ]
        self._calls = calls
        self._variants = [call_body(variant) for variant in range(64)]
        self._padding = b" " * (padding_mb << 20)
        self._pages: dict[bytes, bytes] = {}

    def answer(self, target: bytes) -> bytes:
        """The body of a 200."""
        key = b"?call_execution_id="
        if key in target:
            call = target[target.index(key) + len(key) :]
            first, second, third = self._variants[int(call[-4:], 16) % 64]
            return b"".join((first, call, second, call[:8], b"-0000-4000-8000-000000000000", third, self._padding))
        if target not in self._pages:
            self._pages[target] = render({"status": True, "result": self._page(target.decode())})
        return self._pages[target]

    def _page(self, target: str) -> dict[str, Any]:
        query = dict(parse_qsl(urlsplit(target).query))
        page, limit = int(query["page"]), int(query["limit"])
        if "run_test_name" in query:
            return self._cut(self._executions[::-1], page, limit)
        execution = int(query["execution_id"][:8], 16)
        calls = [call_row(execution, call) for call in range(self._calls)]
        return {**self._executions[execution], "eval_results": [], "call_results": self._cut(calls, page, limit)}

    @staticmethod
    def _cut(rows: list[dict[str, Any]], page: int, limit: int) -> dict[str, Any]:
        return {
            "total_pages": max(1, math.ceil(len(rows) / limit)),
            "current_page": page,
            "count": len(rows),
            "results": rows[(page - 1) * limit : page * limit],
        }


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
        return self._render(b"200 OK", headers, self._world.answer(target))

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
    parser.add_argument("--executions", type=int, default=100)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--per-day", type=int, default=10, help="executions of one day")
    parser.add_argument("--changed", type=int, default=0, help="so many executions ran again ...")
    parser.add_argument("--generation", type=int, default=0, help="... for the so many-th time")
    parser.add_argument("--padding-mb", type=int, default=0, help="of spaces after the body of each call")
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
    world = World(
        arguments.executions,
        arguments.calls,
        per_day=arguments.per_day,
        changed=arguments.changed,
        generation=arguments.generation,
        padding_mb=arguments.padding_mb,
    )
    served = Server(world, quota, arguments.latency_ms / 1000)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(served), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
