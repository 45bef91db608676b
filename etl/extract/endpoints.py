"""Everything the exporter knows about the API's requests and answers. Pure: no socket, no clock.

A ``Request`` carries how to decode its own answer, so that the client needs to know none of them.
Decoding raises ``TransientError`` for a body that is not what the API documents: a proxy's page, a cut body,
``status: false`` in a 200. A retry may fix that.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, NoReturn, TypeVar
from urllib.parse import quote

import msgspec

from etl.errors import (
    KeyRefusedError,
    NotFoundError,
    RequestRefusedError,
    ServerFaultError,
    TransientError,
    UnexpectedAnswerError,
)
from etl.extract.http_date import unix_seconds
from etl.extract.parse import parse_json
from etl.model.records import METRICS, RUN_TESTS, RUNS, CallMetrics, Execution, ListedCall, Page, RunTest
from etl.model.wording import quoted

T = TypeVar("T")

_EXCERPT_CHARACTERS = 200
_LONGEST_HOLD_SECONDS = 86_400
_HEAD = ("execution_id", "status", "started_at", "completed_at", "total_calls", "completed_calls", "failed_calls")


class Request(msgspec.Struct, Generic[T], frozen=True):
    """One GET: where, what for, and how to read the answer.

    ``retries_500`` is off where a 500 tells something by itself. ``names_subject`` says that the answer names what it is about, so
    that ``decode`` refuses the answer to another request. ``group`` is what may well fail together, by no fault of the endpoint:
    the calls of one execution.
    """

    path: str
    query: tuple[tuple[str, str], ...]
    subject: str
    decode: Callable[[Any], T]
    retries_500: bool = True
    names_subject: bool = False
    group: str = ""

    @property
    def target(self) -> str:
        """Path and query as they are sent, every special character escaped."""
        query = "&".join([f"{name}={quote(value, safe='')}" for name, value in self.query])
        return f"{self.path}?{query}"


def list_executions(run_test_name: str, *, page: int, limit: int, is_probe: bool = False) -> Request[Page[Execution]]:
    """One page of a run test's executions, newest created first. A probe takes a 500 for an answer."""
    return _named(METRICS, run_test_name, _Slice(page, limit, is_probe=is_probe), _execution)


def list_execution_heads(run_test_name: str, *, page: int, limit: int) -> Request[Page[Execution]]:
    """One page of the same list without the aggregates, for rows that ``list_executions`` cannot give."""
    return _named(RUNS, run_test_name, _Slice(page, limit), _execution_head)


def list_calls(execution_id: str, *, page: int, limit: int, is_probe: bool = False) -> Request[Page[ListedCall]]:
    """One page of an execution's calls, last updated first. A probe takes a 500 for an answer."""
    part = _Slice(page, limit, is_probe=is_probe)

    def decode(result: Any) -> Page[ListedCall]:
        calls = _field(result, "call_results")
        # Every known server names the execution beside its calls. One that leaves it out is not refused for that.
        if result.get("execution_id", execution_id) != execution_id:
            raise _UnexpectedError("answered for another execution_id")
        return _page(calls, page, _listed_call)

    return Request(
        path=RUNS,
        query=(("execution_id", execution_id), *part.query),
        subject=f"execution {execution_id}, page {page}",
        decode=decode,
        retries_500=part.retries_500,
        # An error names nothing: where a 500 tells something, it must be the answer to this request.
        names_subject=part.retries_500,
    )


class _Slice(msgspec.Struct, frozen=True):
    """Which rows of a list: page (from 1) of so many rows."""

    page: int
    limit: int
    is_probe: bool = False

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        return ("page", str(self.page)), ("limit", str(self.limit))

    @property
    def retries_500(self) -> bool:
        """A page past the last one is a 500 as well: only the first page always exists."""
        return self.page == 1 and not self.is_probe


def _named(
    path: str, run_test_name: str, part: _Slice, decode_row: Callable[[Any], Execution]
) -> Request[Page[Execution]]:
    return Request(
        path=path,
        query=(("run_test_name", run_test_name), *part.query),
        subject=f"run test {quoted(run_test_name)}, page {part.page}",
        decode=lambda result: _page(result, part.page, decode_row),
        retries_500=part.retries_500,
    )


def list_run_tests(*, page: int, limit: int, is_probe: bool = False) -> Request[Page[RunTest]]:
    """One page of the workspace's run tests. The one endpoint whose body is not wrapped in status and result."""
    part = _Slice(page, limit, is_probe=is_probe)
    return Request(
        path=RUN_TESTS,
        query=part.query,
        subject=f"run tests, page {page}",
        decode=lambda body: _page(body, page, _run_test),
        retries_500=part.retries_500,
    )


def get_execution(execution_id: str) -> Request[Execution]:
    """One execution's aggregated metrics. Often a question whether it still exists: then a 404 is the answer, and names nothing."""

    def decode(result: Any) -> Execution:
        return _same_id(_execution(result), "execution_id", execution_id)

    return Request(METRICS, (("execution_id", execution_id),), f"execution {execution_id}", decode)


def get_call_metrics(call_execution_id: str, execution_id: str, *, is_lookup: bool = False) -> Request[CallMetrics]:
    """One call's raw metrics, which may name another execution than the one that lists it.

    A look-up asks whether the call still exists: a 404 names nothing.
    """

    def decode(result: Any) -> CallMetrics:
        return _same_id(_call_metrics(result), "call_execution_id", call_execution_id)

    query = (("call_execution_id", call_execution_id),)
    subject = f"call {call_execution_id}"
    return Request(METRICS, query, subject, decode, names_subject=not is_lookup, group=execution_id)


def decode(request: Request[T], body: bytes, *, tries: int = 1) -> T:
    """The answer's value, from the body of a 200; ``tries`` is the number of the try.

    Raises:
        UnexpectedAnswerError: the API answered, but with another document than it documents.
        TransientError: the body is not an answer of the API at all, or says that it failed.
    """
    kind = TransientError
    try:
        document = parse_json(body)
        if request.path != RUN_TESTS:
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
    if status in (401, 403) and not _is_page(body):
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
    if status in (401, 403):
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
        return float(_field(_field(parse_json(body), "result"), "retry_after"))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _why_unexpected(exc: Exception, body: bytes) -> str:
    match exc:
        case json.JSONDecodeError() if not body.strip():
            return "empty"
        case json.JSONDecodeError() if body.lstrip()[:1] == b"<":
            return "HTML, not JSON"
        case json.JSONDecodeError():
            return f"JSON that is cut or wrong at character {exc.pos}" if exc.pos else "not JSON"
        case UnicodeDecodeError():
            return "not text in utf-8"
        case RecursionError():
            return "nested too deeply"
        case _:
            return _one_line(str(exc))


class _UnexpectedError(ValueError):
    """The document has another shape than the API documents."""


def _result(document: Any) -> Any:
    if _field(document, "status") is not True:
        raise _UnexpectedError("status is not true")
    return _field(document, "result")


def _field(document: Any, name: str) -> Any:
    try:
        return document[name]
    except KeyError:
        raise _UnexpectedError(f"no field {name}") from None
    except TypeError:
        raise _UnexpectedError(f"expected an object with {name}, got {_kind(document)}") from None


def _typed(document: Any, name: str, kind: type[T]) -> T:
    value = _field(document, name)
    if type(value) is not kind:
        raise _UnexpectedError(f"expected {kind.__name__}, got {_kind(value)} at {name}")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _id(document: Any, name: str) -> str:
    value = _typed(document, name, str)
    if not value or not value.isprintable():
        raise _UnexpectedError(f"not an id at {name}")
    return value


def _same_id(value: T, name: str, wanted: str) -> T:
    if getattr(value, name) != wanted:
        raise _UnexpectedError(f"answered for another {name}")
    return value


def _page(document: Any, page: int, decode_row: Callable[[Any], T]) -> Page[T]:
    current_page = _typed(document, "current_page", int)
    if current_page != page:
        raise _UnexpectedError(f"asked for page {page}, got page {current_page}")
    return Page(
        total_pages=_typed(document, "total_pages", int),
        count=_typed(document, "count", int),
        results=tuple(decode_row(row) for row in _typed(document, "results", list)),
    )


def _execution(document: Any) -> Execution:
    return Execution(
        execution_id=_id(document, "execution_id"), status=_typed(document, "status", str), payload=document
    )


def _execution_head(document: Any) -> Execution:
    row = _execution(document)
    return Execution(
        execution_id=row.execution_id,
        status=row.status,
        payload={name: value for name, value in row.payload.items() if name in _HEAD},
    )


def _listed_call(document: Any) -> ListedCall:
    return ListedCall(call_execution_id=_id(document, "call_execution_id"), payload=document)


def _call_metrics(document: Any) -> CallMetrics:
    return CallMetrics(
        call_execution_id=_id(document, "call_execution_id"),
        execution_id=_id(document, "execution_id"),
        status=_typed(document, "status", str),
        payload=document,
    )


def _run_test(document: Any) -> RunTest:
    return RunTest(run_test_id=_id(document, "id"), name=_typed(document, "name", str), payload=document)


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
