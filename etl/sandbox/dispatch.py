"""The answer to each request: paths, keys and parameters, checked in the order of the real server.

Pure: a world and a request in, status, headers and body out.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from etl.sandbox.aggregates import AnswerError
from etl.sandbox.answers import detail, metrics, run_tests, runs
from etl.sandbox.faults import SandboxRequest
from etl.sandbox.world import Call, Execution, World

METRICS, RUNS = (f"/sdk/api/v1/simulation/{name}/" for name in ("metrics", "runs"))
RUN_TESTS = "/simulate/run-tests/"
DETAIL = re.compile(r"/simulate/test-executions/([0-9a-fA-F-]{36})/")
FAILURES = {
    METRICS: "Unable to fetch simulation metrics.",
    RUNS: "Unable to fetch simulation runs.",
    RUN_TESTS: "Failed to retrieve run tests: Invalid page.",
}
SELECTORS = ("call_execution_id", "execution_id", "run_test_name")
PARAMETERS = {
    METRICS: {*SELECTORS, "page", "limit"},
    RUNS: {*SELECTORS, "page", "limit", "eval_name"},
}
NO_SELECTOR = "At least one of 'run_test_name', 'execution_id', or 'call_execution_id' is required."
HTML = {"Content-Type": "text/html; charset=utf-8"}
HTML_404 = b"<!doctype html><html lang=en><head><title>Not Found</title></head><body><h1>Not Found</h1></body></html>"


def _error(kind: str, code: str, text: str, *, has_details: bool = False) -> dict[str, Any]:
    """The body of most errors, verbatim, with the text in each of four fields."""
    details = {"details": {"detail": [text]}} if has_details else {}
    texts = dict.fromkeys(("detail", "message", "error", "result"), text)
    return {"status": False, "type": kind, "code": code, **texts, **details}


NOT_AUTHENTICATED = _error(
    "authentication_error", "not_authenticated", "Authentication credentials were not provided.", has_details=True
)
WRONG_KEY = _error("authentication_error", "authentication_failed", "Invalid API key or secret key", has_details=True)
FOREIGN_AUTHORIZATION = _error(
    "authentication_error",
    "authentication_failed",
    "Invalid Token parsed: Invalid Token parsed: Invalid token encryption",
    has_details=True,
)
NOT_ACCEPTABLE = _error("api_error", "not_acceptable", "Could not satisfy the request Accept header.", has_details=True)


@dataclass(frozen=True, slots=True)
class Rules:
    """The keys that the server accepts, and its largest page."""

    api_key: str
    secret_key: str
    max_limit: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class _RefusedError(Exception):
    """The request is refused; ``answer`` says why."""

    def __init__(self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.answer = _api_answer(status, body, headers)


def answer_to(world: World, request: SandboxRequest, headers: Mapping[str, str], origin: str, rules: Rules) -> Answer:
    """The answer to one request. ``headers`` must ignore case; links begin with ``origin``."""
    execution_id = DETAIL.fullmatch(request.path)
    if request.path not in FAILURES and not execution_id:
        return _wrong_path(request)
    try:
        _check_access(request.method, headers, rules)
        if execution_id:
            return _detail(world, execution_id[1], f"{origin}{request.path}", request.query)
        if request.path == RUN_TESTS:
            url = f"{origin}{RUN_TESTS}"
            return _api_answer(200, run_tests.run_tests_page(world, url, request.query, rules.max_limit))
        query = _validated_query(request.path, request.query)
        result = (_metrics if request.path == METRICS else _runs)(world, query, rules)
        return _api_answer(200, {"status": True, "result": result})
    except _RefusedError as refused:
        return refused.answer
    except AnswerError:
        return _api_answer(500, server_error(FAILURES[request.path]))


def _wrong_path(request: SandboxRequest) -> Answer:
    with_slash = f"{request.path}/"
    if with_slash in FAILURES or DETAIL.fullmatch(with_slash):
        path, mark, rest = request.target.partition("?")
        return Answer(301, b"", {**HTML, "Location": f"{path}/{mark}{rest}"})
    return Answer(404, HTML_404, HTML)


def json_answer(status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    """A JSON answer."""
    return Answer(status, msgspec.json.encode(body), {"Content-Type": "application/json", **(headers or {})})


def _api_answer(status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    return json_answer(status, body, {"Allow": "GET, HEAD, OPTIONS", **(headers or {})})


def _check_access(method: str, headers: Mapping[str, str], rules: Rules) -> None:
    accept = headers.get("Accept", "*/*")
    if not any(kind in accept for kind in ("*/*", "application/*", "application/json")):
        raise _RefusedError(406, NOT_ACCEPTABLE)
    challenge = {"WWW-Authenticate": "ApiKey"}
    keys = (headers.get("X-Api-Key"), headers.get("X-Secret-Key"))
    if "Authorization" in headers:
        raise _RefusedError(401, FOREIGN_AUTHORIZATION, challenge)
    if None in keys:
        raise _RefusedError(401, NOT_AUTHENTICATED, challenge)
    if keys != (rules.api_key, rules.secret_key):
        raise _RefusedError(401, WRONG_KEY, challenge)
    if method not in ("GET", "HEAD"):
        text = f'Method "{method}" not allowed.'
        raise _RefusedError(405, _error("api_error", "method_not_allowed", text, has_details=True))


def _validated_query(path: str, query: Mapping[str, str]) -> dict[str, str]:
    """The parameters that are not empty; ids as lower-case UUIDs, names without spaces around them."""
    found: dict[str, str] = {}
    for name, value in query.items():
        if name not in PARAMETERS[path]:
            raise _RefusedError(400, _invalid(name, "Unknown field."))
        if not value:
            continue
        found[name] = value
        if name in ("call_execution_id", "execution_id"):
            try:
                found[name] = str(uuid.UUID(value))
            except ValueError:
                raise _RefusedError(400, _invalid(name, "Must be a valid UUID.")) from None
        elif name in ("run_test_name", "eval_name"):
            # Like the real server: a run test whose name begins or ends with a space cannot be listed.
            found[name] = value.strip()
            if not found[name]:
                raise _RefusedError(400, _invalid(name, "This field may not be blank."))
    if found.keys().isdisjoint(SELECTORS):
        raise _RefusedError(400, _invalid(None, NO_SELECTOR))
    return found


def _invalid(field: str | None, text: str) -> dict[str, Any]:
    """What is wrong with the parameter ``field``, or with the whole query if it is None."""
    details = {field or "non_field_errors": [text]}
    attr = {"attr": field} if field else {}
    body = _error("validation_error", "invalid", "Validation failed")
    return {**body, **attr, "details": details, "errors": details}


def _refused_field(field: str, code: str, text: str) -> dict[str, Any]:
    """The same of the endpoint that names the field in the text."""
    return {**_error("validation_error", code, f"{field}: {text}"), "attr": field, "details": {field: [text]}}


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


def _detail(world: World, execution_id: str, url: str, query: Mapping[str, str]) -> Answer:
    numbers = {}
    for name, value in query.items():
        if name not in ("page", "limit"):
            raise _RefusedError(400, _refused_field(name, "invalid", "Unknown field."))
        if not value.isdecimal():
            raise _RefusedError(400, _refused_field(name, "invalid", "A valid integer is required."))
        if int(value) < 1:
            text = "Ensure this value is greater than or equal to 1."
            raise _RefusedError(400, _refused_field(name, "min_value", text))
        numbers[name] = int(value)
    execution = world.execution(execution_id.lower())
    if execution is None:
        text = "Failed to retrieve test execution: No TestExecution matches the given query."
        return _api_answer(500, server_error(text))
    return _api_answer(200, detail.execution_detail(execution, url, numbers))


def _metrics(world: World, query: Mapping[str, str], rules: Rules) -> dict[str, Any]:
    if "call_execution_id" in query:
        execution, call = _call(world, query["call_execution_id"])
        return metrics.call_metrics(call, execution)
    if "execution_id" in query:
        return metrics.execution_metrics(_execution(world, query["execution_id"]))
    name = _name(world, query["run_test_name"])
    return metrics.execution_page(world, name, query.get("page"), query.get("limit"), rules.max_limit)


def _runs(world: World, query: Mapping[str, str], rules: Rules) -> dict[str, Any]:
    eval_names = _eval_names(query)
    if "call_execution_id" in query:
        execution, call = _call(world, query["call_execution_id"])
        return runs.run_call(call, execution, eval_names)
    paging = (query.get("page"), query.get("limit"), rules.max_limit)
    if "execution_id" in query:
        return runs.run_execution(_execution(world, query["execution_id"]), *paging, eval_names=eval_names)
    return runs.runs_page(world, _name(world, query["run_test_name"]), *paging, eval_names=eval_names)


def _eval_names(query: Mapping[str, str]) -> set[str] | None:
    names = {name.strip() for name in query.get("eval_name", "").split(",")} - {""}
    return names or None


def _call(world: World, call_execution_id: str) -> tuple[Execution, Call]:
    found = world.call(call_execution_id)
    if found is None:
        raise _RefusedError(404, not_found("Call execution"))
    return found


def _execution(world: World, execution_id: str) -> Execution:
    found = world.execution(execution_id)
    if found is None:
        raise _RefusedError(404, not_found("Test execution"))
    return found


def _name(world: World, name: str) -> str:
    if not world.run_tests_named(name):
        raise _RefusedError(404, not_found("Run test"))
    return name
