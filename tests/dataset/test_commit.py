"""What a commit leaves behind: whole executions, in an order that survives any end, and nothing touched in vain."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from etl.dataset.commit import mark_deleted
from etl.dataset.layout import Part
from etl.dataset.state import read_state
from etl.model.lifecycle import ExportState
from etl.model.records import METRICS
from etl.transform.frames import ExportStamp
from tests.bundles import DAY, KEY, a_bundle, dead_letter
from tests.dataset.killed import finished_after_each_kill, killed_before
from tests.datasets import (
    FETCHED_AT,
    a_dataset,
    assert_sound,
    export_to,
    place,
    rows,
    stored_in,
)

TABLES = ["calls", "evals", "errors", "executions"]
NAME = KEY.title()


def counts(**changes):
    """What the receipt counts of a run test."""
    return dict.fromkeys(("inserted", "replaced", "marked", "emptied", "verified"), 0) | changes


def changed(bundle, **changes):
    return msgspec.structs.replace(bundle, **changes)


def identities(root):
    """What changes when a file is written again, be it with the same bytes."""
    return {
        path.relative_to(root).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*.parquet")
    }


def test_final_execution_that_is_fetched_again_unchanged_changes_no_file(dataset, tmp_path):
    """Feeds and warehouses would load it again."""
    export_to(dataset, a_bundle("e1"))
    before = identities(tmp_path)
    written, _ = export_to(dataset, a_bundle("e1"), run="run-2", fetched_at=FETCHED_AT + timedelta(days=1))
    assert identities(tmp_path) == before
    assert not any(written.rows.values())


def test_execution_that_the_list_cannot_give_keeps_its_aggregates_and_is_incomplete(dataset, tmp_path):
    whole = a_bundle("e1")
    whole.execution.payload["metrics"] = {"calls": {"total": 2}}
    export_to(dataset, whole)
    export_to(dataset, changed(a_bundle("e1", version=3), dead_letters=(dead_letter("e1"),)), run="run-2")
    assert rows(tmp_path, "executions", "total_calls", "calls_total", "export_state") == [(3, 2, "incomplete")]
    assert rows(tmp_path, "errors", "endpoint", "subject_id") == [(METRICS, "e1")]
    export_to(dataset, whole, run="run-3")
    assert rows(tmp_path, "executions", "calls_total", "export_state") == [(2, "settling")]
    assert rows(tmp_path, "errors") == []


def test_execution_of_which_a_kept_row_is_gone_is_incomplete(dataset):
    bundle = a_bundle()
    _, arrived = export_to(dataset, changed(bundle, calls=bundle.calls[1:], kept=frozenset(["c1"])))
    assert arrived[NAME].without_rows == {"e1"}
    assert stored_in(dataset)["e1"].export_state == ExportState.INCOMPLETE


LATER = "2026-09-02"
DELETED = {"e1": Part(KEY, place()), "e3": Part(KEY, place(LATER))}
STAMP = ExportStamp("run-2", FETCHED_AT + timedelta(days=1))


@pytest.fixture
def two_months(tmp_path):
    """Two executions in each of two months, with a dead letter each."""
    dataset = a_dataset(tmp_path / "data")
    for number, date in enumerate([DAY, DAY, LATER, LATER], 1):
        calls = [f"c{number}", f"d{number}"]
        export_to(dataset, a_bundle(f"e{number}", calls, given_up=calls[1:], date=date))
    return dataset


def test_whenever_marking_is_killed_the_next_run_completes_it(two_months, tmp_path):
    found = []
    root = two_months.files.root
    for each in finished_after_each_kill(root, tmp_path, lambda each: mark_deleted(each, DELETED, STAMP)):
        found.append(assert_sound(Path(each.files.where())))
        state = read_state(each, set_aside=False)
        assert not any(stored.is_damaged or not stored.has_row for stored in state.executions.values())
        assert state.half_deleted == set()
    assert all(rows_of == found[-1] for rows_of in found), "the last one was not killed"


def test_rows_without_an_execution_are_marked_until_no_look_up_is_due(two_months):
    """A run was killed before the execution row, and the source deleted it since."""
    with killed_before(3):
        export_to(two_months, a_bundle("e5", ["c5", "d5"], given_up=["d5"]))
    assert stored_in(two_months)["e5"].deleted_at is None
    assert mark_deleted(two_months, {"e5": Part(KEY, place())}, STAMP) == 0
    assert stored_in(two_months)["e5"].deleted_at == STAMP.exported_at
