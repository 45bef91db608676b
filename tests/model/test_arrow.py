"""Rows and values are taken from tables whose schema stays."""

from etl.model.arrow import is_of, where, with_values
from etl.model.schema import EVALS

ROWS = EVALS.no_rows.from_pylist([{"execution_id": id_, "reason": id_} for id_ in "aab"], EVALS.no_rows.schema)


def test_only_some_rows_are_copied():
    assert where(ROWS, is_of(ROWS, "ab")) is ROWS
    assert where(ROWS, [False, True, True])["execution_id"].to_pylist() == ["a", "b"]


def test_other_executions_keep_their_values_and_all_columns_their_types():
    changed = with_values(ROWS, {"reason": {"b": None, "c": "x"}})
    assert (changed["reason"].to_pylist(), changed.schema) == (["a", "a", None], ROWS.schema)
