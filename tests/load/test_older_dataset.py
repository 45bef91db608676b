"""A dataset that the version before wrote goes on: its files get the columns of this one, and nothing that they say changes."""

import shutil
from datetime import UTC, datetime

import pyarrow.parquet as pq

from etl.load.commit import mark_deleted
from etl.load.layout import parse_part_path
from etl.load.merge import with_column
from etl.load.state import load_state
from etl.transform.frames import ExportStamp
from tests.bundles import SAMPLES
from tests.datasets import a_dataset, assert_sound, wrong_schemas

DELETED_AT = datetime(2026, 11, 30, 2, tzinfo=UTC)
STAMP = ExportStamp("run-2", datetime(2026, 12, 1, 2, tzinfo=UTC))
TABLES = ("executions", "calls", "evals")
ADDED, DROPPED = {"executions": set(), "calls": {"deleted_at"}, "evals": {"deleted_at"}}, {"unlisted_calls"}


def only_file(root, table):
    (path,) = (root / table).rglob("*.parquet")
    return path


def rows_by_key(root, table):
    names = {"executions": ["execution_id"], "calls": ["call_execution_id"]}
    key = names.get(table, ["call_execution_id", "eval_config_id"])
    listed = pq.ParquetFile(only_file(root, table)).read().to_pylist()
    return {tuple(row[name] for name in key): row for row in listed}


def test_first_run_adds_and_drops_columns_and_marks_the_calls_of_deleted_executions(tmp_path):
    root = tmp_path / "data"
    shutil.copytree(SAMPLES / "dataset-0.1" / "data", root)
    executions = pq.ParquetFile(only_file(root, "executions")).read()
    deleted, kept = executions["execution_id"].to_pylist()
    pq.write_table(with_column(executions, "deleted_at", [DELETED_AT, None]), only_file(root, "executions"))
    before = {table: rows_by_key(root, table) for table in TABLES}
    assert all(DROPPED & row.keys() for row in before["executions"].values())
    dataset = a_dataset(root)

    state = load_state(dataset, set_aside=True)
    assert not any(each.is_damaged for each in state.executions.values())
    assert (state.half_deleted, state.lost) == ({deleted}, {})
    assert dataset.complete() == 3
    assert wrong_schemas(root) == []
    for table in TABLES:
        added = dict.fromkeys(ADDED[table])
        expected = {
            key: {name: value for name, value in row.items() if name not in DROPPED} | added
            for key, row in before[table].items()
        }
        assert rows_by_key(root, table) == expected, "nothing else changes"

    path = only_file(root, "executions").relative_to(root).as_posix()
    parsed = parse_part_path(path)
    assert parsed
    part = parsed[1]
    assert mark_deleted(dataset, {deleted: part}, STAMP) == 1
    now = assert_sound(root)
    for table in ("calls", "evals"):
        for key, row in now[table].items():
            told = STAMP.columns | {"deleted_at": STAMP.exported_at} if row["execution_id"] == deleted else {}
            assert row == before[table][key] | {"deleted_at": None} | told
    assert [now["executions"][each,]["deleted_at"] for each in (deleted, kept)] == [DELETED_AT, None]
    state = load_state(dataset, set_aside=True)
    assert not any(each.is_damaged for each in state.executions.values())
    assert (state.half_deleted, dataset.complete()) == (set(), 0)
