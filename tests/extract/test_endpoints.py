"""Requests as they go over the wire, and the records that their answers' documents become."""

import json
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.errors import TransientError
from etl.extract.answers import decode
from etl.extract.endpoints import (
    Request,
    Slice,
    get_execution,
    get_run_test_name,
    list_calls,
    list_execution_heads,
    list_executions,
    list_run_tests,
)
from etl.model.records import ANALYTICS, METRICS, RUN_TESTS, RUNS
from tests.extract.recorded import CALL_ID, EXECUTION_ID, GET_CALL, SAMPLES, body_of, raised, request_of
from tests.support import examples

SURROGATE_FREE = st.text(st.characters(exclude_categories=["Cs"]))
LIST_CALLS = list_calls(EXECUTION_ID, Slice(1, 10))
CALLS_PAGE: dict[str, Any] = {"total_pages": 1, "current_page": 1, "count": 0, "results": []}
NUMERIC = "samples/detail/runs_numeric_analytics_eval_name_none.json"
WITHOUT_EVALS = CALLS_PAGE | {"results": [{"call_execution_id": "c", "evaluations": {}}]}


# Requests


def test_each_endpoint_has_its_documented_target():
    assert list_executions("A b", Slice(2, 64)).target == f"{METRICS}?run_test_name=A%20b&page=2&limit=64"
    assert list_calls(EXECUTION_ID, Slice(1, 8)).target == f"{RUNS}?execution_id={EXECUTION_ID}&page=1&limit=8"
    assert list_execution_heads("A b", Slice(9, 1)).target == f"{RUNS}?run_test_name=A%20b&page=9&limit=1"
    assert get_execution(EXECUTION_ID).target == f"{METRICS}?execution_id={EXECUTION_ID}"
    assert get_run_test_name(EXECUTION_ID).target == f"{ANALYTICS}?execution_id={EXECUTION_ID}"
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
def test_500_is_retried_except_on_pages_that_may_have_vanished(page_of: Callable[[Slice], Request[Any]]):
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


# Documents of another shape


def page_answer(**changes: Any) -> bytes:
    page = {"total_pages": 1, "current_page": 1, "count": 1, "results": [{"id": "1", "name": "A"}]}
    return msgspec.json.encode({name: value for name, value in (page | changes).items() if value != "missing"})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (page_answer(current_page=2), "it is page 2 instead of page 1"),
        (page_answer(total_pages=True), "the field total_pages is bool instead of int"),
        (page_answer(count="missing"), "the field count is missing"),
        (page_answer(results=None), "the field results is null instead of list"),
        (page_answer(results=[{"id": "1"}]), "the field name is missing"),
        (b'{"total_pages": 1e400, "current_page": 1, "count": 1, "results": []}', "total_pages is NumberLiteral"),
    ],
)
def test_page_that_does_not_say_where_it_stands_is_retried(body, reason):
    error = raised(list_run_tests(Slice(1, 10)), 200, body)
    assert isinstance(error, TransientError)
    assert reason in str(error)


def test_recorded_analytics_name_the_run_test_also_where_an_eval_cannot_be_summed_up():
    sample = json.loads((Path(__file__).parents[1] / NUMERIC).read_bytes())
    request = get_run_test_name(sample["body"]["result"]["execution_id"], without_evals=True)
    assert "&eval_name=" in request.target
    assert decode(request, body_of(sample)) == "Detail numeric"


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
        (get_run_test_name(EXECUTION_ID), {"execution_id": "other", "run_test_name": "A"}, "another execution_id"),
        (get_run_test_name(EXECUTION_ID), {"execution_id": EXECUTION_ID}, "the field run_test_name is missing"),
        (LIST_CALLS, {"execution_id": "other", "call_results": CALLS_PAGE}, "it is for another execution_id"),
        (LIST_CALLS, {"execution_id": EXECUTION_ID}, "the field call_results is missing"),
        # A server that calls them otherwise would empty the evals of every new execution.
        (LIST_CALLS, {"execution_id": EXECUTION_ID, "call_results": WITHOUT_EVALS}, "field eval_outputs is missing"),
    ],
)
def test_answer_about_another_execution_without_calls_or_without_their_evals_is_retried(request_, result, reason):
    assert reason in str(raised(request_, 200, msgspec.json.encode({"status": True, "result": result})))


@settings(max_examples=examples(100))
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.integers())
def test_no_document_escapes_as_another_error(document, page):
    requests: list[Request[Any]] = [
        GET_CALL,
        get_execution(EXECUTION_ID),
        get_run_test_name(EXECUTION_ID),
        list_calls(EXECUTION_ID, Slice(page, 1)),
        list_executions("A", Slice(page, 1)),
        list_execution_heads("A", Slice(page, 1)),
        list_run_tests(Slice(page, 1)),
    ]
    for request in requests:
        for wrapped in (document, {"status": True, "result": document}, {"status": True, "result": {"id": document}}):
            assert isinstance(raised(request, 200, msgspec.json.encode(wrapped)), TransientError)
