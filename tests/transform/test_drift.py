"""Answers in another form are told from values that the source lacks. Whole nights: tests/pipeline/test_drift.py."""

import pytest

from etl.model import schema
from etl.transform.drift import Drift, drift_text, find_drift

RENAMED = {"result": "Passed", "output_type": "Pass/Fail"}


@pytest.mark.parametrize(
    ("payloads", "columns", "place"),
    [
        ([RENAMED, RENAMED], ("output_passed",), "extra has result"),
        ([RENAMED, {"output": "Passed"}], (), ""),
        ([RENAMED, {"output": None}], (), ""),
        ([RENAMED, {"output_type": "Pass/Fail"}], (), ""),
    ],
)
def test_a_column_is_lost_if_every_payload_has_something_unknown_in_its_place(payloads, columns, place):
    assert find_drift(schema.EVALS, payloads) == (columns, place)


def test_drift_is_told_in_one_line_with_each_execution_once():
    drifts = [Drift("calls", ("a",), "here", {"e": 2, "f": 1}), Drift("evals", ("b",), "here", {"e": 2})]
    assert drift_text(drifts).endswith(": calls.a, evals.b are null in 3 calls of 2 executions; here")
