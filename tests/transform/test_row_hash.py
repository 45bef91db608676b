"""How stored rows are hashed; of which bytes, ``tests/test_format.py`` says."""

import pyarrow as pa
import pytest

from etl.model import schema
from etl.model.arrow import with_column
from etl.transform import row_hash
from etl.transform.row_hash import ROW_HASH, hash_rows, says_the_same
from tests.bundles import EXPORT, bundle_of, calls_frame, fetched_call
from tests.datasets import hash_of


def rows_of(metrics=None):
    return calls_frame([bundle_of(fetched_call("call", metrics or {}))], EXPORT).rows


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
