"""Bundles become rows of calls, evals and dead letters."""

import json
from datetime import UTC, datetime

import pytest
from msgspec.structs import asdict

from tests.bundles import EXPORT, bundle_of, calls_frame, dead_letter, errors_frame, evals_frame, fetched_call
from tests.transform.made_rows import row_of_eval

STARTED_AT = datetime(2026, 3, 1, 9, 0, 1, 123456, tzinfo=UTC)


class TestListing:
    def test_payload_is_left_as_it_was(self):
        call = fetched_call("call", {"call_results": 1}, {"eval_outputs": {"config": {"output": 1}}})
        before = (dict(call.metrics.payload), json.dumps(call.listed.payload))
        calls_frame([bundle_of(call)], EXPORT)
        assert (call.metrics.payload, json.dumps(call.listed.payload)) == before


class TestEvals:
    @pytest.mark.parametrize(
        ("output", "column"), [("0.5", "output_text"), (0.5, "output_score"), (["neutral"], "output_json")]
    )
    def test_output_goes_to_the_column_of_its_kind_and_text_stays_text(self, output, column):
        row = row_of_eval({"output": output, "output_type": "score"})
        assert [name for name in row if name.startswith("output_") and row[name] is not None] == ["output_type", column]

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

    def test_evals_of_a_call_whose_metrics_are_missing_are_rows_too(self):
        call = fetched_call("call", {}, {"eval_outputs": {"config": {"output": 1}}})
        listed = bundle_of(call.listed, dead_letters=(dead_letter(),))
        assert len(evals_frame([listed], EXPORT).rows) == 1


class TestErrors:
    def test_one_row_per_dead_letter(self):
        letters = (dead_letter("call-1", "cut body"), dead_letter("call-2"))
        rows = errors_frame([bundle_of(dead_letters=letters), bundle_of()], EXPORT).rows.to_pylist()
        assert [row["subject_id"] for row in rows] == ["call-1", "call-2"]
        of_execution = {
            "execution_id": "execution",
            "run_test_name": "Checkout",
            "execution_started_at": STARTED_AT,
            "first_seen_at": EXPORT.exported_at,
            "last_seen_at": EXPORT.exported_at,
            "export_run_id": "run-1",
        }
        assert rows[0] == asdict(letters[0]) | of_execution
