"""What can go wrong with one answer of the sandbox, and a random mixture of it. Pure."""

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

    ``target`` is the path and query as sent; ``received_at`` are monotonic seconds; ``status`` is what was answered, None
    before that and when nothing was answered.
    """

    method: str
    path: str
    target: str
    query: dict[str, str]
    status: int | None
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How one answer differs from the right one; what is left out stays right.

    Attributes:
        status: Sent in place of the right status.
        body: Sent verbatim in place of the right body.
        edit: What becomes of that body, right or not, before it is sent.
        headers: Sent beside, or in place of, the right headers.
        delay_seconds: How long the answer is held back.
        drip_seconds: How long each byte of the body lets the next one wait.
        cut_after_bytes: Only so much of the body arrives (Content-Length promises all), then a reset, or an end in order
            when ``is_closed``.
        is_reset: The connection is reset without any answer.
        is_closed: The connection ends in order without any answer.
        is_hanging: No answer ever comes, and the connection stays open.
    """

    status: int | None = None
    body: bytes | None = None
    edit: Callable[[bytes], bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0
    cut_after_bytes: int | None = None
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
    """A hook that spoils this share of the requests, each with one fault of ``MIXTURE``."""

    def spoil(_request: SandboxRequest, _nth: int) -> Fault | None:
        return rng.choice(MIXTURE) if rng.random() < share else None

    return spoil
