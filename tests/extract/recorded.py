"""Recorded answers of the API, the requests of ours that would have had them, and what becomes of an answer."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from etl.errors import SourceError
from etl.extract.answers import decode, error_of
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

SAMPLES = {path.stem: json.loads(path.read_bytes()) for path in Path(__file__).parent.parent.glob("samples/*.json")}
EXECUTION_ID = "fb21abee-6eae-507e-8293-b01d1abc0173"
CALL_ID = "5af9e484-0000-4000-8000-000000000001"
GET_CALL = get_call_metrics(CALL_ID, EXECUTION_ID)


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
