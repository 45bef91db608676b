"""One example of each law of merging, for the reader; the laws themselves are in ``test_merge_laws``."""

from datetime import UTC, datetime

import pyarrow as pa

from etl.dataset import merge as merge_module
from etl.dataset.merge import Replacement, merge
from etl.model import schema

OLD, NEW = datetime(2026, 3, 1, 2, tzinfo=UTC), datetime(2026, 3, 2, 2, tzinfo=UTC)
STAMP = {"export_run_id": "new", "exported_at": NEW}


def rows(table, *given):
    return pa.Table.from_pylist(list(given), table.arrow_schema)


def call(name, execution="e1", value="same", run="old", **columns):
    return {
        "call_execution_id": name,
        "eval_config_id": "x",
        "execution_id": execution,
        "status": value,
        "export_run_id": run,
        **columns,
    }


def execution(name, run="old", **columns):
    return {"execution_id": name, "export_run_id": run, **columns}


def merged(table, old, new, *executions, **options):
    return merge(table, rows(table, *old), rows(table, *new), Replacement(executions, stamp=STAMP, **options))


def told(result, *names):
    return [tuple(row[name] for name in names) for row in result.table.to_pylist()]


def test_raw_that_was_turned_on_rewrites_the_row():
    assert told(merged(schema.CALLS, [call("a")], [call("a", run="new", raw="{}")], "e1"), "export_run_id") == [
        ("new",)
    ]


def test_execution_that_changed_in_any_column_is_exchanged():
    """None of them is forgotten in what a row says."""
    values = {schema.STRING: "new", schema.INT: 7, schema.FLOAT: 7.5, schema.TIMESTAMP: NEW}
    versions = {"export_run_id", "exported_at", "verified_at"}
    for column in schema.EXECUTIONS.columns:
        if not column.is_key:
            change = {column.name: values[column.type]}
            result = merged(schema.EXECUTIONS, [execution("e1")], [execution("e1") | change], "e1")
            assert result.is_changed is (column.name not in versions), column.name


def test_rows_come_sorted_by_start_execution_and_key_and_unknown_starts_last():
    given = [
        call("b", "e1", execution_started_at=OLD),
        call("a", "e0", execution_started_at=NEW),
        call("a2", "e1", execution_started_at=OLD),
        call("z", "e0", execution_started_at=OLD),
        call("n", "e9"),
    ]
    result = merged(schema.CALLS, given[:2], given[2:], "e7")
    assert told(result, "call_execution_id") == [("z",), ("a2",), ("b",), ("a",), ("n",)]


def test_rows_that_are_in_order_are_not_copied_for_those_that_come_after_them():
    """A part is written again with each commit of a first export: copying all its text each time costs as much."""
    old = rows(schema.CALLS, call("a", execution_started_at=OLD), call("c", execution_started_at=OLD))
    new = rows(schema.CALLS, call("z", "e2", execution_started_at=NEW), call("y", "e2", execution_started_at=NEW))
    result = merge(schema.CALLS, old, new, Replacement(["e2"], stamp=STAMP)).table
    assert result["call_execution_id"].to_pylist() == ["a", "c", "y", "z"]
    text_of = [each["status"].chunk(0).buffers()[2].address for each in (old, result)]
    assert text_of[0] == text_of[1]


def test_more_text_than_can_be_sorted_is_merged_unsorted(monkeypatch):
    """As of one execution whose calls hold more than 2 GiB: Arrow would raise, and the run end."""
    monkeypatch.setattr(merge_module, "_MOST_SORTED_BYTES", 1)
    result = merged(schema.CALLS, [call("b"), call("c")], [call("c", value="new"), call("a")], "e1")
    assert told(result, "call_execution_id", "status") == [("b", "same"), ("c", "new"), ("a", "same")]
