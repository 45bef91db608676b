"""Every kind of fault that an HTTP source can have, and where in an export it strikes."""

import asyncio
import gzip
from dataclasses import dataclass
from enum import Enum, StrEnum

import msgspec

from etl.model.records import DETAIL, METRICS, RUNS
from etl.sandbox import Fault, Sandbox, SandboxRequest
from etl.sandbox.dispatch import not_found, rate_limited, server_error
from etl.sandbox.server import HTML_502
from etl.sandbox.world import SimulatedExecution

ELSEWHERE = "http://127.0.0.1:9/"


class Cure(Enum):
    """What an export does about a fault."""

    ASK_AGAIN = "asked again, and given up after max_tries"
    GIVE_UP = "given up at once"
    STOP = "ends the run"
    BELIEVE = "no fault: what was said is so"
    UNDERSTAND = "no fault: HTTP allows it, or it says nothing"
    COME_BACK = "ends the run, which says when to come back"


@dataclass(frozen=True)
class Kind:
    fault: Fault
    cure: Cure = Cure.ASK_AGAIN
    is_slow: bool = False


def _status(status: int, body: bytes = b"", **headers: str) -> Fault:
    return Fault(status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def _answer(body: bytes) -> Fault:
    return Fault(status=200, body=body)


def _result(**fields: object) -> Fault:
    return _answer(msgspec.json.encode({"status": True, "result": fields}))


def _without_length(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Any\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" % status + body


LONG = "9" * 400
ZONE = f"Thu, 26 Nov 2026 00:00:00 +{10**19}"
HTML = {"Content_Type": "text/html"}
OTHER_PAGE: dict[str, object] = {"total_pages": 1, "current_page": 7, "count": 0, "results": []}
BAD_PAGE = OTHER_PAGE | {"current_page": "1", "results": {}}
WORDY_PAGE: dict[str, object] = {"total_pages": "one", "current_page": 1, "count": 0, "results": []}
UNCOUNTED_PAGE: dict[str, object] = {"current_page": 1, "results": []}
OTHER_ID = "00000000-0000-4000-8000-000000000000"

KINDS = {
    "500 JSON": Kind(_status(500, msgspec.json.encode(server_error("Internal error.")))),
    "500 HTML": Kind(_status(500, b"<html>Server Error</html>", **HTML)),
    "502": Kind(_status(502, HTML_502, **HTML)),
    "503 with Retry-After": Kind(_status(503, Retry_After="0.02")),
    "503": Kind(_status(503)),
    "504": Kind(_status(504, b"upstream timed out", Content_Type="text/plain")),
    "429 with Retry-After": Kind(_status(429, Retry_After="0.02")),
    "429 with retry_after in the body": Kind(
        _status(429, msgspec.json.encode(rate_limited(100, 0)).replace(b'"retry_after":0', b'"retry_after":0.02'))
    ),
    "429 without a hint": Kind(_status(429)),
    "429 with nonsense in Retry-After": Kind(_status(429, Retry_After=ZONE, Date=ZONE)),
    "503 with nonsense in Retry-After": Kind(_status(503, Retry_After=LONG)),
    "408": Kind(_status(408)),
    "HTML in a 200": Kind(Fault(status=200, body=b"<html>Welcome</html>", headers={"Content-Type": "text/html"})),
    "empty": Kind(_answer(b"")),
    "truncated JSON": Kind(Fault(status=200, edit=lambda body: body[:-9])),
    "null": Kind(_answer(b"null")),
    "list": Kind(_answer(b"[]")),
    "status false": Kind(Fault(status=200, edit=lambda body: body.replace(b'"status":true', b'"status":false'))),
    "no result": Kind(_answer(b'{"status": true}')),
    "of another id or page": Kind(
        _result(
            **OTHER_PAGE, call_results=OTHER_PAGE, execution_id=OTHER_ID, call_execution_id=OTHER_ID, status="completed"
        )
    ),
    "identity of wrong types": Kind(
        _result(**BAD_PAGE, call_results=BAD_PAGE, execution_id=7, call_execution_id=["x"], status=None)
    ),
    "list that counts its pages in words": Kind(_result(**WORDY_PAGE, call_results=WORDY_PAGE)),
    "list without its count": Kind(_result(**UNCOUNTED_PAGE, call_results=UNCOUNTED_PAGE)),
    "invalid UTF-8": Kind(Fault(status=200, edit=lambda body: body.replace(b"}", b',"text":"\xff\xfe"}', 1))),
    "two fields of one name": Kind(Fault(status=200, edit=lambda body: body.replace(b"{", b'{"status":true,', 1))),
    "10,000 levels of JSON": Kind(_answer(b'{"status":true,"result":' + b"[" * 10_000 + b"]" * 10_000 + b"}")),
    "10,000 levels in a field": Kind(
        Fault(status=200, edit=lambda body: body[:-1] + b',"deep":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001)
    ),
    "wrong Content-Encoding": Kind(Fault(headers={"Content-Encoding": "gzip"})),
    "reset in the body": Kind(Fault(cut_after_bytes=20)),
    "end in the body": Kind(Fault(cut_after_bytes=20, is_closed=True)),
    "reset before the answer": Kind(Fault(is_reset=True)),
    "end before the answer": Kind(Fault(is_closed=True)),
    "hang": Kind(Fault(is_hanging=True), is_slow=True),
    "drip": Kind(Fault(drip_seconds=0.05), is_slow=True),
    "gzip bomb": Kind(
        Fault(
            status=200,
            edit=lambda body: gzip.compress(body[:-1] + b" " * (2 << 20) + b"}"),
            headers={"Content-Encoding": "gzip"},
        ),
        Cure.GIVE_UP,
    ),
    "301": Kind(_status(301, Location=ELSEWHERE), Cure.GIVE_UP),
    "302 to another host": Kind(_status(302, Location=ELSEWHERE), Cure.GIVE_UP),
    "400": Kind(_status(400, b'{"status":false,"message":"Validation failed"}'), Cure.GIVE_UP),
    "404 HTML": Kind(_status(404, b"<html>Not Found</html>", **HTML), Cure.GIVE_UP),
    "405": Kind(_status(405), Cure.GIVE_UP),
    "406": Kind(_status(406), Cure.GIVE_UP),
    "401": Kind(_status(401), Cure.STOP),
    "403": Kind(_status(403, b'{"status":false,"message":"Forbidden"}'), Cure.STOP),
    "403 HTML": Kind(_status(403, b"<html>Forbidden</html>", **HTML), Cure.GIVE_UP),
    "503 that holds for hours": Kind(_status(503, Retry_After="80000"), Cure.COME_BACK),
    "429 that holds for hours": Kind(_status(429, Retry_After="80000"), Cure.COME_BACK),
    "gzip": Kind(Fault(edit=gzip.compress, headers={"Content-Encoding": "gzip"}), Cure.UNDERSTAND),
    "no length": Kind(Fault(raw=_without_length), Cure.UNDERSTAND),
    "nonsense headers": Kind(
        Fault(
            headers={
                **dict.fromkeys(("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"), LONG),
                **dict.fromkeys(("Retry-After", "Date"), ZONE),
            }
        ),
        Cure.UNDERSTAND,
    ),
    "404 JSON": Kind(_status(404, msgspec.json.encode(not_found("Call execution"))), Cure.BELIEVE),
    "NaN": Kind(
        Fault(edit=lambda body: body.replace(b'"status":"completed"', b'"novel":NaN,"status":"completed"')),
        Cure.BELIEVE,
    ),
}
"""What a source can do wrong, and things that look so."""


class Endpoint(StrEnum):
    """What an export asks for, as path and selector."""

    EXECUTIONS = f"{METRICS}?run_test_name"
    EXECUTION = f"{METRICS}?execution_id"
    CALLS = f"{RUNS}?execution_id"
    CALL = f"{METRICS}?call_execution_id"
    DETAIL = DETAIL


def endpoint_of(request: SandboxRequest) -> Endpoint | None:
    """None for what is asked for only when something went wrong."""
    if request.path.startswith(DETAIL):
        return Endpoint.DETAIL
    asked = request.target.partition("=")[0]
    return Endpoint(asked) if asked in set(Endpoint) else None


@dataclass
class Strike:
    """A fault at the nth request to an endpoint; ``for_ever`` at every later one with the same target, too."""

    fault: Fault
    endpoint: Endpoint
    nth: int
    for_ever: bool = False
    seen: int = 0
    times: int = 0
    struck: SandboxRequest | None = None

    def __call__(self, request: SandboxRequest, _nth: int) -> Fault | None:
        if endpoint_of(request) is not self.endpoint:
            return None
        self.seen += 1
        if self.seen == self.nth:
            self.struck = request
        is_same = self.struck is not None and request.target == self.struck.target
        if self.seen == self.nth or (self.for_ever and is_same):
            self.times += 1
            return self.fault
        return None


def hold_back(server: Sandbox, held_back: SimulatedExecution) -> asyncio.Event:
    """Let every call of the execution hang; the event is set when all others of the world have been answered for."""
    hanging = {call.call_execution_id for call in held_back.calls}
    executions = (each for run_test in server.world.run_tests for each in run_test.executions)
    others = {call.call_execution_id for each in executions for call in each.calls} - hanging
    answered = set[str | None]()
    waiting = asyncio.Event()

    def hang(request: SandboxRequest, _nth: int) -> Fault | None:
        call_execution_id = request.query.get("call_execution_id")
        if call_execution_id in hanging:
            return Fault(is_hanging=True)
        answered.add(call_execution_id)
        if answered >= others:
            waiting.set()
        return None

    server.fault = hang
    return waiting
