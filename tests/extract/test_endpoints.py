"""Requests as they go over the wire, and what becomes of every kind of answer: recorded, documented, broken."""

import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.errors import (
    KeyRefusedError,
    NotFoundError,
    RequestRefusedError,
    ServerFaultError,
    SourceError,
    TransientError,
)
from etl.extract.answers import clock_offset, decode, error_of, retry_after_seconds
from etl.extract.endpoints import (
    Request,
    Slice,
    get_call_metrics,
    get_execution,
    list_calls,
    list_execution_heads,
    list_executions,
    list_run_tests,
)
from etl.model.records import METRICS, RUN_TESTS, RUNS
from tests.support import examples

SAMPLES = {path.stem: json.loads(path.read_bytes()) for path in Path(__file__).parent.parent.glob("samples/*.json")}
SURROGATE_FREE = st.text(st.characters(exclude_categories=["Cs"]))

EXECUTION_ID = "fb21abee-6eae-507e-8293-b01d1abc0173"
CALL_ID = "5af9e484-0000-4000-8000-000000000001"
GET_CALL = get_call_metrics(CALL_ID, EXECUTION_ID)
LIST_CALLS = list_calls(EXECUTION_ID, Slice(1, 10))
CALLS_PAGE: dict[str, Any] = {"total_pages": 1, "current_page": 1, "count": 0, "results": []}
WITHOUT_EVALS = CALLS_PAGE | {"results": [{"call_execution_id": "c", "evaluations": {}}]}


def body_of(sample: dict[str, Any]) -> bytes:
    return msgspec.json.encode(sample["body"]) if "body" in sample else sample["body_text"].encode()


def request_of(sample: dict[str, Any]) -> Request[Any] | None:
    """The request of ours that would have had this answer; None where the exporter never asks so."""
    parts = urlsplit(sample["request"]["target"] or "")
    query = dict(parse_qsl(parts.query))
    page, limit = int(query.get("page", 1)), int(query.get("limit", 10))
    if parts.path == RUN_TESTS:
        return list_run_tests(Slice(page, limit))
    if parts.path == METRICS and "call_execution_id" in query:
        result = sample["body"].get("result")
        execution_id = result["execution_id"] if isinstance(result, dict) else EXECUTION_ID
        return get_call_metrics(query["call_execution_id"], execution_id)
    if parts.path == METRICS and "run_test_name" in query:
        return list_executions(query["run_test_name"], Slice(page, limit))
    if parts.path.rstrip("/") == METRICS.rstrip("/"):
        return get_execution(query.get("execution_id", EXECUTION_ID))
    if parts.path == RUNS and "run_test_name" in query:
        return list_execution_heads(query["run_test_name"], Slice(page, limit))
    is_of_calls = parts.path == RUNS and "execution_id" in query
    return list_calls(query["execution_id"], Slice(page, limit)) if is_of_calls else None


def raised(request: Request[Any], status: int, body: bytes) -> Exception:
    if status != 200:
        return error_of(request, status, body)
    with pytest.raises(SourceError) as caught:
        decode(request, body)
    return caught.value


def call_answer(**changes: Any) -> dict[str, Any]:
    result = {"call_execution_id": CALL_ID, "execution_id": EXECUTION_ID, "status": "completed"}
    return {"status": True, "result": result | changes}


# Requests


def test_each_endpoint_has_its_documented_target():
    assert list_executions("A b", Slice(2, 64)).target == f"{METRICS}?run_test_name=A%20b&page=2&limit=64"
    assert list_calls(EXECUTION_ID, Slice(1, 8)).target == f"{RUNS}?execution_id={EXECUTION_ID}&page=1&limit=8"
    assert list_execution_heads("A b", Slice(9, 1)).target == f"{RUNS}?run_test_name=A%20b&page=9&limit=1"
    assert get_execution(EXECUTION_ID).target == f"{METRICS}?execution_id={EXECUTION_ID}"
    assert GET_CALL.target == f"{METRICS}?call_execution_id={CALL_ID}"
    assert list_run_tests(Slice(3, 100)).target == f"{RUN_TESTS}?page=3&limit=100"


@given(SURROGATE_FREE)
@example("a&limit=1 + 100%41#b/c?d\n\r\0")
@example(unicodedata.normalize("NFD", "é"))
def test_any_name_comes_back_from_the_query_unchanged(name):
    target = list_executions(name, Slice(1, 2)).target
    assert target.isascii()
    assert parse_qsl(urlsplit(target).query, keep_blank_values=True, strict_parsing=True) == [
        ("run_test_name", name),
        ("page", "1"),
        ("limit", "2"),
    ]


@pytest.mark.parametrize(
    "page_of",
    [
        partial(list_executions, "A"),
        partial(list_calls, EXECUTION_ID, without_evals=True),
        partial(list_execution_heads, "A"),
        list_run_tests,
    ],
)
def test_500_is_asked_again_except_on_pages_that_may_have_vanished(page_of: Callable[[Slice], Request[Any]]):
    assert page_of(Slice(1, 1)).retries_500
    assert not page_of(Slice(2, 1)).retries_500
    assert not page_of(Slice(1, 1, is_probe=True)).retries_500, "a probe takes it for an answer"
    assert page_of(Slice(1, 1, is_trial=True)).is_optional


def test_500_of_a_list_of_calls_with_their_evals_is_believed_at_once():
    assert not list_calls(EXECUTION_ID, Slice(1, 1)).retries_500


# Recorded answers


@pytest.mark.parametrize(
    "case", [case for case in SAMPLES if SAMPLES[case]["status"] == 200 and request_of(SAMPLES[case])]
)
def test_recorded_answer_is_decoded_whole(case):
    sample = SAMPLES[case]
    request = request_of(sample)
    assert request is not None
    value = decode(request, body_of(sample))
    body = sample["body"]
    if request.path == RUN_TESTS:
        assert [(row.run_test_id, row.name) for row in value.results] == [
            (row["id"], row["name"]) for row in body["results"]
        ]
        assert (value.count, value.total_pages) == (body["count"], body["total_pages"])
        return
    result = body["result"]
    paged = result.get("call_results", result)
    if "results" in paged:
        known = {"eval_results"} if "run_test_name" in dict(request.query) and request.path == RUNS else set()
        assert [row.payload for row in value.results] == [
            {name: each for name, each in row.items() if name not in known} for row in paged["results"]
        ]
        assert (value.count, value.total_pages) == (paged["count"], paged["total_pages"])
    else:
        assert value.payload == result
        assert (value.execution_id, value.status) == (result["execution_id"], result["status"])


ERROR_CLASSES: dict[int, type[Exception]] = {
    301: RequestRefusedError,
    400: RequestRefusedError,
    401: KeyRefusedError,
    404: NotFoundError,
    405: RequestRefusedError,
    406: RequestRefusedError,
    429: TransientError,
    500: ServerFaultError,
}


@pytest.mark.parametrize("case", [case for case in SAMPLES if SAMPLES[case]["status"] != 200])
def test_recorded_refusal_is_the_right_error_in_one_line(case):
    sample = SAMPLES[case]
    error = raised(request_of(sample) or GET_CALL, sample["status"], body_of(sample))
    assert type(error) is ERROR_CLASSES[sample["status"]]
    assert str(error).isprintable()
    assert str(sample["status"]) in str(error) or isinstance(error, NotFoundError)
    if isinstance(error, SourceError):
        assert error.status == sample["status"]
        assert len(error.excerpt) <= 200


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("metrics_name_not_found", "run test 'No Such Test', page 1: not found (Run test not found.)"),
        ("metrics_unknown_param", 'Validation failed: {"foo": ["Unknown field."]}'),
        ("metrics_wrong_secret", f"the API refused the key (401 on {METRICS}): check FI_API_KEY and FI_SECRET_KEY"),
        ("metrics_no_trailing_slash", "a redirect, which metrics-etl does not follow: check FI_BASE_URL"),
        ("metrics_page_999", f"page 999: 500 on {METRICS}: Unable to fetch simulation metrics."),
        ("ratelimit_429", "Rate limit exceeded: 5 api requests per minute"),
    ],
)
def test_message_says_what_happened_and_the_mend(case, message):
    sample = SAMPLES[case]
    assert message in str(raised(request_of(sample) or GET_CALL, sample["status"], body_of(sample)))


# Documented and foreign refusals


def documented(code: str, message: str, details: Any = None) -> bytes:
    return msgspec.json.encode({"error": {"code": code, "message": message, "details": details}})


def test_documented_error_body_tells_its_message_and_details():
    error = raised(GET_CALL, 400, documented("validation_error", "Invalid parameter.", {"limit": ["Ünknown"]}))
    assert str(error) == f'call {CALL_ID}: 400 on {METRICS}: Invalid parameter.: {{"limit": ["Ünknown"]}}'
    error = raised(GET_CALL, 404, documented("not_found", "No such call."))
    assert type(error) is NotFoundError
    assert str(error) == f"call {CALL_ID}: not found (No such call.)"


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>404 Not Found</body></html>",
        b"404 page not found\n",
        b"",
        b"null",
        b'"Not Found"',
        b'{"detail": "Not Found"}',
        b'{"message": "no Route matched with those values"}',
    ],
)
def test_404_that_is_not_this_api_is_no_deletion(body):
    """Taken for one, a proxy's 404 would silently drop calls that exist."""
    error = raised(GET_CALL, 404, body)
    assert type(error) is RequestRefusedError
    assert "check FI_BASE_URL" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, ServerFaultError),
        *((status, TransientError) for status in (408, 421, 425, 429, 502, 503, 504, 520)),
        *((status, RequestRefusedError) for status in (204, 302, 307, 308, 410, 413, 414, 418)),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>\n<h1>oops</h1>", b"[1]", b'{"status": false, "message": "oops"}'])
def test_status_decides_whatever_the_body(status, kind, body):
    error = raised(GET_CALL, status, body)
    assert type(error) is kind
    assert str(error).isprintable()


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"status": false, "message": "oops"}', KeyRefusedError),
        (b'{"detail": "oops"}', KeyRefusedError),
        (b"[1]", KeyRefusedError),
        (b"", KeyRefusedError),
        (b"<html>\n<h1>oops</h1>", RequestRefusedError),
        (b"Access denied", RequestRefusedError),
        (b"{" * 100_000, RequestRefusedError),
    ],
)
def test_page_of_a_proxy_says_nothing_about_the_key(status, body, kind):
    error = raised(GET_CALL, status, body)
    assert type(error) is kind
    assert ("check FI_API_KEY" in str(error)) == (kind is KeyRefusedError)
    assert ("a proxy or firewall refused the request" in str(error)) == (kind is RequestRefusedError)


def test_error_without_words_quotes_what_came():
    assert "empty body" in str(raised(GET_CALL, 500, b""))
    assert "<h1>502 Bad Gateway</h1>" in str(raised(GET_CALL, 502, b"<html>\r\n\t<h1>502 Bad\0Gateway</h1>"))
    assert '{"status":false}' in str(raised(GET_CALL, 500, b'{"status":false}'))


def test_error_body_of_any_size_and_depth_gives_a_short_line():
    for body in (
        b"x" * 100_000,
        b"[" * 100_000,
        b'{"status":false,"message":"' + b"\\n" * 100_000 + b'"}',
        b'{"status":false,"details":' + b'{"a":' * 900 + b"1" + b"}" * 901,
        b'{"status":false,"message":"\\ud800"}',
        b'{"status":false,"message":"\xff"}',
    ):
        error = raised(GET_CALL, 400, body)
        assert isinstance(error, RequestRefusedError)
        assert len(error.excerpt) <= 200
        assert len(str(error)) <= 400
        assert str(error).isprintable()


def test_newline_in_a_name_does_not_break_the_message():
    assert str(raised(list_executions("two\nlines\x1b[31m", Slice(1, 1)), 500, b"")).isprintable()


# A 200 that is not what the API documents


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"\n<html><body>Sign in</body></html>", "HTML, not JSON"),
        (b"upstream timed out", "not JSON"),
        (b'{"status": true, "result": {"call_exec', "JSON that is truncated or invalid at character 28"),
        ('{"status": true, "result": {}}'.encode("utf-16"), "not UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"status": true, "status": true}', "two fields with the same name"),
        (b"null", "expected an object with status, got null"),
        (b'{"status": false, "result": {}}', 'the field "status" is not true'),
        (b'{"status": "true", "result": {}}', 'the field "status" is not true'),
        (b'{"status": true}', "no field result"),
        (b'{"status": true, "result": null}', "expected an object with call_execution_id, got null"),
        (msgspec.json.encode(call_answer(call_execution_id=None)), "expected str, got null at call_execution_id"),
        (msgspec.json.encode(call_answer(call_execution_id="a\nb")), "expected an id at call_execution_id"),
        (b'{"status": true, "result": {"call_execution_id": "\\ud800", "execution_id": "x"}}', "expected an id"),
        (msgspec.json.encode(call_answer(call_execution_id="other")), "the answer is for another call_execution_id"),
        (msgspec.json.encode(call_answer(status=None)), "expected str, got null at status"),
    ],
)
def test_200_that_is_not_the_documented_json_is_asked_again(body, reason):
    error = raised(GET_CALL, 200, body)
    assert isinstance(error, TransientError)
    assert str(error).startswith(f"call {CALL_ID}: unexpected answer from {METRICS}: ")
    assert reason in str(error)
    assert str(error).isprintable()
    assert error.status == 200
    assert len(error.excerpt) <= 200


def page_answer(**changes: Any) -> bytes:
    page = {"total_pages": 1, "current_page": 1, "count": 1, "results": [{"id": "1", "name": "A"}]}
    return msgspec.json.encode({name: value for name, value in (page | changes).items() if value != "missing"})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (page_answer(current_page=2), "asked for page 1, got page 2"),
        (page_answer(total_pages=True), "expected int, got bool at total_pages"),
        (page_answer(count="missing"), "no field count"),
        (page_answer(results=None), "expected list, got null at results"),
        (page_answer(results=[{"id": "1"}]), "no field name"),
        (b'{"total_pages": 1e400, "current_page": 1, "count": 1, "results": []}', "got NumberLiteral at total_pages"),
    ],
)
def test_page_that_does_not_say_where_it_stands_is_asked_again(body, reason):
    error = raised(list_run_tests(Slice(1, 10)), 200, body)
    assert isinstance(error, TransientError)
    assert reason in str(error)


def test_head_is_what_the_list_of_executions_tells_of_a_row_but_its_aggregates():
    """Whatever else it were, it would look like a change of the execution."""
    row = {"execution_id": "e", "status": "failed", "metrics": {}, "eval_results": [], "x": 1}
    result = {"total_pages": 1, "current_page": 1, "count": 1, "results": [row]}
    body = msgspec.json.encode({"status": True, "result": result})
    [head] = decode(list_execution_heads("A", Slice(1, 1)), body).results
    assert (head.execution_id, head.status, head.payload) == ("e", "failed", {"execution_id": "e", "status": "failed"})
    recorded = SAMPLES["metrics_name"]["body"]["result"]["results"][0]
    sample = SAMPLES["runs_name"]
    request = request_of(sample)
    assert request is not None
    heads = decode(request, body_of(sample)).results
    assert {frozenset(head.payload) for head in heads} == {frozenset(recorded) - {"metrics"}}


@pytest.mark.parametrize(
    ("request_", "result", "reason"),
    [
        (get_execution(EXECUTION_ID), {"execution_id": "other", "status": "completed"}, "for another execution_id"),
        (LIST_CALLS, {"execution_id": "other", "call_results": CALLS_PAGE}, "the answer is for another execution_id"),
        (LIST_CALLS, {"execution_id": EXECUTION_ID}, "no field call_results"),
        # A server that calls them otherwise would empty the evals of every new execution.
        (LIST_CALLS, {"execution_id": EXECUTION_ID, "call_results": WITHOUT_EVALS}, "no field eval_outputs"),
    ],
)
def test_answer_about_another_execution_without_calls_or_without_their_evals_is_asked_again(request_, result, reason):
    assert reason in str(raised(request_, 200, msgspec.json.encode({"status": True, "result": result})))


@settings(max_examples=examples(100))
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.integers())
def test_no_document_escapes_as_another_error(document, page):
    requests: list[Request[Any]] = [
        GET_CALL,
        get_execution(EXECUTION_ID),
        list_calls(EXECUTION_ID, Slice(page, 1)),
        list_executions("A", Slice(page, 1)),
        list_execution_heads("A", Slice(page, 1)),
        list_run_tests(Slice(page, 1)),
    ]
    for request in requests:
        for wrapped in (document, {"status": True, "result": document}, {"status": True, "result": {"id": document}}):
            assert isinstance(raised(request, 200, msgspec.json.encode(wrapped)), TransientError)


# When to come back


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "23"}, b"", 23),
        ({"Retry-After": "0"}, b"", 0),
        ({"Retry-After": " 1.5 "}, b'{"result": {"retry_after": 60}}', 1.5),
        ({"Retry-After": "soon"}, b'{"result": {"retry_after": 60}}', 60),
        ({"Retry-After": "-1"}, b'{"result": {"retry_after": 60}}', 60),
        ({"Retry-After": "nan"}, b"", None),
        ({"Retry-After": "1e9"}, b"", None),
        ({}, b'{"status": false, "result": {"code": "RATE_LIMITED", "retry_after": 23}}', 23),
        ({}, b'{"result": {"retry_after": "23"}}', 23),
        ({}, b'{"result": {"retry_after": null}}', None),
        ({}, b'{"result": {"retry_after": ' + b"9" * 999 + b"}}", None),
        ({}, b"[" * 100_000, None),
    ],
)
def test_time_to_come_back_is_read_from_header_or_body(headers, body, seconds):
    assert retry_after_seconds(headers, body) == seconds


# The source's clock

NOW = datetime(2026, 11, 1, 2, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("date", "offset"),
    [
        ("Sun, 01 Nov 2026 01:59:35 GMT", timedelta(0)),
        ("Sun, 01 Nov 2026 04:00:30 +0200", timedelta(0)),
        ("Sun, 01 Nov 2026 02:00:30", None),
        ("Fri, 31 Dec 9999 02:00:30 GMT", None),
        ("yesterday", None),
        (f"Sun, 01 Nov 2026 02:00:30 +{10**19}", None),
        (None, None),
    ],
)
def test_date_tells_how_far_the_clocks_are_apart(date, offset):
    assert clock_offset({} if date is None else {"Date": date}, NOW) == offset


@given(st.datetimes(min_value=datetime(2017, 1, 1), max_value=datetime(2036, 1, 1)))  # noqa: DTZ001 made aware below
def test_offset_leads_from_our_time_to_the_source_s(moment):
    then = moment.replace(microsecond=0, tzinfo=UTC)
    offset = clock_offset({"Date": format_datetime(then, usegmt=True)}, NOW)
    assert offset is not None
    assert abs(NOW + offset - then) <= timedelta(minutes=1)
