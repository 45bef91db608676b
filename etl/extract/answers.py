"""What an answer means: a value, or the error that says what to do next. Pure: no socket, no clock.

Decoding raises ``TransientError`` for a body that is not what the API documents: a proxy's page, a cut body,
``status: false`` in a 200. A retry may fix that.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from etl.errors import (
    KeyRefusedError,
    NotFoundError,
    RequestRefusedError,
    ServerFaultError,
    TransientError,
    UnexpectedAnswerError,
)
from etl.extract.endpoints import Request, UnexpectedError, field_of
from etl.extract.parse import parse_json
from etl.extract.source_clock import unix_seconds

T = TypeVar("T")

_EXCERPT_CHARACTERS = 200
_LONGEST_HOLD_SECONDS = 86_400


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


def raise_for_status(request: Request[Any], status: int, body: bytes, *, tries: int = 1) -> NoReturn:
    """Raise the error that says what to do after an answer that is not 200; ``tries`` is the number of the try."""
    if status in (401, 403) and not (_is_page(body) or request.is_optional):
        raise KeyRefusedError(
            f"the API refused the key ({status} on {request.path}): check FI_API_KEY and FI_SECRET_KEY"
        )
    message, is_from_api = _error_message(body)
    where = f"{request.subject}: {status} on {request.path}"
    excerpt = _excerpt(body)
    if status == 500:
        raise ServerFaultError(f"{where}: {message}", excerpt=excerpt, tries=tries, is_final=not request.retries_500)
    if status == 429 or status > 500 or status == 408:
        raise TransientError(f"{where}: {message}", status=status, excerpt=excerpt, tries=tries)
    if status == 404 and is_from_api:
        raise NotFoundError(f"{request.subject}: not found ({message})", status=status, excerpt=excerpt, tries=tries)
    if status in (401, 403) and _is_page(body):
        message = "a proxy or firewall refused the request, not the API: check [api] proxy and FI_BASE_URL"
    elif status == 404:
        message = "not this API: check FI_BASE_URL"
    elif 300 <= status < 400:
        message = "a redirect, never followed: check FI_BASE_URL"
    raise RequestRefusedError(f"{where}: {message}", status=status, excerpt=excerpt, tries=tries)


def retry_after_seconds(headers: Mapping[str, str], body: bytes) -> float | None:
    """How long a refused request asks everybody to wait, from the header or else from the body; None when neither says."""
    for seconds in (_header_seconds(headers), _body_seconds(body)):
        if seconds is not None and 0 <= seconds < _LONGEST_HOLD_SECONDS:
            return seconds
    return None


def _header_seconds(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds; one that is a date is measured by the server's own clock."""
    value = headers.get("Retry-After", "")
    try:
        return float(value)
    except ValueError:
        pass
    moment, now = unix_seconds(value), unix_seconds(headers.get("Date", ""))
    return None if moment is None or now is None else moment - now


def _body_seconds(body: bytes) -> float | None:
    try:
        return float(field_of(field_of(parse_json(body), "result"), "retry_after"))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _why_unexpected(exc: Exception, body: bytes) -> str:
    match exc:
        case json.JSONDecodeError() if not body.strip():
            return "empty"
        case json.JSONDecodeError() if body.lstrip()[:1] == b"<":
            return "HTML, not JSON"
        case json.JSONDecodeError():
            return f"JSON that is truncated or invalid at character {exc.pos}" if exc.pos else "not JSON"
        case UnicodeDecodeError():
            return "not text in utf-8"
        case RecursionError():
            return "nested too deeply"
        case _:
            return _one_line(str(exc))


def _result(document: Any) -> Any:
    if field_of(document, "status") is not True:
        raise UnexpectedError("status is not true")
    return field_of(document, "result")


def _error_message(body: bytes) -> tuple[str, bool]:
    """The server's own words, and whether this API wrote them rather than something between it and us."""
    try:
        document = parse_json(body)
        if isinstance(document, dict):
            is_from_api = document.get("status") is False or isinstance(document.get("error"), dict)
            return _one_line(_words(document)) or _excerpt(body), is_from_api
    except (ValueError, RecursionError):
        pass
    return _excerpt(body) or "empty body", False


def _is_page(body: bytes) -> bool:
    """Whether this is text for people: the API's own answers are JSON."""
    try:
        parse_json(body)
    except (ValueError, RecursionError):
        return bool(body.strip())
    return False


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
