"""The answer to each request: paths, keys and parameters, checked in the order of the real server. Pure.

Owns which answer a request gets and the bodies of refusals, word for word as they were recorded. What the good answers
hold is computed in ``sdk`` and ``simulate``.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec

from etl.sandbox import sdk, simulate
from etl.sandbox.fields import AnswerError, page_of
from etl.sandbox.world import World, listable_executions

Found = TypeVar("Found")
METRICS = "/sdk/api/v1/simulation/metrics/"
RUNS = "/sdk/api/v1/simulation/runs/"
ANALYTICS = "/sdk/api/v1/simulation/analytics/"
RUN_TESTS = "/simulate/run-tests/"
VOICE_CALLS = "/simulate/api/call-executions/"
EXECUTIONS = re.compile(r"/simulate/run-tests/([0-9a-fA-F-]{36})/executions/")
DETAIL = re.compile(r"/simulate/test-executions/([0-9a-fA-F-]{36})/")
FAILURES = {
    METRICS: "Unable to fetch simulation metrics.",
    RUNS: "Unable to fetch simulation runs.",
    ANALYTICS: "Unable to fetch simulation analytics.",
    RUN_TESTS: "Failed to retrieve run tests: Invalid page.",
    VOICE_CALLS: "Failed to retrieve call executions.",
}
IDS = ("call_execution_id", "execution_id")
SELECTORS = (*IDS, "run_test_name")
PARAMETERS = {
    METRICS: {*SELECTORS, "page", "limit"},
    RUNS: {*SELECTORS, "page", "limit", "eval_name"},
    ANALYTICS: {"execution_id", "eval_name"},
}
"""By endpoint. The real server also takes ``run_test_name`` for analytics."""
NO_SUCH_PAGE = "Failed to retrieve test executions: Invalid page."
NO_SELECTOR = "At least one of 'run_test_name', 'execution_id', or 'call_execution_id' is required."
HTML = {"Content-Type": "text/html; charset=utf-8"}
HTML_404 = b"<!doctype html><html lang=en><head><title>Not Found</title></head><body><h1>Not Found</h1></body></html>"


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """One request that the server received."""

    method: str
    path: str
    """Unescaped, without the query."""
    target: str
    """Path and query as they were sent."""
    query: dict[str, str]
    """The parameters, unescaped."""
    status: int | None
    """The status of the answer; None if there was none, and until there is one."""
    received_at: float
    """When it arrived, in seconds of a monotonic clock."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the server accepts."""

    api_key: str
    secret_key: str
    max_limit: int | None
    """The most rows of a page; None for no limit."""


@dataclass(frozen=True, slots=True)
class SandboxAnswer:
    """One answer, before a fault changes it."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class _RefusedError(Exception):
    """The request is refused; ``answer`` says why."""

    def __init__(self, status: int, body: dict[str, Any], **headers: str) -> None:
        super().__init__(status)
        self.answer = json_answer(status, body, **headers)


def answer_to(
    world: World, request: SandboxRequest, headers: Mapping[str, str], origin: str, rules: Rules
) -> SandboxAnswer:
    """The answer to one request.

    ``headers`` are those of the request, and must ignore case; links in the answer begin with ``origin``.
    """
    execution_id, run_test_id = DETAIL.fullmatch(request.path), EXECUTIONS.fullmatch(request.path)
    if request.path not in FAILURES and not (execution_id or run_test_id):
        return _wrong_path(request)
    url, query = f"{origin}{request.path}", request.query
    try:
        _check_access(request.method, headers, rules)
        page: Callable[..., dict[str, Any]] | None
        if execution_id:
            page = partial(_detail, execution_id=execution_id[1])
        elif run_test_id:
            page = partial(_executions, run_test_id=run_test_id[1])
        else:
            page = {RUN_TESTS: simulate.run_tests_page, VOICE_CALLS: _voice_calls}.get(request.path)
        if page:
            return json_answer(200, page(world, url=url, query=query, max_limit=rules.max_limit))
        query = _validated_query(request.path, query)
        return json_answer(200, {"status": True, "result": _result(world, request.path, query, rules.max_limit)})
    except _RefusedError as refused:
        return refused.answer
    except AnswerError:
        return json_answer(500, server_error(FAILURES.get(request.path, NO_SUCH_PAGE)))


def _wrong_path(request: SandboxRequest) -> SandboxAnswer:
    with_slash = f"{request.path}/"
    if with_slash in FAILURES or DETAIL.fullmatch(with_slash):
        path, mark, rest = request.target.partition("?")
        return SandboxAnswer(301, b"", {**HTML, "Location": f"{path}/{mark}{rest}"})
    return SandboxAnswer(404, HTML_404, HTML)


def json_answer(status: int, body: dict[str, Any], **headers: str) -> SandboxAnswer:
    """A JSON answer."""
    always = {"Content-Type": "application/json", "Allow": "GET, HEAD, OPTIONS"}
    return SandboxAnswer(status, msgspec.json.encode(body), always | headers)


def _check_access(method: str, headers: Mapping[str, str], rules: Rules) -> None:
    accept = headers.get("Accept", "*/*")
    keys = (headers.get("X-Api-Key"), headers.get("X-Secret-Key"))
    if not any(kind in accept for kind in ("*/*", "application/*", "application/json")):
        raise _refused(406, "api_error", "not_acceptable", "Could not satisfy the request Accept header.")
    if "Authorization" in headers:
        raise _unauthorized("authentication_failed", f"{'Invalid Token parsed: ' * 2}Invalid token encryption")
    if None in keys:
        raise _unauthorized("not_authenticated", "Authentication credentials were not provided.")
    if keys != (rules.api_key, rules.secret_key):
        raise _unauthorized("authentication_failed", "Invalid API key or secret key")
    if method not in ("GET", "HEAD"):
        raise _refused(405, "api_error", "method_not_allowed", f'Method "{method}" not allowed.')


def _refused(status: int, kind: str, code: str, text: str, **headers: str) -> _RefusedError:
    return _RefusedError(status, _error(kind, code, text, details={"detail": [text]}), **headers)


def _unauthorized(code: str, text: str) -> _RefusedError:
    return _refused(401, "authentication_error", code, text, **{"WWW-Authenticate": "ApiKey"})


def _validated_query(path: str, query: Mapping[str, str]) -> dict[str, str]:
    """The parameters that are not empty; ids as lower-case UUIDs, names without spaces around them.

    Raises:
        _RefusedError: A parameter is unknown or invalid, or none says what is requested.
    """
    validated: dict[str, str] = {}
    for name, value in query.items():
        if name not in PARAMETERS[path]:
            raise _invalid(name, "Unknown field.")
        if not value:
            continue
        validated[name] = value
        if name in IDS:
            try:
                validated[name] = str(uuid.UUID(value))
            except ValueError:
                raise _invalid(name, "Must be a valid UUID.") from None
        elif name in ("run_test_name", "eval_name"):
            # Like the real server: a run test whose name begins or ends with a space cannot be listed.
            validated[name] = value.strip()
            if not validated[name]:
                raise _invalid(name, "This field may not be blank.")
    if validated.keys().isdisjoint(SELECTORS):
        raise _invalid(None, NO_SELECTOR)
    return validated


def _invalid(name: str | None, text: str) -> _RefusedError:
    """The refusal of the parameter of this name, or of the whole query if it is None."""
    details = {name or "non_field_errors": [text]}
    attr = {"attr": name} if name else {}
    body = _error("validation_error", "invalid", "Validation failed", details=details, errors=details, **attr)
    return _RefusedError(400, body)


def _error(kind: str, code: str, text: str, **more: Any) -> dict[str, Any]:
    """The body of most errors: the text stands in each of four fields, as on the real server."""
    texts = dict.fromkeys(("detail", "message", "error", "result"), text)
    return {"status": False, "type": kind, "code": code, **texts, **more}


def not_found(what: str) -> dict[str, Any]:
    """The body of a 404; ``what`` is "Run test", "Test execution" or "Call execution"."""
    return _error("not_found", "not_found", f"{what} not found.")


def server_error(text: str) -> dict[str, Any]:
    """The body of a 500."""
    return _error("server_error", "server_error", text)


def rate_limited(limit: int, retry_after: int) -> dict[str, Any]:
    """The body of a 429."""
    message = f"Rate limit exceeded: {limit} api requests per minute"
    return {"status": False, "result": {"code": "RATE_LIMITED", "message": message, "retry_after": retry_after}}


def _detail(
    world: World, execution_id: str, url: str, query: Mapping[str, str], max_limit: int | None
) -> dict[str, Any]:
    """The detail of an execution."""
    _check_strictly(query)
    execution = world.execution(execution_id.lower())
    run_test_ids = {run_test.run_test_id for run_test in world.run_tests}
    if execution is None or execution.run_test.run_test_id not in run_test_ids:
        text = "Failed to retrieve test execution: No TestExecution matches the given query."
        raise _RefusedError(500, server_error(text))
    return simulate.execution_detail(execution, url, query, max_limit)


def _executions(
    world: World, run_test_id: str, url: str, query: Mapping[str, str], max_limit: int | None
) -> dict[str, Any]:
    """The list of a run test's executions."""
    run_test = _found(world.run_test(run_test_id.lower()), "Run test")
    return simulate.run_test_executions_page(run_test, url, query, max_limit)


def _voice_calls(world: World, url: str, query: Mapping[str, str], max_limit: int | None) -> dict[str, Any]:
    """The list of voice calls: of one execution, which may not exist, or of all."""
    _check_strictly(query, "test_execution_id")
    executions = [each for test in world.run_tests for each in test.executions if not each.is_deleted]
    if execution_id := query.get("test_execution_id"):
        executions = [each for each in executions if each.execution_id == execution_id.lower()]
    page = simulate.voice_calls_page(executions, url, query, max_limit)
    if page["current_page"] > page["total_pages"]:
        raise _refused(404, "not_found", "not_found", "Invalid page.")
    return page


def _check_strictly(query: Mapping[str, str], selector: str = "") -> None:
    """Refuse parameters that /sdk/… lets pass; ``selector`` is the one that holds an id.

    Raises:
        _RefusedError: A parameter is unknown or invalid.
    """

    def refused(name: str, code: str, text: str) -> _RefusedError:
        body = _error("validation_error", code, f"{name}: {text}", attr=name, details={name: [text]})
        return _RefusedError(400, body)

    for name, value in query.items():
        if name == selector:
            try:
                uuid.UUID(value)
            except ValueError:
                raise refused(name, "invalid", "Must be a valid UUID.") from None
        elif name not in ("page", "limit"):
            raise refused(name, "invalid", "Unknown field.")
        elif not value.isdecimal():
            raise refused(name, "invalid", "A valid integer is required.")
        elif int(value) < 1:
            raise refused(name, "min_value", "Ensure this value is greater than or equal to 1.")


def _result(world: World, path: str, query: Mapping[str, str], max_limit: int | None) -> dict[str, Any]:
    is_metrics = path == METRICS
    if "call_execution_id" in query:
        execution, call = _found(world.call(query["call_execution_id"]), "Call execution")
        return sdk.call_metrics(call, execution) if is_metrics else sdk.run_call(call, execution, query)
    if "execution_id" in query:
        execution = _found(world.execution(query["execution_id"]), "Test execution")
        if path == ANALYTICS:
            return sdk.execution_analytics(execution, query)
        return sdk.execution_metrics(execution) if is_metrics else sdk.run_execution(execution, query, max_limit)
    _found(world.run_tests_named(query["run_test_name"]) or None, "Run test")
    page = page_of(listable_executions(world, query["run_test_name"]), query, max_limit)
    row = sdk.execution_metrics if is_metrics else partial(sdk.execution_evals, query=query)
    return {**page, "results": [row(execution) for execution in page["results"]]}


def _found(record: Found | None, what: str) -> Found:
    """The record, which must exist: otherwise the answer is a 404 about ``what``."""
    if record is None:
        raise _RefusedError(404, not_found(what))
    return record
