"""What an answer means: a value, or the error that says what to do next. Pure: no socket, no clock.

Owns the words of these errors, and what headers tell: when to come back, and the time at the source. Which error is
retried, and how often, is up to the client.

A 200 can fail, too. A body that is not an answer of the API (a proxy's page, a cut body), or that says ``status:
false``, is a ``TransientError``. Valid JSON in another shape than documented is an ``UnexpectedAnswerError``, a kind of
``TransientError``. A retry may fix either.
"""

import json
import re
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
from etl.model.leave_out import Empty

T = TypeVar("T")

_EXCERPT_CHARACTERS = 200
_PAGE_BYTES = 4096
"""So much of an HTML page is searched for its title."""
_TITLE = re.compile(r"<(?:title|h1)\b[^>]*>([^<]*)", re.IGNORECASE)
_ASK_TO_RETRY = (408, 421, 425, 429)
"""By their definition in HTTP, the same request may succeed later."""
_LONGEST_HOLD_SECONDS = 86_400
_TOLERANCE = timedelta(minutes=1)  # Date has whole seconds, and an answer takes its time
_FARTHEST = timedelta(days=3653)  # no clock of a server is ten years off, and times near the year 9999 overflow


def decode(request: Request[T], body: bytes, *, tries: int = 1, empty: Empty | None = None) -> T:
    """The value in the body of a 200; ``tries`` is the number of the try.

    If something is left out, ``empty`` empties the document first, and no error quotes the body.

    Raises:
        UnexpectedAnswerError: The API answered, but with another document than it documents.
        TransientError: The body is not an answer of the API at all, or says that the request failed.
    """
    kind = TransientError
    try:
        document = parse_json(body)
        if request.is_wrapped:
            document = _result(document)
        # From here on, the API itself has answered.
        kind = UnexpectedAnswerError
        if empty is not None:
            empty(request.path, document)
        return request.decode(document)
    except (ValueError, RecursionError) as exc:
        raise kind(
            f"{request.subject}: the answer from {request.path} is unexpected: {_why_unexpected(exc, body)}",
            status=200,
            excerpt="" if request.is_of_whole_calls or empty else _excerpt(body),
            tries=tries,
        ) from None


def error_of(request: Request[Any], status: int, body: bytes, *, tries: int = 1) -> ExporterError:
    """The error for an answer that is not a 200, to be raised by the caller; ``tries`` is the number of the try.

    The status decides, except that 401, 403, 404 and 500 need a look at the body: only the API itself can refuse the
    key or say that something does not exist. Its errors are JSON; HTML or plain text comes from a proxy, a firewall or
    another server. For an optional request, a refused key is a ``RequestRefusedError``, so that the run goes on.
    """
    document, is_page = _parsed(body)
    fields = document if isinstance(document, dict) else {}
    if status in (401, 403) and not (is_page or request.is_optional):
        why = f"the API refused the key ({status} on {request.path}). Check FI_API_KEY and FI_SECRET_KEY or their files"
        return KeyRefusedError(why)
    excerpt = _excerpt(body)
    message = _one_line(_words(fields)) or excerpt or "the body is empty"
    where = f"{request.subject}: {request.path} answered {status}"
    # Only these are the API's own words; any other 404 comes from a proxy or another server, and says nothing.
    is_of_api = fields.get("status") is False or isinstance(fields.get("error"), dict)
    if (status == 404 and is_of_api) or (status == 500 and NO_SUCH_EXECUTION in message):
        return NotFoundError(f"{request.subject}: not found ({message})", status=status, excerpt=excerpt, tries=tries)
    if status == 500:
        return ServerFaultError(f"{where}: {message}", excerpt=excerpt, tries=tries, is_final=not request.retries_500)
    if status > 500 or status in _ASK_TO_RETRY:
        return TransientError(f"{where}: {message}", status=status, excerpt=excerpt, tries=tries)
    if status in (401, 403) and is_page:
        message = "a proxy or firewall, not the API, refused the request. Check [api] proxy and base_url"
    elif status == 404:
        message = "the server does not have this path. Check [api] base_url or FI_BASE_URL"
    elif 300 <= status < 400:
        message = "this is a redirect, which metrics-etl does not follow. Check [api] base_url or FI_BASE_URL"
    return RequestRefusedError(f"{where}: {message}", status=status, excerpt=excerpt, tries=tries)


def retry_after_seconds(headers: Mapping[str, str], body: bytes) -> float | None:
    """How many seconds a refusal asks everybody to wait: by its header, or else by its body.

    None if neither gives a number of seconds below one day (an HTTP date is ignored).
    """
    document, _ = _parsed(body)
    result = document.get("result") if isinstance(document, dict) else None
    in_body = result.get("retry_after") if isinstance(result, dict) else None
    for value in (headers.get("Retry-After"), in_body):
        with suppress(TypeError, ValueError, OverflowError):
            seconds = float(value or "")
            if 0 <= seconds < _LONGEST_HOLD_SECONDS:
                return seconds
    return None


@lru_cache(maxsize=16)  # all answers of a second have the same, and reading it takes longer than decoding a call
def unix_seconds(date: str | None) -> float | None:
    """The time in a ``Date`` header: when the source answered, by its own clock; None if it is no date with a zone."""
    try:
        moment = parsedate_to_datetime(date or "")
        return moment.timestamp() if moment.tzinfo else None
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def clock_offset(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """What to add to our time to get the source's, by an answer that arrived ``now``; None if the answer does not say.

    Zero if the two clocks agree within a minute. Whether data has settled is decided by the source's times, so a wrong
    clock on this machine must not matter.
    """
    then = unix_seconds(headers.get("Date"))
    if then is None:
        return None
    offset = timedelta(seconds=then - now.timestamp())
    if abs(offset) > _FARTHEST:
        return None
    return offset if abs(offset) > _TOLERANCE else timedelta(0)


def _why_unexpected(exc: Exception, body: bytes) -> str:
    """What is wrong with the body, in a few words for people."""
    match exc:
        case json.JSONDecodeError() if not body.strip():
            return "empty"
        case json.JSONDecodeError() if body.lstrip()[:1] == b"<":
            return "HTML, not JSON"
        case json.JSONDecodeError():
            return f"its JSON is truncated or invalid at character {exc.pos}" if exc.pos else "it is not JSON"
        case UnicodeDecodeError():
            return "it is not UTF-8 text"
        case RecursionError():
            return "it is nested too deeply"
        case _:
            return _one_line(str(exc))


def _result(document: Any) -> Any:
    if field_of(document, "status") is not True:
        raise UnexpectedError('its field "status" is not true')
    return field_of(document, "result")


def _parsed(body: bytes) -> tuple[Any, bool]:
    """The document, or None; and whether the body is a page for people: text, but no JSON."""
    try:
        return parse_json(body), False
    except (ValueError, RecursionError):
        return None, bool(body.strip())


def _words(document: dict[str, Any]) -> str:
    """The message of an error and its details, which stand at the top, in ``error`` or in ``result``."""
    inner_documents = (document.get(name) for name in ("error", "result"))
    source = next((inner for inner in inner_documents if isinstance(inner, dict)), document)
    texts = (source.get(name) for name in ("message", "detail", "error", "result"))
    message = next((text for text in texts if text and isinstance(text, str)), "")
    details = source.get("details")
    return ": ".join(filter(None, (message, json.dumps(details, ensure_ascii=False) if details else "")))


def _excerpt(body: bytes) -> str:
    text = body[:_PAGE_BYTES].decode("utf-8-sig", errors="replace")
    if not text.lstrip().startswith("<"):
        return _one_line(text)
    title = _TITLE.search(text)
    return _one_line(f"HTML page: {title[1]}" if title else "HTML page")


def _one_line(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * _EXCERPT_CHARACTERS])
    return " ".join(printable.split())[:_EXCERPT_CHARACTERS]
