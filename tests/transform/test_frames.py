"""Rows become frames and Arrow tables with exactly the declared columns; a key stands once."""

import json
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pytest

from etl.errors import SchemaError
from etl.model import schema
from etl.transform.frames import ExportStamp, frame_of, to_arrow, to_pandas
from tests.bundles import (
    EXPORT,
    bundle_of,
    calls_frame,
    dead_letter,
    errors_frame,
    evals_frame,
    execution,
    fetched_call,
    frame_of_executions,
    through_parquet,
)
from tests.transform.made_rows import frame_rows, row_of_call, row_of_execution

STARTED_AT = datetime(2026, 3, 1, 9, 0, 1, 123456, tzinfo=UTC)


class TestKeys:
    def test_a_call_in_two_bundles_is_refused(self):
        bundles = [bundle_of(fetched_call("same")), bundle_of(fetched_call("same"), of=execution("other"))]
        with pytest.raises(SchemaError, match="calls: two rows with the key"):
            calls_frame(bundles, EXPORT)

    def test_an_eval_in_two_bundles_is_refused(self):
        call = fetched_call("same", {}, {"eval_outputs": {"config": 1}})
        with pytest.raises(SchemaError, match="evals: two rows with the key"):
            evals_frame([bundle_of(call), bundle_of(call)], EXPORT)

    def test_an_execution_in_two_bundles_is_refused(self):
        with pytest.raises(SchemaError, match="executions: two rows with the key"):
            frame_of_executions(execution(), execution())


class TestExecutions:
    def test_row_holds_what_the_exporter_adds(self):
        row = row_of_execution()
        assert (row["listed_calls"], row["exported_calls"], row["calls_digest"]) == (2, 1, "digest")
        assert (row["export_state"], row["verified_at"], row["deleted_at"]) == ("exported", EXPORT.exported_at, None)
        assert (row["run_test_name"], row["started_at"]) == ("Checkout", STARTED_AT)
        assert len(row["fingerprint"]) == 32

    def test_aggregates_lose_their_prefix_and_unknown_ones_are_kept_under_it(self):
        row = row_of_execution(metrics={"latency": {"percentiles": {"p50": 88, "p90": 1}}, "voice": {"mos": 4}})
        assert row["latency_percentiles_p50"] == 88.0
        assert json.loads(row["extra"]) == {"metrics": {"latency": {"percentiles": {"p90": 1}}, "voice": {"mos": 4}}}

    def test_start_that_cannot_be_read_is_kept_and_is_null_in_every_table(self):
        of = execution(started_at="2026-03-01 09:00")
        call = fetched_call("call", {}, {"eval_outputs": {"config": 1}})
        assert json.loads(frame_rows(frame_of_executions(of), schema.EXECUTIONS)[0]["extra"]) == {
            "started_at": "2026-03-01 09:00"
        }
        assert (
            frame_rows(calls_frame([bundle_of(call, of=of)], EXPORT), schema.CALLS)[0]["execution_started_at"] is None
        )
        assert (
            frame_rows(evals_frame([bundle_of(call, of=of)], EXPORT), schema.EVALS)[0]["execution_started_at"] is None
        )


class TestRaw:
    def test_raw_is_null_unless_asked_for(self):
        assert row_of_call({"x": 1})["raw"] is None
        assert row_of_execution()["raw"] is None

    def test_raw_is_the_whole_payload(self):
        export = ExportStamp(export_run_id="run-1", exported_at=EXPORT.exported_at, include_raw=True)
        call = fetched_call("call", {"x": [1, {"y": "\ud800"}], "call_results": None})
        listed = execution(odd={"a": 2**70})
        assert (
            json.loads(frame_rows(calls_frame([bundle_of(call)], export), schema.CALLS)[0]["raw"])
            == call.metrics.payload
        )
        assert (
            json.loads(frame_rows(frame_of_executions(listed, export=export), schema.EXECUTIONS)[0]["raw"])
            == listed.payload
        )

    def test_nine_columns_are_hashed_under_a_longer_name_than_their_own(self):
        """A changed value here would take every call that has such a metric for damaged, and fetch its execution again."""
        metrics = {"latency": {"system_metrics": {"bot_wpm": 149.53, "user_wpm": 5.0, "ai_interruption_count": 1}}}
        assert row_of_call(metrics)["row_hash"] == "02160c7155f02af26d7060216c552691"

    def test_raw_changes_no_row_hash(self):
        export = ExportStamp(export_run_id="run-2", exported_at=STARTED_AT, include_raw=True)
        with_raw = frame_rows(calls_frame([bundle_of(fetched_call())], export), schema.CALLS)[0]
        assert with_raw["row_hash"] == row_of_call()["row_hash"]


def frames():
    call = fetched_call("call", {"duration_seconds": 88}, {"eval_outputs": {"config": {"output": 1}}})
    full, empty = bundle_of(call, dead_letters=(dead_letter(),)), bundle_of()
    return [
        ("executions full", schema.EXECUTIONS, frame_of_executions(execution(metrics={"calls": {"total": 3}})).data),
        ("executions empty", schema.EXECUTIONS, frame_of_executions().data),
        ("calls full", schema.CALLS, calls_frame([full], EXPORT).data),
        ("calls all null", schema.CALLS, calls_frame([bundle_of(fetched_call())], EXPORT).data),
        ("calls empty", schema.CALLS, calls_frame([], EXPORT).data),
        ("evals full", schema.EVALS, evals_frame([full], EXPORT).data),
        ("evals empty", schema.EVALS, evals_frame([empty], EXPORT).data),
        ("errors full", schema.ERRORS, errors_frame([full], EXPORT).data),
        ("errors empty", schema.ERRORS, errors_frame([empty], EXPORT).data),
        (
            "runs full",
            schema.RUNS_TABLE,
            frame_of(schema.RUNS_TABLE, [{"export_run_id": "run-1", "seconds": 1.5, "bytes": 7}]),
        ),
        ("runs empty", schema.RUNS_TABLE, frame_of(schema.RUNS_TABLE, [])),
    ]


@pytest.mark.parametrize(("table", "frame"), [case[1:] for case in frames()], ids=[case[0] for case in frames()])
class TestTypes:
    def test_frame_has_exactly_the_declared_columns_and_dtypes(self, table, frame):
        assert list(frame.columns) == list(table.names)
        assert list(frame.dtypes) == [pd.ArrowDtype(column.type) for column in table.columns]

    def test_rows_come_back_from_parquet_with_the_schema_to_the_letter(self, table, frame):
        rows = to_arrow(frame, table)
        rows.validate(full=True)
        read = through_parquet(rows)
        assert read.schema.equals(table.arrow_schema, check_metadata=True)
        assert read.to_pylist() == rows.to_pylist()
        pd.testing.assert_frame_equal(to_pandas(read), frame)

    def test_null_stays_null_and_never_becomes_nan(self, table, frame):
        for row in to_arrow(frame, table).to_pylist():
            assert all(value == value for value in row.values())  # noqa: PLR0124


def test_numbers_beyond_2_to_the_53_pass_through_a_frame_exactly():
    rows = pa.Table.from_pylist(
        [{"export_run_id": "a", "bytes": 2**53 + 1}, {"export_run_id": "b"}], schema.RUNS_TABLE.arrow_schema
    )
    assert to_arrow(to_pandas(rows), schema.RUNS_TABLE).equals(rows)


def test_frame_of_several_chunks_becomes_one():
    frame = frame_of(schema.RUNS_TABLE, [{"export_run_id": "a"}])
    joined = pd.concat([frame, frame_of(schema.RUNS_TABLE, [{"export_run_id": "b"}])], ignore_index=True)
    rows = to_arrow(joined, schema.RUNS_TABLE)
    assert rows["export_run_id"].to_pylist() == ["a", "b"]
    assert rows["export_run_id"].num_chunks == 1
