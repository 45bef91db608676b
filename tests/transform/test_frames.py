"""Rows become frames and Arrow tables with exactly the declared columns; a key stands once."""

import json
from datetime import UTC, datetime

import pytest

from etl.errors import SchemaError
from etl.model import schema
from etl.transform.frames import ExportStamp
from tests.bundles import (
    EXPORT,
    bundle_of,
    calls_frame,
    errors_frame,
    evals_frame,
    execution,
    fetched_call,
    frame_of_executions,
)
from tests.transform.made_rows import row_of_call, row_of_execution

STARTED_AT = datetime(2026, 3, 1, 9, 0, 1, 123456, tzinfo=UTC)


def test_a_key_in_two_bundles_is_refused():
    call = fetched_call("same", {}, {"eval_outputs": {"config": 1}})
    bundles = [bundle_of(call), bundle_of(call, of=execution("other"))]
    for table, make in (("calls", calls_frame), ("evals", evals_frame)):
        with pytest.raises(SchemaError, match=f"two rows of {table} have the key"):
            make(bundles, EXPORT)
    with pytest.raises(SchemaError, match="two rows of executions have the key"):
        frame_of_executions(execution(), execution())


def test_frame_without_rows_has_the_declared_columns():
    for table, frame in (
        (schema.EXECUTIONS, frame_of_executions()),
        (schema.CALLS, calls_frame([], EXPORT)),
        (schema.ERRORS, errors_frame([bundle_of()], EXPORT)),
    ):
        assert frame.rows.schema.equals(table.arrow_schema, check_metadata=True)


class TestExecutions:
    def test_row_holds_what_the_exporter_adds(self):
        row = row_of_execution()
        assert (row["listed_calls"], row["exported_calls"], row["calls_digest"]) == (2, 1, "digest")
        assert (row["export_state"], row["verified_at"], row["deleted_at"]) == ("exported", EXPORT.exported_at, None)
        assert (row["run_test_name"], row["started_at"]) == ("Checkout", STARTED_AT)
        assert len(row["fingerprint"]) == 32

    def test_start_that_cannot_be_read_is_kept_and_is_null_in_every_table(self):
        of = execution(started_at="2026-03-01 09:00")
        call = fetched_call("call", {}, {"eval_outputs": {"config": 1}})
        assert json.loads(frame_of_executions(of).rows.to_pylist()[0]["extra"]) == {"started_at": "2026-03-01 09:00"}
        assert calls_frame([bundle_of(call, of=of)], EXPORT).rows.to_pylist()[0]["execution_started_at"] is None
        assert evals_frame([bundle_of(call, of=of)], EXPORT).rows.to_pylist()[0]["execution_started_at"] is None


class TestRaw:
    def test_raw_is_null_unless_asked_for(self):
        assert row_of_call({"x": 1})["raw"] is None
        assert row_of_execution()["raw"] is None

    def test_raw_is_the_whole_payload(self):
        export = ExportStamp(export_run_id="run-1", exported_at=EXPORT.exported_at, include_raw=True)
        call = fetched_call("call", {"x": [1, {"y": "\ud800"}], "call_results": None})
        listed = execution(odd={"a": 2**70})
        assert json.loads(calls_frame([bundle_of(call)], export).rows.to_pylist()[0]["raw"]) == call.metrics.payload
        assert json.loads(frame_of_executions(listed, export=export).rows.to_pylist()[0]["raw"]) == listed.payload
