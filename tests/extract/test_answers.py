"""What becomes of every kind of answer: recorded, documented, foreign, broken; and what headers tell of times."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.errors import (
    KeyRefusedError,
    NotFoundError,
    RequestRefusedError,
    ServerFaultError,
    SourceError,
    TransientError,
)
from etl.extract.answers import clock_offset, retry_after_seconds
from etl.extract.endpoints import Slice, list_executions
from etl.model.records import METRICS
from tests.extract.recorded import CALL_ID, EXECUTION_ID, GET_CALL, SAMPLES, body_of, raised, request_of

NOW = datetime(2026, 11, 1, 2, 0, 30, tzinfo=UTC)


def call_answer(**changes: Any) -> dict[str, Any]:
    result = {"call_execution_id": CALL_ID, "execution_id": EXECUTION_ID, "status": "completed"}
    return {"status": True, "result": result | changes}


# Recorded refusals


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
        ("metrics_wrong_secret", f"the API refused the key (401 on {METRICS}). Check FI_API_KEY and FI_SECRET_KEY"),
        (
            "metrics_no_trailing_slash",
            "this is a redirect, which metrics-etl does not follow. Check [api] base_url or FI_BASE_URL",
        ),
        ("metrics_page_999", f"page 999: {METRICS} answered 500: Unable to fetch simulation metrics."),
        ("ratelimit_429", "Rate limit exceeded: 5 api requests per minute"),
    ],
)
def test_message_says_what_happened_and_the_fix(case, message):
    sample = SAMPLES[case]
    assert message in str(raised(request_of(sample) or GET_CALL, sample["status"], body_of(sample)))


# Documented and foreign refusals


def documented(code: str, message: str, details: Any = None) -> bytes:
    return msgspec.json.encode({"error": {"code": code, "message": message, "details": details}})


def test_documented_error_body_tells_its_message_and_details():
    error = raised(GET_CALL, 400, documented("validation_error", "Invalid parameter.", {"limit": ["Ünknown"]}))
    assert str(error) == f'call {CALL_ID}: {METRICS} answered 400: Invalid parameter.: {{"limit": ["Ünknown"]}}'
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
    assert "Check [api] base_url or FI_BASE_URL" in str(error)


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
    assert ("Check FI_API_KEY" in str(error)) == (kind is KeyRefusedError)
    assert ("a proxy or firewall, not the API, refused the request" in str(error)) == (kind is RequestRefusedError)


def test_error_without_words_quotes_what_came():
    assert "the body is empty" in str(raised(GET_CALL, 500, b""))
    assert '{"status":false}' in str(raised(GET_CALL, 500, b'{"status":false}'))


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (b"<!doctype html>\n<html lang=en><head>\n<TITLE id=x>\n Server Error (500)</title>", ": Server Error (500)"),
        (b"\xef\xbb\xbf\n<html>\r\n\t<h1>502 Bad\0Gateway</h1><hr>nginx", ": 502 Bad Gateway"),
        (b"<html><style>" + b"p { color: red }" * 9999, ""),
    ],
)
@pytest.mark.parametrize("status", [500, 404, 200])
def test_html_page_is_quoted_by_its_title(page, words, status):
    error = raised(GET_CALL, status, page)
    assert isinstance(error, SourceError)
    assert error.excerpt == f"HTML page{words}"
    assert status != 500 or str(error).endswith(f": HTML page{words}")


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
        (b'{"status": true, "result": {"call_exec', "its JSON is truncated or invalid at character 28"),
        ('{"status": true, "result": {}}'.encode("utf-16"), "it is not UTF-8 text"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"status": true, "status": true}', "two fields with the same name"),
        (b"null", "expected an object with status, got null"),
        (b'{"status": false, "result": {}}', 'its field "status" is not true'),
        (b'{"status": "true", "result": {}}', 'its field "status" is not true'),
        (b'{"status": true}', "the field result is missing"),
        (b'{"status": true, "result": null}', "expected an object with call_execution_id, got null"),
        (msgspec.json.encode(call_answer(call_execution_id=None)), "field call_execution_id is null instead of str"),
        (msgspec.json.encode(call_answer(call_execution_id="a\nb")), "the field call_execution_id is not an id"),
        (b'{"status": true, "result": {"call_execution_id": "\\ud800", "execution_id": "x"}}', "is not an id"),
        (msgspec.json.encode(call_answer(call_execution_id="other")), "it is for another call_execution_id"),
        (msgspec.json.encode(call_answer(status=None)), "the field status is null instead of str"),
    ],
)
def test_200_that_is_not_the_documented_json_is_retried(body, reason):
    error = raised(GET_CALL, 200, body)
    assert isinstance(error, TransientError)
    assert str(error).startswith(f"call {CALL_ID}: the answer from {METRICS} is unexpected: ")
    assert reason in str(error)
    assert str(error).isprintable()
    assert error.status == 200
    assert len(error.excerpt) <= 200


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
