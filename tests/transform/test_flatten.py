"""Bundles become rows of calls, evals and dead letters."""

import json
from datetime import UTC, datetime

import pytest

from tests.bundles import (
    EXPORT,
    bundle_of,
    calls_frame,
    dead_letter,
    errors_frame,
    evals_frame,
    execution,
    fetched_call,
    not_listed,
)
from tests.transform.made_rows import extra_of_call, row_of_call, row_of_eval

STARTED_AT = datetime(2026, 3, 1, 9, 0, 1, 123456, tzinfo=UTC)


class TestListing:
    def test_fields_that_only_the_listing_has_are_kept(self):
        row = row_of_call(
            {}, {"scenario_id": "s", "scenario_name": "Refund", "agent": {"version": 2}, "scenario_id.x": 1}
        )
        assert (row["scenario_id"], row["scenario_name"]) == ("s", "Refund")
        assert json.loads(row["extra"]) == {"call_results": {"agent": {"version": 2}, "scenario_id.x": 1}}

    def test_what_the_listing_repeats_is_not_kept_twice(self):
        assert (
            extra_of_call(
                {"duration_seconds": 88}, {"duration_seconds": 88.0, "status": "completed", "eval_outputs": {}}
            )
            is None
        )

    @pytest.mark.parametrize(
        ("metrics", "listed"), [(1, True), (True, 1), ("NaN", "nan"), ([1], [True]), ([1], [1]), (88, None)]
    )
    def test_what_the_listing_does_not_certainly_repeat_is_kept(self, metrics, listed):
        extra = extra_of_call({"duration_seconds": metrics}, {"duration_seconds": listed})
        assert json.dumps(extra["call_results"]) == json.dumps({"duration_seconds": listed})

    def test_call_results_among_the_metrics_overwrite_nothing(self):
        assert extra_of_call({"call_results": 1}, {"x": 4}) == {"metrics.call_results": 1, "call_results": {"x": 4}}

    def test_payload_is_left_as_it_was(self):
        call = fetched_call("call", {"call_results": 1}, {"eval_outputs": {"config": {"output": 1}}})
        before = (dict(call.metrics.payload), json.dumps(call.listed.payload))
        calls_frame([bundle_of(call)], EXPORT)
        assert (call.metrics.payload, json.dumps(call.listed.payload)) == before


class TestEvals:
    @pytest.mark.parametrize(
        ("output", "output_type", "column", "value"),
        [
            ("Passed", "Pass/Fail", "output_text", "Passed"),
            ("Failed", "Pass/Fail", "output_text", "Failed"),
            (True, "Pass/Fail", "output_passed", True),
            (False, None, "output_passed", False),
            (0.994, "score", "output_score", 0.994),
            (0, "score", "output_score", 0.0),
            (100, "score", "output_score", 100.0),
            ("0.5", "score", "output_text", "0.5"),
            ("7", "choices", "output_text", "7"),
            ("", "text", "output_text", ""),
            (["neutral"], "choices", "output_json", '["neutral"]'),
            ([], "choices", "output_json", "[]"),
            ({"a": {"b": 1}}, "object", "output_json", '{"a":{"b":1}}'),
        ],
    )
    def test_output_goes_to_the_column_of_its_kind(self, output, output_type, column, value):
        row = row_of_eval({"output": output, "output_type": output_type})
        kinds = {name: row[name] for name in ("output_score", "output_text", "output_json") if row[name] is not None}
        assert row[column] == value
        assert kinds == ({} if column == "output_passed" else {column: value})
        assert row["extra"] is None

    @pytest.mark.parametrize(
        ("output", "output_type", "verdict"),
        [
            ("Passed", "Pass/Fail", True),
            ("Failed", "Pass/Fail", False),
            ("passed", "Pass/Fail", None),
            ("Skipped", "Pass/Fail", None),
            ("Passed", "choices", None),
            ("Failed", None, None),
            (True, "choices", True),
            (1, "Pass/Fail", None),
            (None, "Pass/Fail", None),
            (["Passed"], "Pass/Fail", None),
        ],
    )
    def test_verdict_is_a_bool_or_the_word_of_a_pass_fail_eval(self, output, output_type, verdict):
        assert row_of_eval({"output": output, "output_type": output_type})["output_passed"] is verdict

    @pytest.mark.parametrize("output", [None, {}, {"output": None}, {"name": None, "output": None, "status": None}])
    def test_eval_without_output_is_a_row_of_nulls(self, output):
        row = row_of_eval(output)
        assert {row[name] for name in row if name.startswith("output_") or name in {"reason", "status", "extra"}} <= {
            None,
            "{}",
        }
        assert (row["call_execution_id"], row["eval_config_id"]) == ("call", "config")

    @pytest.mark.parametrize(
        ("value", "column"),
        [("Passed", "output_text"), (0.5, "output_score"), (True, "output_passed"), ([1], "output_json")],
    )
    def test_output_that_is_no_object_is_taken_for_the_output_itself(self, value, column):
        row = row_of_eval(value)
        assert row[column] == ("[1]" if value == [1] else value)
        assert row["extra"] is None

    def test_row_says_which_execution_and_run_test_it_is_of(self):
        row = row_of_eval(True)
        assert (row["execution_id"], row["run_test_name"], row["execution_started_at"]) == (
            "execution",
            "Checkout",
            STARTED_AT,
        )
        assert (row["export_run_id"], row["exported_at"]) == (EXPORT.export_run_id, EXPORT.exported_at)

    def test_evals_of_a_call_whose_metrics_are_missing_are_rows_too(self):
        call = fetched_call("call", {}, {"eval_outputs": {"config": {"output": 1}}})
        listed = bundle_of(call.listed, dead_letters=(dead_letter(),))
        assert len(evals_frame([listed], EXPORT).rows) == 1

    def test_bundle_whose_calls_were_not_listed_has_no_evals(self):
        assert len(evals_frame([not_listed(execution())], EXPORT).rows) == 0


class TestErrors:
    def test_one_row_per_dead_letter(self):
        letters = (dead_letter("call-1", "cut body"), dead_letter("call-2"))
        rows = errors_frame([bundle_of(dead_letters=letters), bundle_of()], EXPORT).rows.to_pylist()
        assert [(row["subject_id"], row["message"]) for row in rows] == [
            ("call-1", "cut body"),
            ("call-2", "no answer"),
        ]
        assert rows[0] == {
            "endpoint": letters[0].endpoint,
            "subject_id": "call-1",
            "execution_id": "execution",
            "run_test_name": "Checkout",
            "execution_started_at": STARTED_AT,
            "status": 500,
            "message": "cut body",
            "excerpt": "<html>",
            "tries": 6,
            "first_seen_at": EXPORT.exported_at,
            "last_seen_at": EXPORT.exported_at,
            "export_run_id": "run-1",
        }
