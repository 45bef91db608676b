"""Payloads become rows: every value in its column, or in ``extra``; a null is never a zero."""

import json
from typing import Any

import pytest

from etl.model import schema
from etl.model.records import Execution
from tests.bundles import (
    EXPORT,
    SAMPLES,
    bundle_of,
    calls_frame,
    evals_frame,
    fetched_call,
    frame_of_executions,
    recorded,
    recorded_cases,
)
from tests.transform.exactness import Places, call_as_sent, read
from tests.transform.made_rows import misfits_of_call, row_of_call

CALL_CASES = recorded_cases("call_execution_id", "metrics_call")
EXECUTION_CASES = recorded_cases("execution_id", "metrics_") + recorded_cases("run_test_name", "metrics_")
CALL_PAGES = recorded_cases("execution_id", "runs_")


def sent(case: str) -> Any:
    """The result of a recorded answer, each number as it was written."""
    return read((SAMPLES / f"{case}.json").read_bytes())["body"]["result"]


class TestRecordedAnswers:
    def test_there_are_recorded_answers_of_every_kind(self):
        assert (len(CALL_CASES), len(EXECUTION_CASES), len(CALL_PAGES)) >= (16, 7, 5)

    @pytest.mark.parametrize("case", CALL_CASES)
    def test_call_is_held_whole_without_extra_or_misfit(self, case):
        metrics, listed = recorded(case), {"scenario_name": "Refund"}
        call = fetched_call(metrics["call_execution_id"], metrics, listed, status=metrics["status"])
        frame = calls_frame([bundle_of(call)], EXPORT)
        (row,) = frame.rows.to_pylist()
        assert Places(schema.CALLS).assert_holds(row, call_as_sent(sent(case), listed, row)[0]) == frame.misfits == 0
        assert (row["extra"], row["scenario_name"]) == (None, "Refund")

    @pytest.mark.parametrize("case", EXECUTION_CASES)
    def test_execution_is_held_whole_without_extra_or_misfit(self, case):
        given, as_sent = (each.get("results", [each]) for each in (recorded(case), sent(case)))
        frame = frame_of_executions(
            *(Execution(execution_id=each["execution_id"], status=each["status"], payload=each) for each in given)
        )
        assert frame.misfits == 0
        for payload, row in zip(as_sent, frame.rows.to_pylist(), strict=True):
            Places(schema.EXECUTIONS).assert_holds(row, payload)
            assert row["extra"] is None

    @pytest.mark.parametrize("case", CALL_PAGES)
    def test_page_of_calls_gives_scenarios_and_every_eval_whole(self, case):
        page, as_sent = (each["call_results"]["results"] for each in (recorded(case), sent(case)))
        bundle = bundle_of(
            *(fetched_call(each["call_execution_id"], {"duration_seconds": None}, each) for each in page)
        )
        evals = {
            (call["call_execution_id"], config_id): output
            for call in as_sent
            for config_id, output in call["eval_outputs"].items()
        }
        rows = evals_frame([bundle], EXPORT).rows.to_pylist()
        assert [(row["call_execution_id"], row["eval_config_id"]) for row in rows] == list(evals)
        for row, output in zip(rows, evals.values(), strict=True):
            Places(schema.EVALS).assert_holds(row, output, given=("output_passed",))
            assert set(json.loads(row["extra"] or "{}")) <= {"skipped", "error", "timestamp"}
        for row, listed in zip(calls_frame([bundle], EXPORT).rows.to_pylist(), page, strict=True):
            assert row["scenario_id"] == listed["scenario_id"]
            assert row["scenario_name"] == listed["scenario_name"]


class TestPlaces:
    @pytest.mark.parametrize(
        "spellings", [["system_metrics", "customer_latency_metrics"], ["customer_latency_metrics", "system_metrics"]]
    )
    def test_the_documented_spelling_is_preferred_and_the_other_is_kept_when_it_differs(self, spellings):
        values = {
            "system_metrics": {"bot_wpm": 2.0, "user_wpm": 5},
            "customer_latency_metrics": {"bot_wpm": 1.0, "user_wpm": 5.0},
        }
        metrics = {"latency": {spelling: values[spelling] for spelling in spellings}}
        row = row_of_call(metrics)
        assert row["latency_customer_bot_wpm"] == 1.0
        assert row["latency_customer_user_wpm"] == 5.0
        assert json.loads(row["extra"]) == {"latency": {"system_metrics": {"bot_wpm": 2.0}}}
        assert misfits_of_call(metrics) == 1

    def test_the_other_spelling_counts_where_the_documented_one_is_null_or_does_not_fit(self):
        row = row_of_call(
            {
                "latency": {
                    "customer_latency_metrics": {"bot_wpm": None, "user_wpm": "fast"},
                    "system_metrics": {"bot_wpm": 2.0, "user_wpm": 3.0},
                }
            }
        )
        assert row["latency_customer_bot_wpm"] == 2.0
        assert row["latency_customer_user_wpm"] == 3.0
        assert json.loads(row["extra"]) == {"latency": {"customer_latency_metrics": {"user_wpm": "fast"}}}
