"""Rows of re-exported executions are exchanged as a whole; what did not change keeps its old version."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from etl.load import merge as merge_module
from etl.load.merge import Replacement, merge
from etl.model import schema

OLD, NEW = datetime(2026, 3, 1, 2, tzinfo=UTC), datetime(2026, 3, 2, 2, tzinfo=UTC)


def rows(table, *given):
    return pa.Table.from_pylist(list(given), table.arrow_schema)


def call(name, execution="e1", value="same", run="old", **columns):
    return {"call_execution_id": name, "execution_id": execution, "row_hash": value, "export_run_id": run, **columns}


def letter(subject, execution="e1", run="old", at=OLD, **columns):
    return {
        "endpoint": "/metrics/",
        "subject_id": subject,
        "execution_id": execution,
        "export_run_id": run,
        "first_seen_at": at,
        "last_seen_at": at,
        **columns,
    }


def execution(name, run="old", **columns):
    return {"execution_id": name, "export_run_id": run, **columns}


def calls(*given):
    return rows(schema.CALLS, *given)


def merged_calls(old, new, **options):
    merged = merge(schema.CALLS, calls(*old), calls(*new), Replacement(**options))
    versions = zip(
        *(merged.table[name].to_pylist() for name in ("call_execution_id", "row_hash", "export_run_id")), strict=True
    )
    return list(versions), merged.is_changed


def test_first_rows_of_a_partition_are_taken():
    assert merged_calls([], [call("a", run="new")], executions=["e1"]) == ([("a", "same", "new")], True)


def test_nothing_merged_into_nothing_is_unchanged():
    assert merged_calls([], [], executions=["e1"]) == ([], False)


def test_a_row_that_stands_twice_stays_once():
    assert merged_calls([call("a"), call("a"), call("b")], [call("a"), call("b")], executions=["e1"]) == (
        [("a", "same", "old"), ("b", "same", "old")],
        True,
    )
    kept, _ = merged_calls([call("a"), call("a", value="other")], [], executions=["e1"], failed_calls=["a"])
    assert kept == [("a", "same", "old")]


def test_a_row_that_changed_is_exchanged():
    assert merged_calls([call("a")], [call("a", value="other", run="new")], executions=["e1"]) == (
        [("a", "other", "new")],
        True,
    )


def test_a_row_that_did_not_change_keeps_its_old_version():
    old, new = [call("a"), call("b")], [call("a", run="new"), call("b", value="other", run="new")]
    assert merged_calls(old, new, executions=["e1"]) == ([("a", "same", "old"), ("b", "other", "new")], True)


def test_a_row_that_is_gone_at_the_source_goes():
    assert merged_calls([call("a"), call("b")], [call("b", run="new")], executions=["e1"]) == (
        [("b", "same", "old")],
        True,
    )


def test_all_rows_of_an_execution_go_when_it_has_none_any_more():
    assert merged_calls([call("a"), call("b", "e2")], [], executions=["e1"]) == ([("b", "same", "old")], True)


def test_rows_of_other_executions_stay_as_they_are():
    old = [call("a", "e1"), call("b", "e2"), call("c", None)]
    versions, _ = merged_calls(old, [call("a", "e1", "other", "new")], executions=["e1"])
    assert sorted(versions) == [("a", "other", "new"), ("b", "same", "old"), ("c", "same", "old")]


def test_old_row_of_a_call_that_could_not_be_fetched_stays():
    old, new = [call("a"), call("b"), call("c")], [call("a", run="new")]
    assert merged_calls(old, new, executions=["e1"], failed_calls={"b"}) == (
        [("a", "same", "old"), ("b", "same", "old")],
        True,
    )


def test_old_row_of_a_kept_call_goes_when_there_is_a_new_one():
    result = merged_calls([call("a")], [call("a", value="other", run="new")], executions=["e1"], failed_calls={"a"})
    assert result == ([("a", "other", "new")], True)


def test_a_kept_call_of_which_nothing_was_held_adds_nothing():
    assert merged_calls([call("a")], [call("a")], executions=["e1"], failed_calls={"b"}) == (
        [("a", "same", "old")],
        False,
    )


def evals(*given):
    return rows(schema.EVALS, *(each | {"eval_config_id": "x"} for each in given))


@pytest.mark.parametrize("make", [calls, evals], ids=["calls", "evals"])
def test_rows_of_an_execution_whose_calls_were_not_listed_stay(make):
    table = schema.CALLS if make is calls else schema.EVALS
    old = make(call("a"), call("b", "e2"))
    merged = merge(table, old, make(), Replacement(["e1", "e2"], without_calls=["e1"])).table
    assert merged["call_execution_id"].to_pylist() == ["a"]


@pytest.mark.parametrize("make", [calls, evals], ids=["calls", "evals"])
def test_what_an_unproved_list_does_not_name_stays(make):
    table = schema.CALLS if make is calls else schema.EVALS
    old = make(call("a"), call("b"), call("c", "e2"))
    replacement = Replacement(["e1", "e2"], unproved=["e1"], listed_calls=["b"])
    merged = merge(table, old, make(), replacement).table
    assert merged["call_execution_id"].to_pylist() == ["a"], "b was listed without a row, and e2 was proved"


def test_evals_of_a_call_whose_metrics_could_not_be_fetched_are_those_of_the_list():
    replacement = Replacement(["e1"], listed_calls=["a"], failed_calls=["a"])
    assert len(merge(schema.EVALS, evals(call("a")), evals(), replacement).table) == 0


def test_dead_letters_and_execution_rows_are_replaced_whatever_was_listed():
    exceptions: dict[str, Any] = {"without_calls": ["e1"], "unproved": ["e1"], "failed_calls": ["a", "e1"]}
    for table, old in ((schema.ERRORS, letter("a")), (schema.EXECUTIONS, execution("e1"))):
        assert len(merge(table, rows(table, old), rows(table), Replacement(["e1"], **exceptions)).table) == 0


def test_unchanged_partition_is_handed_back_itself():
    old = calls(call("b"), call("a"), call("c", "e2"))
    merged = merge(schema.CALLS, old, calls(call("a", run="new"), call("b", run="new")), Replacement(["e1"]))
    assert merged.table is old
    assert not merged.is_changed


def test_raw_that_was_turned_on_rewrites_the_row():
    assert merged_calls([call("a")], [call("a", run="new", raw="{}")], executions=["e1"]) == (
        [("a", "same", "new")],
        True,
    )


def test_a_call_that_moved_to_another_replaced_execution_is_held_once():
    assert merged_calls([call("a", "e1")], [call("a", "e2", "other", "new")], executions=["e1", "e2"]) == (
        [("a", "other", "new")],
        True,
    )


def test_evals_are_told_apart_by_both_keys():
    def output(config, value, run):
        return call("a", value=value, run=run) | {"eval_config_id": config}

    merged = merge(
        schema.EVALS,
        rows(schema.EVALS, output("x", "same", "old"), output("y", "same", "old")),
        rows(schema.EVALS, output("y", "other", "new"), output("x", "same", "new"), output("z", "same", "new")),
        Replacement(["e1"]),
    )
    assert merged.table["eval_config_id"].to_pylist() == ["x", "y", "z"]
    assert merged.table["export_run_id"].to_pylist() == ["old", "new", "new"]


@pytest.mark.parametrize("column", ["export_run_id", "exported_at", "verified_at"])
def test_an_execution_that_was_only_verified_is_unchanged(column):
    old = rows(schema.EXECUTIONS, execution("e1", verified_at=OLD, exported_at=OLD))
    later: dict[str, object] = {"export_run_id": "new", "exported_at": NEW, "verified_at": NEW}
    new = rows(schema.EXECUTIONS, execution("e1", verified_at=OLD, exported_at=OLD) | {column: later[column]})
    assert not merge(schema.EXECUTIONS, old, new, Replacement(["e1"])).is_changed


def test_an_execution_that_was_verified_on_purpose_takes_the_new_times_and_nothing_else():
    old = rows(schema.EXECUTIONS, *(execution(name, verified_at=OLD, exported_at=OLD) for name in ("e1", "e2")))
    new = rows(schema.EXECUTIONS, *(execution(name, "new", verified_at=NEW, exported_at=NEW) for name in ("e1", "e2")))
    merged = merge(schema.EXECUTIONS, old, new, Replacement(["e1", "e2"], verified=["e1"]))
    assert (merged.is_changed, merged.arrived) == (True, 0)
    assert [(row["verified_at"], row["exported_at"], row["export_run_id"]) for row in merged.table.to_pylist()] == [
        (NEW, NEW, "new"),
        (OLD, OLD, "old"),
    ]
    assert merged.changed == set()
    again = merge(schema.EXECUTIONS, merged.table, merged.table, Replacement(["e1", "e2"], verified=["e1"]))
    assert not again.is_changed


def test_an_execution_row_that_is_renewed_is_written_again_though_it_says_the_same():
    old = rows(schema.EXECUTIONS, *(execution(name, exported_at=NEW) for name in ("e1", "e2")))
    new = rows(schema.EXECUTIONS, *(execution(name, "new", exported_at=OLD) for name in ("e1", "e2")))
    merged = merge(schema.EXECUTIONS, old, new, Replacement(["e1", "e2"], renewed=["e1"]))
    assert [(row["exported_at"], row["export_run_id"]) for row in merged.table.to_pylist()] == [
        (OLD, "new"),
        (NEW, "old"),
    ]
    assert merged.changed == {"e1"}


def test_the_executions_are_known_of_which_a_row_came_went_or_changed():
    old = calls(call("a"), call("b", "e2"), call("c", "e3"), call("d", "e4"), call("x", "e9"))
    new = calls(call("a"), call("b", "e2", value="other"), call("d", "e4"), call("e", "e4"))
    merged = merge(schema.CALLS, old, new, Replacement(["e1", "e2", "e3", "e4"]))
    assert merged.changed == {"e2", "e3", "e4"}
    assert (merged.arrived, merged.removed) == (2, 1), "b has a successor, c has none"


def test_an_execution_of_which_only_the_head_is_known_keeps_its_aggregates():
    known = {"status": "completed", "completed_at": OLD, "calls_total": 7, "extra": '{"a":1}'}
    old = rows(schema.EXECUTIONS, execution("e1", **known), execution("e2", **known))
    new = rows(schema.EXECUTIONS, *(execution(name, "new", status="failed") for name in ("e1", "e2", "e3")))
    merged = merge(schema.EXECUTIONS, old, new, Replacement(["e1", "e2", "e3"], heads=["e1", "e3"])).table
    assert [(row["status"], row["completed_at"], row["calls_total"], row["extra"]) for row in merged.to_pylist()] == [
        ("failed", None, 7, '{"a":1}'),
        ("failed", None, None, None),
        ("failed", None, None, None),
    ]


COUNTED = {"calls_total": 12, "listed_calls": 9}


@pytest.mark.parametrize(
    ("before", "after", "unlisted"),
    [
        ({"unlisted_calls": 3}, {}, 3),
        ({"unlisted_calls": 3}, {"unlisted_calls": 4, "fingerprint": "new"}, 4),
        ({"unlisted_calls": 3}, {"unlisted_calls": 2}, 2),
        ({"unlisted_calls": 3}, {"unlisted_calls": 2, "fingerprint": "new"}, 3),
        ({"unlisted_calls": 3, "listed_calls": 9}, {"unlisted_calls": 0, "listed_calls": 12}, 3),
        ({"unlisted_calls": 3, "listed_calls": 12}, {"unlisted_calls": 0, "listed_calls": 12}, 0),
        ({}, {"unlisted_calls": 2, "fingerprint": "new"}, 2),
        ({}, {}, None),
        ({}, {"export_state": "incomplete", **COUNTED}, None),
        ({"export_state": "exported", **COUNTED}, {}, 3),
        ({"export_state": "settling", "total_calls": 10, **COUNTED}, {"fingerprint": "new"}, 3),
        ({"export_state": "incomplete", **COUNTED}, {}, None),
        ({"export_state": "waiting", **COUNTED}, {}, None),
        ({"export_state": "exported", "calls_total": 2, "listed_calls": 9}, {}, None),
    ],
)
def test_calls_that_the_source_does_not_list_stay_as_many_while_nothing_tells(before, after, unlisted):
    """A row of an older version, without the column, tells by its counts, if it was whole. A new one may be a moved one."""
    old = rows(schema.EXECUTIONS, execution("e1", **before))
    new = rows(schema.EXECUTIONS, execution("e1", "new", **after), execution("e2", "new"))
    merged = merge(schema.EXECUTIONS, old, new, Replacement(["e1", "e2"])).table
    assert merged["unlisted_calls"].to_pylist() == [unlisted, None]


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "failed"},
        {"export_state": "settling"},
        {"calls_digest": "other"},
        {"listed_calls": 7},
        {"deleted_at": NEW},
        {"extra": "{}"},
    ],
)
def test_an_execution_that_changed_in_anything_else_is_exchanged(columns):
    old, new = rows(schema.EXECUTIONS, execution("e1")), rows(schema.EXECUTIONS, execution("e1", "new", **columns))
    merged = merge(schema.EXECUTIONS, old, new, Replacement(["e1"]))
    assert merged.is_changed
    assert merged.table.equals(new)


def test_executions_have_no_calls_to_keep():
    old = rows(schema.EXECUTIONS, execution("e1"))
    assert len(merge(schema.EXECUTIONS, old, old.slice(0, 0), Replacement(["e1"], failed_calls={"e1"})).table) == 0


def test_an_error_seen_again_keeps_when_it_was_seen_first():
    old = rows(schema.ERRORS, letter("a"), letter("b"), letter("a2", "e2"))
    new = rows(schema.ERRORS, letter("a", run="new", at=NEW), letter("c", run="new", at=NEW))
    merged = merge(schema.ERRORS, old, new, Replacement(["e1"])).table
    assert [(row["subject_id"], row["first_seen_at"], row["last_seen_at"]) for row in merged.to_pylist()] == [
        ("a", OLD, NEW),
        ("c", NEW, NEW),
        ("a2", OLD, OLD),
    ]


def test_an_error_is_that_of_the_execution_that_was_fetched_last():
    """Two executions list a call that fails."""
    old, new = (
        rows(schema.ERRORS, {"endpoint": "e", "subject_id": "c1", "execution_id": execution_id})
        for execution_id in ("e1", "e2")
    )
    merged = merge(schema.ERRORS, old, new, Replacement(["e2"])).table
    assert merged["execution_id"].to_pylist() == ["e2"]


def test_an_error_goes_when_its_execution_succeeds():
    old = rows(schema.ERRORS, letter("a"), letter("b", "e2"))
    assert merge(schema.ERRORS, old, old.slice(0, 0), Replacement(["e1"])).table["subject_id"].to_pylist() == ["b"]


def test_an_error_of_a_call_stays_when_nothing_tells_what_became_of_the_call():
    old = rows(schema.ERRORS, letter("a"), letter("b"), letter("e1"))
    replacement = Replacement(["e1"], doubtful=["e1"], listed_calls=["b"])
    assert merge(schema.ERRORS, old, old.slice(0, 0), replacement).table["subject_id"].to_pylist() == ["a"]


def test_rows_come_sorted_by_start_execution_and_key_and_unknown_starts_last():
    given = [
        call("b", "e1", execution_started_at=OLD),
        call("a", "e0", execution_started_at=NEW),
        call("a2", "e1", execution_started_at=OLD),
        call("z", "e0", execution_started_at=OLD),
        call("n", "e9"),
    ]
    merged = merge(schema.CALLS, calls(*given[:2]), calls(*given[2:]), Replacement(["e7"])).table
    assert merged["call_execution_id"].to_pylist() == ["z", "a2", "b", "a", "n"]


def test_more_text_than_can_be_sorted_is_merged_unsorted(monkeypatch):
    """As of one execution whose calls hold more than 2 GiB: Arrow would raise, and the run end."""
    monkeypatch.setattr(merge_module, "_MOST_SORTED_BYTES", 1)
    old, new = calls(call("b"), call("c")), calls(call("c", value="new"), call("a"))
    merged = merge(schema.CALLS, old, new, Replacement(["e1"]))
    assert merged.table["call_execution_id"].to_pylist() == ["c", "a"]
    assert merged.table["row_hash"].to_pylist() == ["new", "same"]


@pytest.mark.parametrize(
    "table", [schema.EXECUTIONS, schema.CALLS, schema.EVALS, schema.ERRORS], ids=lambda table: table.name
)
def test_schema_is_the_declared_one_to_the_letter(table):
    def row(number):
        return dict.fromkeys(table.key, f"k{number}") | {"execution_id": f"e{number}"}

    merged = merge(table, rows(table, row(1), row(2)), rows(table, row(2)), Replacement(["e1", "e2"]))
    assert merged.is_changed
    assert merged.table.schema.equals(table.arrow_schema, check_metadata=True)
    merged.table.validate(full=True)
