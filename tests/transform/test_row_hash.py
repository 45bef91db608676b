"""The hash of a row says what the source says in it, and the same in every version."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from etl.model import schema
from etl.model.arrow import with_column
from etl.transform import row_hash
from etl.transform.frames import ExportStamp
from etl.transform.row_hash import ROW_HASH, hash_rows, says_the_same
from tests.bundles import EXPORT, bundle_of, calls_frame, fetched_call
from tests.datasets import hash_of


def rows_of(metrics=None, export=EXPORT):
    return calls_frame([bundle_of(fetched_call("call", metrics or {}))], export).rows


def test_nine_columns_are_hashed_under_a_longer_name_than_their_own():
    """A changed value here would take every call that has such a metric for damaged, and fetch its execution again."""
    metrics = {"latency": {"system_metrics": {"bot_wpm": 149.53, "user_wpm": 5.0, "ai_interruption_count": 1}}}
    assert hash_rows(schema.CALLS, rows_of(metrics)) == ["02160c7155f02af26d7060216c552691"]


def test_which_export_wrote_a_row_changes_no_hash():
    later = rows_of(
        {"x": 1}, ExportStamp(export_run_id="run-2", exported_at=datetime(2026, 3, 1, tzinfo=UTC), include_raw=True)
    )
    assert hash_rows(schema.CALLS, later) == hash_rows(schema.CALLS, rows_of({"x": 1}))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_rows_are_hashed_in_batches_whatever_is_null_in_one(monkeypatch, batch):
    monkeypatch.setattr(row_hash, "_BATCH_ROWS", batch)
    given = [{"duration_seconds": 1.5}, {}, {"cost": {"total_cost_cents": 7}}, {"duration_seconds": None}]
    rows = pa.concat_tables([rows_of(metrics) for metrics in given])
    assert hash_rows(schema.CALLS, rows) == [hash_of("calls", row) for row in rows.to_pylist()]
    assert len({*hash_rows(schema.CALLS, rows)}) == 3


def test_hashes_that_are_there_are_not_made_again():
    assert hash_rows(schema.CALLS, rows_of().append_column(ROW_HASH, pa.array(["known"]))) == ["known"]


@pytest.mark.parametrize("column", schema.CALLS.columns, ids=lambda column: column.name)
def test_two_rows_say_the_same_if_their_hash_is_the_same(column):
    rows = rows_of({"duration_seconds": 1.5})
    values = {schema.STRING: "new", schema.INT: 7, schema.FLOAT: 7.5, schema.TIMESTAMP: EXPORT.exported_at}
    other = with_column(rows, column.name, [values[column.type]])
    (one,), (two,) = ([[*row.values()] for row in each.to_pylist()] for each in (rows, other))
    assert says_the_same(schema.CALLS, one, two) is (hash_rows(schema.CALLS, rows) == hash_rows(schema.CALLS, other))
