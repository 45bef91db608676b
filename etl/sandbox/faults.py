"""Faults that a test or a user can put into the sandbox's answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

HTML_502 = (
    b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
)


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """One request.

    ``target`` is the path and query as sent, ``received_at`` a time in monotonic seconds. ``status`` is that of the answer, None
    until then or if there was none.
    """

    method: str
    path: str
    target: str
    query: dict[str, str]
    status: int | None
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How one answer differs from the right one. By default nothing does.

    Attributes:
        status: Sent in place of the right status.
        body: Sent verbatim in place of the right body.
        edit: Applied to the body, the right one or ``body``, before it is sent.
        headers: Added to the right headers, or replacing them.
        delay_seconds: How long the server waits before it answers.
        drip_seconds: How long the server waits after each byte of the body.
        cut_after_bytes: How many bytes of the body are sent before the connection is reset, or closed in order if ``is_closed``;
            Content-Length is that of the whole body.
        raw: Makes of status and body the bytes of the whole answer, headers included; then the connection is closed in order.
        is_reset: The connection is reset without an answer.
        is_closed: The connection is closed in order without an answer.
        is_hanging: No answer is sent, and the connection stays open.
    """

    status: int | None = None
    body: bytes | None = None
    edit: Callable[[bytes], bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0
    cut_after_bytes: int | None = None
    raw: Callable[[int, bytes], bytes] | None = None
    is_reset: bool = False
    is_closed: bool = False
    is_hanging: bool = False


FaultHook = Callable[[SandboxRequest, int], Fault | None]

MIXTURE = (
    Fault(status=500, body=b'{"status":false,"type":"server_error","code":"server_error","message":"Internal error."}'),
    Fault(status=502, body=HTML_502, headers={"Content-Type": "text/html"}),
    Fault(body=b""),
    Fault(body=b'{"status":true,"result":{"total_pages":1,"curr'),
    Fault(is_reset=True),
)


def random_faults(rng: Random, share: float) -> FaultHook:
    """A hook that gives this share of the answers a random fault of ``MIXTURE``."""

    def choose_fault(_request: SandboxRequest, _nth: int) -> Fault | None:
        return rng.choice(MIXTURE) if rng.random() < share else None

    return choose_fault
