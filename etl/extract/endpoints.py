"""The API's requests, and the records in its documents. Pure: no socket, no clock.

Owns paths, parameters and the shape of each document. A ``Request`` carries how to decode its own answer, so the client
needs to know no endpoint. Whether an answer is a document at all, or which error it is, is decided in ``answers.py``.
"""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from enum import StrEnum
from functools import partial
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import msgspec

from etl.model import schema
from etl.model.records import (
    ANALYTICS,
    DETAIL,
    METRICS,
    RUN_TESTS,
    RUNS,
    VOICE_CALLS,
    CallMetrics,
    Description,
    Execution,
    ListedCall,
    ListedRunTest,
    Page,
)
from etl.model.wording import quoted, reason_line
from etl.transform.voice import FIELDS

T = TypeVar("T")
Query = tuple[tuple[str, str], ...]
"""Names and values of parameters, in the order in which they are sent."""

NO_SUCH_EXECUTION = "No TestExecution matches"
"""What the detail's 500 says of an execution that the key's workspace does not have; other endpoints answer 404."""
_NO_EVAL = "metrics-etl: no eval has this name"
"""The server is asked for an eval of this name, so that it sums up none."""
_LISTED_CALL = ("call_execution_id", "scenario_id", "scenario_name", "status", "duration_seconds", "eval_outputs")
"""The fields of a call in the list of its execution's calls."""
_HEAD = ("execution_id", "status", "started_at", "completed_at", "total_calls", "completed_calls", "failed_calls")
"""The fields of an execution in the list of executions, without its aggregates."""


class Purpose(StrEnum):
    """What a request is sent for: a run reports its requests by purpose."""

    LIST = "list"
    """Lists of run tests and executions, and look-ups of what is missing from them."""
    FIRST_FETCH = "first_fetch"
    """Executions that are new, changed, damaged, requested, listed, or still running."""
    SETTLE = "settle"
    """Executions that settle."""
    DEAD_LETTERS = "dead_letters"
    """Executions that are incomplete."""
    SWEEP = "sweep"
    """Final executions that are compared again."""


def no_requests() -> dict[Purpose, int]:
    """A count for each purpose, from zero."""
    return dict.fromkeys(Purpose, 0)


class Request(msgspec.Struct, Generic[T], frozen=True):
    """One GET: where, what for, and how to read the answer."""

    path: str
    """The endpoint, as the client groups requests that fail together."""
    query: Query
    """Not escaped; it has at least one parameter, and the first says what is requested."""
    subject: str
    """What it is about, for messages: ``call 5af9e484-…``."""
    decode: Callable[[Any], T]
    """Makes the value of the answer's document.

    It raises ``UnexpectedError`` if the document has another shape than the API documents.
    """
    retries_500: bool = True
    """Whether the client retries a 500; not where it means something by itself, such as a page past the last one."""
    group: str = ""
    """What may well fail together by no fault of the endpoint: the calls of one execution. Empty: only itself.

    So a request has one if it is about one call, and is counted as such.
    """
    is_wrapped: bool = True
    """Whether the document stands in an object: ``{"status": true, "result": …}``."""
    is_optional: bool = False
    """Whether the run can do without it: a refused key does not stop the run then, and it is tried only twice."""
    is_tried_once: bool = False
    """Whether it is not tried again at all."""
    is_of_whole_calls: bool = False
    """Whether the answer is dear and has personal data: few are requested at once, and an error does not quote it."""
    purpose: Purpose = Purpose.LIST
    """What it is counted for."""

    @property
    def target(self) -> str:
        """Path and query as they are sent, every special character escaped."""
        query = "&".join([f"{name}={quote(value, safe='')}" for name, value in self.query])
        return f"{self.path}?{query}"

    def sent_for(self, purpose: Purpose) -> Self:
        """The same request, counted for this purpose."""
        return msgspec.structs.replace(self, purpose=purpose)


class Slice(msgspec.Struct, frozen=True):
    """Which rows of a list to request: one page."""

    page: int
    """From 1."""
    limit: int
    """The most rows of a page."""
    is_probe: bool = False
    """Whether a 500 is expected, since the page may hold a bad row: it is not retried."""
    is_trial: bool = False
    """Whether the page may be larger than the server can give: a 500 is not retried, another failure once at most."""

    @property
    def query(self) -> Query:
        """The parameters that request it."""
        return ("page", str(self.page)), ("limit", str(self.limit))

    @property
    def retries_500(self) -> bool:
        """Whether the client retries a 500.

        Not for a probe or a trial, nor after page 1: a page past the last one is a 500, too.
        """
        return self.page == 1 and not (self.is_probe or self.is_trial)


def list_executions(run_test_name: str, page: Slice) -> Request[Page[Execution]]:
    """One page of a run test's executions with their aggregates, newest created first.

    Source: GET /sdk/api/v1/simulation/metrics/?run_test_name=…
    """
    return _list(METRICS, (("run_test_name", run_test_name),), page, f"run test {quoted(run_test_name)}", _execution)


def list_execution_heads(run_test_name: str, page: Slice) -> Request[Page[Execution]]:
    """One page of the same list without the aggregates, for rows that ``list_executions`` cannot give.

    Source: GET /sdk/api/v1/simulation/runs/?run_test_name=…
    """
    return _list(RUNS, (("run_test_name", run_test_name),), page, f"run test {quoted(run_test_name)}", _execution_head)


def list_calls(execution_id: str, page: Slice, *, without_evals: bool = False) -> Request[Page[ListedCall]]:
    """One page of an execution's calls, last updated first.

    A 500 is not retried, since the server may be unable to sum up an eval. With ``without_evals`` it sums up none: each
    call's ``eval_outputs`` is empty, and a 500 of page 1 is retried.

    Source: GET /sdk/api/v1/simulation/runs/?execution_id=…
    """

    def decode(result: Any) -> Page[ListedCall]:
        calls = field_of(result, "call_results")
        # Every known server names the execution beside its calls. One that leaves it out is not refused for that.
        if result.get("execution_id", execution_id) != execution_id:
            raise UnexpectedError("it is for another execution_id")
        return _page(calls, page.page, _listed_call)

    eval_name = (("eval_name", _NO_EVAL),) if without_evals else ()
    return Request(
        path=RUNS,
        query=(("execution_id", execution_id), *page.query, *eval_name),
        subject=f"execution {execution_id}, page {page.page}",
        decode=decode,
        retries_500=page.retries_500 and without_evals,
        is_optional=page.is_trial,
    )


def list_run_tests(page: Slice, *, is_optional: bool = False) -> Request[Page[ListedRunTest]]:
    """One page of the run tests in the key's workspace, newest created first.

    If it ``is_optional``, as in ``Request``, rows that cannot be read are left out.

    Source: GET /simulate/run-tests/
    """
    request = _list(RUN_TESTS, (), page, "run tests", _run_test, is_odd_left_out=is_optional)
    return msgspec.structs.replace(request, is_wrapped=False, is_optional=is_optional or page.is_trial)


def list_run_test_executions(run_test_id: str, page: Slice) -> Request[Page[Description]]:
    """One page of what a run test's own list says of its executions, newest created first, but for unreadable rows.

    The server loads all calls of these executions.

    Source: GET /simulate/run-tests/{run_test_id}/executions/
    """
    path, subject = f"{RUN_TESTS}{run_test_id}/executions/", f"executions of run test {run_test_id}"
    request = _list(path, (), page, subject, partial(_description, run_test_id=run_test_id), is_odd_left_out=True)
    return msgspec.structs.replace(request, is_wrapped=False, is_optional=True, is_of_whole_calls=True)


def _list(
    path: str,
    selector: Query,
    page: Slice,
    subject: str,
    decode_row: Callable[[Any], T],
    *,
    is_odd_left_out: bool = False,
) -> Request[Page[T]]:
    """One page of a list whose document is the page itself."""
    return Request(
        path=path,
        query=(*selector, *page.query),
        subject=f"{subject}, page {page.page}",
        decode=lambda document: _page(document, page.page, decode_row, is_odd_left_out=is_odd_left_out),
        retries_500=page.retries_500,
        is_optional=page.is_trial,
    )


def list_call_details(execution_id: str, page: Slice) -> Request[Page[ListedCall]]:
    """One page of an execution's detail: its calls with most of their metrics, last updated first.

    Some servers, keys and executions have no detail.

    Source: GET /simulate/test-executions/{execution_id}/
    """

    def decode_row(row: Any) -> ListedCall:
        call = ListedCall(call_execution_id=_id(row, "id"), payload=row)
        if row.get("test_execution_id") != execution_id:
            raise UnexpectedError("it is for another execution")
        return call

    return _list_of_whole_calls(f"{DETAIL}{execution_id}/", (), page, f"detail of execution {execution_id}", decode_row)


def list_voice_calls(execution_id: str, page: Slice) -> Request[Page[ListedCall]]:
    """One page of an execution's voice calls, last saved first: none of a chat, nor of what does not exist.

    Personal data and whatever else is not exported is dropped here.

    Source: GET /simulate/api/call-executions/?test_execution_id=…
    """

    def decode_row(row: Any) -> ListedCall:
        fields = (*FIELDS, *(name for name in schema.OF_VOICE_LIST if name in row))
        return ListedCall(call_execution_id=_id(row, "id"), payload={name: field_of(row, name) for name in fields})

    selector, subject = (("test_execution_id", execution_id),), f"voice calls of execution {execution_id}"
    request = _list_of_whole_calls(VOICE_CALLS, selector, page, subject, decode_row)
    return msgspec.structs.replace(request, retries_500=False, is_tried_once=True)


def _list_of_whole_calls(
    path: str, selector: Query, page: Slice, subject: str, decode_row: Callable[[Any], T]
) -> Request[Page[T]]:
    """One page of an execution's calls, which an export can do without."""
    request = _list(path, selector, page, subject, decode_row)
    return msgspec.structs.replace(request, subject=subject, is_wrapped=False, is_optional=True, is_of_whole_calls=True)


def get_execution(execution_id: str) -> Request[Execution]:
    """One execution with its aggregates; also requested to learn whether it still exists.

    Source: GET /sdk/api/v1/simulation/metrics/?execution_id=…
    """
    decode = _with_id(_execution, "execution_id", execution_id)
    return Request(METRICS, (("execution_id", execution_id),), f"execution {execution_id}", decode)


def get_run_test_name(execution_id: str, *, without_evals: bool = False, is_optional: bool = True) -> Request[str]:
    """The name that the execution's run test has now.

    The server may be unable to sum up an eval: with ``without_evals`` it sums up none.

    Source: GET /sdk/api/v1/simulation/analytics/?execution_id=…
    """

    def decode(result: Any) -> str:
        if field_of(result, "execution_id") != execution_id:
            raise UnexpectedError("it is for another execution_id")
        return _typed(result, "run_test_name", str)

    eval_name = (("eval_name", _NO_EVAL),) if without_evals else ()
    query = (("execution_id", execution_id), *eval_name)
    return Request(ANALYTICS, query, f"run test of execution {execution_id}", decode, is_optional=is_optional)


def get_call_metrics(call_execution_id: str, execution_id: str) -> Request[CallMetrics]:
    """One call's raw metrics, which may name another execution than the one that lists it.

    Source: GET /sdk/api/v1/simulation/metrics/?call_execution_id=…
    """
    decode = _with_id(_call_metrics, "call_execution_id", call_execution_id)
    query = (("call_execution_id", call_execution_id),)
    return Request(METRICS, query, f"call {call_execution_id}", decode, group=execution_id)


def get_listed_call(call_execution_id: str, execution_id: str) -> Request[ListedCall]:
    """One call with its evals, as the list of its execution's calls would have it if the server could give that list.

    Source: GET /sdk/api/v1/simulation/runs/?call_execution_id=…
    """

    def decode(result: Any) -> ListedCall:
        call = _with_id(_listed_call, "call_execution_id", call_execution_id)(result)
        payload = {name: value for name, value in call.payload.items() if name in _LISTED_CALL}
        return ListedCall(call_execution_id=call_execution_id, payload=payload)

    query = (("call_execution_id", call_execution_id),)
    return Request(RUNS, query, f"call {call_execution_id}", decode, group=execution_id)


class UnexpectedError(ValueError):
    """The document has another shape than the API documents."""


def field_of(document: Any, name: str) -> Any:
    """The object's field of that name.

    Raises:
        UnexpectedError: The document is no object, or has no such field.
    """
    try:
        return document[name]
    except KeyError:
        raise UnexpectedError(f"the field {name} is missing") from None
    except TypeError:
        raise UnexpectedError(f"expected an object with {name}, got {_kind(document)}") from None


def _typed(document: Any, name: str, kind: type[T]) -> T:
    value = field_of(document, name)
    if type(value) is not kind:  # not isinstance: True is an int
        raise UnexpectedError(f"the field {name} is {_kind(value)} instead of {kind.__name__}")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _id(document: Any, name: str) -> str:
    value = _typed(document, name, str)
    if not value or not value.isprintable():
        raise UnexpectedError(f"the field {name} is not an id")
    return value


def _with_id(decode_row: Callable[[Any], T], name: str, wanted: str) -> Callable[[Any], T]:
    """``decode_row``, and then the check that the record's id ``name`` is the wanted one."""

    def decode(result: Any) -> T:
        value = decode_row(result)
        if getattr(value, name) != wanted:
            raise UnexpectedError(f"it is for another {name}")
        return value

    return decode


def _page(document: Any, page: int, decode_row: Callable[[Any], T], *, is_odd_left_out: bool = False) -> Page[T]:
    current_page = _typed(document, "current_page", int)
    if current_page != page:
        raise UnexpectedError(f"it is page {current_page} instead of page {page}")
    rows: list[T] = []
    for row in _typed(document, "results", list):
        with suppress(UnexpectedError) if is_odd_left_out else nullcontext():
            rows.append(decode_row(row))
    total_pages, count = (_typed(document, name, int) for name in ("total_pages", "count"))
    return Page(total_pages=total_pages, count=count, results=tuple(rows))


def _execution(row: Any) -> Execution:
    return Execution(execution_id=_id(row, "execution_id"), status=_typed(row, "status", str), payload=row)


def _execution_head(document: Any) -> Execution:
    row = _execution(document)
    return msgspec.structs.replace(row, payload={name: row.payload[name] for name in row.payload if name in _HEAD})


def _listed_call(document: Any) -> ListedCall:
    # Every known server names it, also where a call has no evals: without this check, a new name would empty them all.
    field_of(document, "eval_outputs")
    return ListedCall(call_execution_id=_id(document, "call_execution_id"), payload=document)


def _call_metrics(document: Any) -> CallMetrics:
    return CallMetrics(
        call_execution_id=_id(document, "call_execution_id"),
        execution_id=_id(document, "execution_id"),
        status=_typed(document, "status", str),
        payload=document,
    )


def _run_test(document: Any) -> ListedRunTest:
    return ListedRunTest(run_test_id=_id(document, "id"), name=_typed(document, "name", str), payload=document)


def _description(row: Any, run_test_id: str) -> Description:
    execution_id = _id(row, "id")

    def text(name: str) -> str | None:  # only texts that it may do without
        value = row.get(name)
        return reason_line(value) if isinstance(value, str) and value not in ("", "N/A") else None

    columns = {name: text(name) for name in ("agent_version", "error_reason")}
    columns |= {"run_test_id": run_test_id, "agent_name": text("agent_definition")}
    return Description(execution_id=execution_id, columns=columns)
