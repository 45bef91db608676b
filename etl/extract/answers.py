"""What an answer means: a value, or the error that says what to do next. Pure: no socket, no clock.

Decoding raises ``TransientError`` for a body that is not what the API documents: a proxy's page, a cut body,
``status: false`` in a 200. A retry may fix that.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeVar

from etl.errors import (
    ExporterError,
    KeyRefusedError,
    NotFoundError,
    RequestRefusedError,
    ServerFaultError,
    TransientError,
    UnexpectedAnswerError,
)
from etl.extract.endpoints import NO_SUCH_EXECUTION, Request, UnexpectedError, field_of
from etl.extract.parse import parse_json

T = TypeVar("T")

_EXCERPT_CHARACTERS = 200
_ASK_TO_RETRY = (408, 421, 425, 429)
_LONGEST_HOLD_SECONDS = 86_400
_TOLERANCE = timedelta(minutes=1)  # Date has whole seconds, and an answer takes its time
_FARTHEST = timedelta(days=3653)  # no clock of a server is ten years off, and times near the year 9999 overflow


def decode(request: Request[T], body: bytes, *, tries: int = 1) -> T:
    """The answer's value, from the body of a 200; ``tries`` is the number of the try.

    Raises:
        UnexpectedAnswerError: the API answered, but with another document than it documents.
        TransientError: the body is not an answer of the API at all, or says that it failed.
    """
    kind = TransientError
    try:
        document = parse_json(body)
        if request.is_wrapped:
            document = _result(document)
        kind = UnexpectedAnswerError
        return request.decode(document)
    except (ValueError, RecursionError) as exc:
        raise kind(
            f"{request.subject}: unexpected answer from {request.path}: {_why_unexpected(exc, body)}",
            status=200,
            excerpt=_excerpt(body),
            tries=tries,
        ) from None


def error_of(request: Request[Any], status: int, body: bytes, *, tries: int = 1) -> ExporterError:
    """The error that says what to do after an answer that is not 200; ``tries`` is the number of the try."""
    document, is_page = _parsed(body)
    fields = document if isinstance(document, dict) else {}
    if status in (401, 403) and not (is_page or request.is_optional):
        return KeyRefusedError(
            f"the API refused the key ({status} on {request.path}): check FI_API_KEY and FI_SECRET_KEY"
        )
    excerpt = _excerpt(body)
    message = _one_line(_words(fields)) or excerpt or "empty body"
    where = f"{request.subject}: {status} on {request.path}"
    if status == 500 and NO_SUCH_EXECUTION in message:
        return NotFoundError(f"{request.subject}: not found ({message})", status=status, excerpt=excerpt, tries=tries)
    if status == 500:
        return ServerFaultError(f"{where}: {message}", excerpt=excerpt, tries=tries, is_final=not request.retries_500)
    if status > 500 or status in _ASK_TO_RETRY:
        return TransientError(f"{where}: {message}", status=status, excerpt=excerpt, tries=tries)
    # Only the API itself says that something does not exist: not a proxy between it and us.
    if status == 404 and (fields.get("status") is False or isinstance(fields.get("error"), dict)):
        return NotFoundError(f"{request.subject}: not found ({message})", status=status, excerpt=excerpt, tries=tries)
    if status in (401, 403) and is_page:
        message = "a proxy or firewall refused the request, not the API: check [api] proxy and FI_BASE_URL"
    elif status == 404:
        message = "the answer is not from the Future AGI API: check FI_BASE_URL"
    elif 300 <= status < 400:
        message = "a redirect, which metrics-etl does not follow: check FI_BASE_URL"
    return RequestRefusedError(f"{where}: {message}", status=status, excerpt=excerpt, tries=tries)


def retry_after_seconds(headers: Mapping[str, str], body: bytes) -> float | None:
    """How long a refused request asks everybody to wait, from the header or else from the body; None when neither says."""
    document, _ = _parsed(body)
    result = document.get("result") if isinstance(document, dict) else None
    told = result.get("retry_after") if isinstance(result, dict) else None
    for value in (headers.get("Retry-After"), told):
        with suppress(TypeError, ValueError, OverflowError):
            if 0 <= (seconds := float(value or "")) < _LONGEST_HOLD_SECONDS:
                return seconds
    return None


@lru_cache(maxsize=16)  # all answers of a second have the same, and reading it takes longer than decoding a call
def unix_seconds(date: str | None) -> float | None:
    """The source's time when it answered, by the header ``Date``; None when that is no date with a zone."""
    try:
        moment = parsedate_to_datetime(date or "")
        return moment.timestamp() if moment.tzinfo else None
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def clock_offset(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """What to add to our time to get the source's, from an answer that came ``now``; None where that does not say.

    Zero where the two clocks agree within a minute. Whether data has settled is a comparison of the source's times: so it must not
    depend on a client whose clock is wrong.
    """
    then = unix_seconds(headers.get("Date"))
    if then is None:
        return None
    offset = timedelta(seconds=then - now.timestamp())
    if abs(offset) > _FARTHEST:
        return None
    return offset if abs(offset) > _TOLERANCE else timedelta(0)


def _why_unexpected(exc: Exception, body: bytes) -> str:
    match exc:
        case json.JSONDecodeError() if not body.strip():
            return "empty"
        case json.JSONDecodeError() if body.lstrip()[:1] == b"<":
            return "HTML, not JSON"
        case json.JSONDecodeError():
            return f"JSON that is truncated or invalid at character {exc.pos}" if exc.pos else "not JSON"
        case UnicodeDecodeError():
            return "not UTF-8 text"
        case RecursionError():
            return "nested too deeply"
        case _:
            return _one_line(str(exc))


def _result(document: Any) -> Any:
    if field_of(document, "status") is not True:
        raise UnexpectedError('the field "status" is not true')
    return field_of(document, "result")


def _parsed(body: bytes) -> tuple[Any, bool]:
    """The document, and whether the body is text for people instead: the API's own answers are JSON."""
    try:
        return parse_json(body), False
    except (ValueError, RecursionError):
        return None, bool(body.strip())


def _words(document: dict[str, Any]) -> str:
    """Message and details, which stand at the top, in ``error`` or in ``result``."""
    inner = (document.get(name) for name in ("error", "result"))
    source = next((each for each in inner if isinstance(each, dict)), document)
    texts = (source.get(name) for name in ("message", "detail", "error", "result"))
    message = next((text for text in texts if text and isinstance(text, str)), "")
    details = source.get("details")
    return ": ".join(filter(None, (message, json.dumps(details, ensure_ascii=False) if details else "")))


def _excerpt(body: bytes) -> str:
    return _one_line(body[: 4 * _EXCERPT_CHARACTERS].decode(errors="replace"))


def _one_line(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * _EXCERPT_CHARACTERS])
    return " ".join(printable.split())[:_EXCERPT_CHARACTERS]
