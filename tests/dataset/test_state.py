"""What the dataset holds: execution rows vouch for calls and evals, and the next run notices what somebody removed."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from etl.dataset.commit import mark_deleted
from etl.dataset.index import Index, update_index, write_index
from etl.dataset.layout import Part
from etl.dataset.state import CallReader, read_state
from etl.files import local
from etl.model import schema
from etl.model.lifecycle import StoredCalls
from etl.transform.frames import ExportStamp
from tests.bundles import KEY, a_bundle
from tests.dataset.killed import killed_before
from tests.datasets import FETCHED_AT, export_to, part, place

LATER = "2026-09-02"
HERE, THERE = Part(KEY, place()), Part(KEY, place(LATER))
TABLES = ("calls", "evals", "errors", "executions")
STAMP = ExportStamp("run-2", FETCHED_AT + timedelta(days=1))


def state_of(dataset):
    return read_state(dataset, set_aside=False)


def test_calls_that_were_copied_elsewhere_without_their_executions_move_no_execution(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    copied = tmp_path / "calls" / "run_test=zz" / f"{HERE.place}.parquet"
    copied.parent.mkdir(parents=True)
    copied.write_bytes((tmp_path / part("calls")).read_bytes())
    assert state_of(dataset).part_of("e1") == HERE


def test_execution_that_is_marked_and_whose_calls_are_not_is_half_unmarked(dataset):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"]), a_bundle("e3", [], version=0))
    calls = dataset.rows(schema.CALLS, HERE)
    mark_deleted(dataset, {"e1": HERE, "e3": HERE}, STAMP)
    assert state_of(dataset).half_unmarked == set()
    dataset.write(schema.CALLS, HERE, calls)
    assert state_of(dataset).half_unmarked == {"e1"}


@pytest.fixture
def known(dataset, monkeypatch):
    """Executions of two months that the index knows."""
    monkeypatch.setattr(local, "_TICK_NS", 0)
    export_to(dataset, a_bundle("e1", given_up=["c2"]), a_bundle("e2", ["c3"]), a_bundle("e3", ["c4"], date=LATER))
    save(dataset)
    return dataset


def save(dataset):
    write_index(dataset.files, update_index(dataset, Index(), []))


def drop_last_row(dataset, table):
    dataset.write(schema.TABLES[table], HERE, dataset.rows(schema.TABLES[table], HERE).slice(0, 1))


@pytest.mark.parametrize(
    ("take", "lost"),
    [
        (lambda dataset: (dataset.files.root / part("executions")).unlink(), {"e1", "e2"}),
        (lambda dataset: (dataset.files.root / part("calls")).unlink(), {"e1", "e2"}),
        (lambda dataset: (dataset.files.root / part("evals")).unlink(), {"e1", "e2"}),
        (lambda dataset: (dataset.files.root / part("errors")).unlink(), set()),
        (lambda dataset: [(dataset.files.root / part(table)).unlink() for table in TABLES], {"e1", "e2"}),
        (lambda dataset: drop_last_row(dataset, "calls"), {"e2"}),
        (lambda dataset: drop_last_row(dataset, "executions"), {"e2"}),
        (lambda dataset: dataset.files.publish(part("calls"), b"garbage"), {"e1", "e2"}),
    ],
    ids=["executions", "calls", "evals", "errors", "all", "a call", "an execution", "damaged"],
)
def test_rows_that_somebody_took_away_are_lost_for_the_first_run_that_looks_and_for_no_other(known, take, lost):
    take(known)
    assert state_of(known).lost == ({HERE: lost} if lost else {})
    save(known)
    assert state_of(known).lost == {}


def test_what_a_killed_run_left_is_damaged_and_not_lost(known):
    for write in range(4):
        new = [a_bundle("e1", seconds=write + 2.0), a_bundle("e2", [], version=2), a_bundle("e5", ["c5"])]
        with killed_before(write):
            export_to(known, *new, run="run-2", fetched_at=STAMP.exported_at)
        state = state_of(known)
        assert (state.lost, state.executions["e1"].is_damaged) == ({}, write > 0)
    with killed_before(1):
        mark_deleted(known, {"e3": THERE}, STAMP)
    state = state_of(known)
    assert (state.lost, state.executions["e3"].is_damaged) == ({}, True)


@pytest.fixture
def crawled(dataset):
    """Of e1 the call c2 failed and c3 is deleted, e3 lies in another month, and e4 is deleted."""
    export_to(dataset, a_bundle("e1", ["c1", "c3"]), a_bundle("e2", ["d1"]), a_bundle("e4", ["f1"]))
    bundle = a_bundle("e1", ["c1", "c2"], given_up=["c2"], is_proved=False)
    export_to(dataset, replace(bundle, deleted=frozenset(["c3"])), a_bundle("e3", ["g1"], date=LATER))
    mark_deleted(dataset, {"e4": HERE}, ExportStamp("run-2", FETCHED_AT))
    return dataset


def calls_in(dataset, execution_id):
    return CallReader(dataset).read(HERE, execution_id)


def test_file_that_is_gone_or_damaged_holds_nothing(crawled, tmp_path):
    (tmp_path / part("calls")).write_bytes(b"garbage")
    assert calls_in(crawled, "e1").calls == {"c1": False, "c2": False, "c3": True}, "of which evals are left"
    (tmp_path / part("evals")).unlink()
    assert calls_in(crawled, "e1").calls == {"c2": False}, "of which a dead letter is left"
    assert calls_in(crawled, "e1").rows == {}
    (tmp_path / part("errors")).unlink()
    assert calls_in(crawled, "e1") == StoredCalls()


def test_rows_are_those_without_a_mark_in_the_order_of_the_columns(crawled):
    rows = calls_in(crawled, "e1").rows
    assert (set(rows), calls_in(crawled, "e4").rows) == ({"c1"}, {})
    values = dict(zip(schema.CALLS.names, rows["c1"], strict=True))
    assert (values["call_execution_id"], values["execution_id"], values["raw"]) == ("c1", "e1", None)
