"""The API's requests, and the records in its documents. Pure: no socket, no clock.

A ``Request`` carries how to decode its own answer, so that the client needs to know none of them. What an answer means is in
``answers.py``.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import msgspec

from etl.model.records import (
    DETAIL,
    METRICS,
    RUN_TESTS,
    RUNS,
    CallMetrics,
    DetailedCall,
    Execution,
    ListedCall,
    ListedRunTest,
    Page,
)
from etl.model.wording import quoted

T = TypeVar("T")

NO_SUCH_EXECUTION = "No TestExecution matches"
"""What the detail's 500 says of an execution that the key's workspace does not have; other endpoints answer 404."""
_NO_EVAL = "metrics-etl: no eval has this name"
_LISTED_CALL = ("call_execution_id", "scenario_id", "scenario_name", "status", "duration_seconds", "eval_outputs")
_HEAD = ("execution_id", "status", "started_at", "completed_at", "total_calls", "completed_calls", "failed_calls")


class Purpose(StrEnum):
    """What a request is sent for: the price of a run, by purpose."""

    LIST = "list"
    FIRST_FETCH = "first_fetch"
    SETTLE = "settle"
    DEAD_LETTERS = "dead_letters"
    SCRUB = "scrub"


def no_requests() -> dict[Purpose, int]:
    """A count for each purpose, from zero."""
    return dict.fromkeys(Purpose, 0)


class Request(msgspec.Struct, Generic[T], frozen=True):
    """One GET: where, what for, and how to read the answer.

    ``retries_500`` is off where a 500 tells something by itself. ``group`` is what may well fail together, by no fault of the
    endpoint: the calls of one execution. ``is_wrapped``: the answer stands in an object with a status. ``is_optional``: a refusal
    does not stop the run, and a second failure is believed. ``purpose`` is what it is counted for.
    """

    path: str
    query: tuple[tuple[str, str], ...]
    subject: str
    decode: Callable[[Any], T]
    retries_500: bool = True
    group: str = ""
    is_wrapped: bool = True
    is_optional: bool = False
    purpose: Purpose = Purpose.LIST

    @property
    def target(self) -> str:
        """Path and query as they are sent, every special character escaped."""
        query = "&".join([f"{name}={quote(value, safe='')}" for name, value in self.query])
        return f"{self.path}?{query}"

    def sent_for(self, purpose: Purpose) -> Self:
        """The same request, counted for this purpose."""
        return msgspec.structs.replace(self, purpose=purpose)


class Slice(msgspec.Struct, frozen=True):
    """Which rows of a list: page (from 1) of so many rows. A probe takes a 500 for an answer, a trial any failure."""

    page: int
    limit: int
    is_probe: bool = False
    is_trial: bool = False

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """The parameters that ask for it."""
        return ("page", str(self.page)), ("limit", str(self.limit))

    @property
    def retries_500(self) -> bool:
        """A page past the last one is a 500 as well: only the first page always exists."""
        return self.page == 1 and not (self.is_probe or self.is_trial)


def list_executions(run_test_name: str, part: Slice) -> Request[Page[Execution]]:
    """One page of a run test's executions, newest created first."""
    return _named(METRICS, run_test_name, part, _execution)


def list_execution_heads(run_test_name: str, part: Slice) -> Request[Page[Execution]]:
    """One page of the same list without the aggregates, for rows that ``list_executions`` cannot give."""
    return _named(RUNS, run_test_name, part, _execution_head)


def _named(path: str, run_test_name: str, part: Slice, decode: Callable[[Any], Execution]) -> Request[Page[Execution]]:
    return Request(
        path=path,
        query=(("run_test_name", run_test_name), *part.query),
        subject=f"run test {quoted(run_test_name)}, page {part.page}",
        decode=lambda result: _page(result, part.page, decode),
        retries_500=part.retries_500,
        is_optional=part.is_trial,
    )


def list_calls(execution_id: str, part: Slice, *, without_evals: bool = False) -> Request[Page[ListedCall]]:
    """One page of an execution's calls, last updated first.

    A 500 is believed at once: the server may be unable to sum up an eval. Without evals it sums up none, and each call's
    ``eval_outputs`` is empty.
    """

    def decode(result: Any) -> Page[ListedCall]:
        calls = field_of(result, "call_results")
        # Every known server names the execution beside its calls. One that leaves it out is not refused for that.
        if result.get("execution_id", execution_id) != execution_id:
            raise UnexpectedError("the answer is for another execution_id")
        return _page(calls, part.page, _listed_call)

    return Request(
        path=RUNS,
        query=(("execution_id", execution_id), *part.query, *((("eval_name", _NO_EVAL),) if without_evals else ())),
        subject=f"execution {execution_id}, page {part.page}",
        decode=decode,
        retries_500=part.retries_500 and without_evals,
        is_optional=part.is_trial,
    )


def list_run_tests(part: Slice) -> Request[Page[ListedRunTest]]:
    """One page of the workspace's run tests. The one endpoint whose body is not wrapped in status and result."""
    return Request(
        path=RUN_TESTS,
        query=part.query,
        subject=f"run tests, page {part.page}",
        decode=lambda body: _page(body, part.page, _run_test),
        retries_500=part.retries_500,
        is_wrapped=False,
        is_optional=part.is_trial,
    )


def list_call_details(execution_id: str, *, limit: int) -> Request[Page[DetailedCall]]:
    """The first page of an execution's detail: most metrics of its calls. Some servers, keys and executions have none."""

    def decode(document: Any) -> Page[DetailedCall]:
        page = _page(document, 1, _detailed_call)
        for call in page.results:
            if call.payload.get("test_execution_id") != execution_id:
                raise UnexpectedError("the answer is for another execution")
        return page

    return Request(
        path=f"{DETAIL}{execution_id}/",
        query=Slice(1, limit).query,
        subject=f"detail of execution {execution_id}",
        decode=decode,
        is_wrapped=False,
        is_optional=True,
    )


def get_execution(execution_id: str) -> Request[Execution]:
    """One execution's aggregated metrics, or the answer to whether it still exists."""
    decode = _with_id(_execution, "execution_id", execution_id)
    return Request(METRICS, (("execution_id", execution_id),), f"execution {execution_id}", decode)


def get_call_metrics(call_execution_id: str, execution_id: str) -> Request[CallMetrics]:
    """One call's raw metrics, which may name another execution than the one that lists it."""
    decode = _with_id(_call_metrics, "call_execution_id", call_execution_id)
    query = (("call_execution_id", call_execution_id),)
    return Request(METRICS, query, f"call {call_execution_id}", decode, group=execution_id)


def get_listed_call(call_execution_id: str, execution_id: str) -> Request[ListedCall]:
    """One call as the list of its execution's calls has it, for a list that cannot be had with evals."""

    def decode(result: Any) -> ListedCall:
        call = _with_id(_listed_call, "call_execution_id", call_execution_id)(result)
        payload = {name: value for name, value in call.payload.items() if name in _LISTED_CALL}
        return ListedCall(call_execution_id=call_execution_id, payload=payload)

    query = (("call_execution_id", call_execution_id),)
    return Request(RUNS, query, f"call {call_execution_id}", decode, group=execution_id)


class UnexpectedError(ValueError):
    """The document has another shape than the API documents."""


def field_of(document: Any, name: str) -> Any:
    """The object's field; UnexpectedError when it is no object or has none of that name."""
    try:
        return document[name]
    except KeyError:
        raise UnexpectedError(f"no field {name}") from None
    except TypeError:
        raise UnexpectedError(f"expected an object with {name}, got {_kind(document)}") from None


def _typed(document: Any, name: str, kind: type[T]) -> T:
    value = field_of(document, name)
    if type(value) is not kind:
        raise UnexpectedError(f"expected {kind.__name__}, got {_kind(value)} at {name}")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _id(document: Any, name: str) -> str:
    value = _typed(document, name, str)
    if not value or not value.isprintable():
        raise UnexpectedError(f"expected an id at {name}")
    return value


def _with_id(decode_row: Callable[[Any], T], name: str, wanted: str) -> Callable[[Any], T]:
    """Decodes a record, which must be the wanted one."""

    def decode(result: Any) -> T:
        value = decode_row(result)
        if getattr(value, name) != wanted:
            raise UnexpectedError(f"the answer is for another {name}")
        return value

    return decode


def _page(document: Any, page: int, decode_row: Callable[[Any], T]) -> Page[T]:
    current_page = _typed(document, "current_page", int)
    if current_page != page:
        raise UnexpectedError(f"asked for page {page}, got page {current_page}")
    return Page(
        total_pages=_typed(document, "total_pages", int),
        count=_typed(document, "count", int),
        results=tuple(decode_row(row) for row in _typed(document, "results", list)),
    )


def _execution(row: Any) -> Execution:
    return Execution(execution_id=_id(row, "execution_id"), status=_typed(row, "status", str), payload=row)


def _execution_head(document: Any) -> Execution:
    row = _execution(document)
    return msgspec.structs.replace(row, payload={name: row.payload[name] for name in row.payload if name in _HEAD})


def _listed_call(document: Any) -> ListedCall:
    field_of(document, "eval_outputs")  # every known server names it, also where a call has none
    return ListedCall(call_execution_id=_id(document, "call_execution_id"), payload=document)


def _detailed_call(document: Any) -> DetailedCall:
    return DetailedCall(call_execution_id=_id(document, "id"), payload=document)


def _call_metrics(document: Any) -> CallMetrics:
    return CallMetrics(
        call_execution_id=_id(document, "call_execution_id"),
        execution_id=_id(document, "execution_id"),
        status=_typed(document, "status", str),
        payload=document,
    )


def _run_test(document: Any) -> ListedRunTest:
    return ListedRunTest(run_test_id=_id(document, "id"), name=_typed(document, "name", str), payload=document)
