"""Stored rows that change without new data: moved to another run test or name, deleted at the source."""

from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.errors import DestinationError
from etl.extract.plan import Reason
from etl.load.layout import Part
from etl.load.merge import with_column
from etl.load.receipt import Receipt
from etl.load.relocate import (
    as_if_dropped,
    as_if_moved,
    drop,
    find_doubled,
    find_moves,
    find_untold,
    mark_deleted,
    move,
    renew,
    surplus,
)
from etl.load.state import forget_the_future, load_state
from etl.model import schema
from etl.transform.frames import ExportStamp
from tests.bundles import KEY, a_bundle, an_unlisted_bundle
from tests.datasets import (
    FETCHED_AT,
    a_dataset,
    contents,
    export_to,
    part,
    place,
    published,
    reasons,
    rows,
    stored_in,
    wrong_schemas,
)

OTHER = "booking"
LATER = FETCHED_AT + timedelta(hours=1)
MOVED = ExportStamp("run-9", FETCHED_AT + timedelta(days=7))
TABLES = ["calls", "evals", "errors", "executions"]


def found(dataset, *keys, **listed):
    state = load_state(dataset, keys or [KEY, OTHER], set_aside=False)
    return find_moves(state, listed, {key: key.title() for key in listed})


def move_to_other(dataset, *execution_ids, source=KEY):
    move(dataset, Part(source, place()), OTHER, set(execution_ids), run_test_name="Booking", stamp=MOVED)


def settle(dataset, **listed):
    """Let every execution lie in one place, the right one, as a run does."""
    state = load_state(dataset, [KEY, OTHER, "third"], set_aside=False)
    drops = surplus(find_doubled(state), state, listed)
    as_if_dropped(state, drops)
    for partition, execution_ids in drops.items():
        drop(dataset, partition, execution_ids)
    for (source, key), execution_ids in find_moves(state, listed, {key: key.title() for key in listed}).items():
        move(dataset, source, key, execution_ids, run_test_name=key.title(), stamp=MOVED)


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.parquet"))


def test_nothing_moves_while_every_execution_is_listed_where_it_lies(dataset):
    export_to(dataset, a_bundle("e1"), a_bundle("e9", ["c9"], key=OTHER))
    assert found(dataset, checkout=["e1", "new"], booking=["e9"]) == {}


@pytest.mark.parametrize("keys", [[KEY, OTHER], [OTHER]], ids=["both run tests exported", "the old one not any more"])
def test_execution_that_another_run_test_lists_moves_there(dataset, keys):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"], date="2026-09-02"), a_bundle("e3", ["c4"]))
    assert found(dataset, *keys, booking=["e1", "e2"]) == {
        (Part(KEY, place()), OTHER): {"e1"},
        (Part(KEY, place("2026-09-02")), OTHER): {"e2"},
    }


def test_execution_whose_run_test_has_another_name_now_moves_within_its_partition(dataset):
    export_to(dataset, a_bundle("e1"))
    state = load_state(dataset, [KEY], set_aside=False)
    assert find_moves(state, {KEY: ["e1"]}, {KEY: "Checkout II"}) == {(Part(KEY, place()), KEY): {"e1"}}


def test_moved_execution_is_what_an_export_to_its_new_place_would_have_made_it(tmp_path):
    moved, direct = a_dataset(tmp_path / "moved"), a_dataset(tmp_path / "direct")
    export_to(moved, a_bundle("e1", given_up=["c2"]), a_bundle("e2", ["c3"]))
    move_to_other(moved, "e1", "e2")
    export_to(direct, a_bundle("e1", given_up=["c2"], key=OTHER), a_bundle("e2", ["c3"], key=OTHER))
    assert contents(tmp_path / "moved") == contents(tmp_path / "direct")
    assert files(tmp_path / "moved") == files(tmp_path / "direct"), "nothing is left of the old place"
    assert wrong_schemas(tmp_path / "moved") == []
    assert reasons(moved, a_bundle("e2", ["c3"]), key=OTHER) == {"e2": Reason.FINAL}


@pytest.mark.parametrize(("exported", "unlisted"), [([], None), ([a_bundle("e1", version=2)], 0)], ids=["new", "known"])
def test_list_of_calls_that_is_not_believed_is_not_believed_after_the_move(dataset, tmp_path, exported, unlisted):
    export_to(dataset, *exported)
    export_to(dataset, a_bundle("e1", version=9, is_proved=False))
    for _ in range(2):
        assert rows(tmp_path, "executions", "total_calls", "listed_calls", "unlisted_calls") == [(9, 2, unlisted)]
        move_to_other(dataset, "e1")


def test_only_the_executions_that_move_leave_their_partition(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"]), a_bundle("e9", ["c9"], key=OTHER))
    move_to_other(dataset, "e1")
    assert stored_in(dataset).keys() == {"e2"}
    assert stored_in(dataset, OTHER).keys() == {"e1", "e9"}
    assert reasons(dataset, a_bundle("e2", ["c3"])) == {"e2": Reason.FINAL}
    assert rows(tmp_path, "calls", "run_test_name") == [("Booking",), ("Booking",), ("Checkout",), ("Booking",)]


def test_another_name_within_the_same_partition_changes_the_name_alone(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"), an_unlisted_bundle("e2", status="running"))
    move(dataset, Part(KEY, place()), KEY, {"e1"}, run_test_name="Checkout II", stamp=MOVED)
    assert rows(tmp_path, "executions", "execution_id", "run_test_name") == [("e1", "Checkout II"), ("e2", "Checkout")]
    assert rows(tmp_path, "evals", "run_test_name") == [("Checkout II",), ("Checkout II",)]
    assert reasons(dataset, a_bundle("e1")) == {"e1": Reason.FINAL}
    renamed = load_state(dataset, [KEY], set_aside=False)
    assert find_moves(renamed, {KEY: ["e1"]}, {KEY: "Checkout II"}) == {}


def test_execution_that_was_damaged_is_so_after_the_move(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    (tmp_path / part("evals")).unlink()
    move_to_other(dataset, "e1")
    assert reasons(dataset, a_bundle("e1"), key=OTHER) == {"e1": Reason.DAMAGED}


def test_rename_that_was_cut_short_between_calls_and_evals_is_completed_and_nothing_is_damaged(
    dataset, tmp_path, monkeypatch
):
    export_to(dataset, a_bundle("e1"))
    published(monkeypatch, failing="evals")
    with pytest.raises(DestinationError):
        move(dataset, Part(KEY, place()), KEY, {"e1"}, run_test_name="Checkout II", stamp=MOVED)
    monkeypatch.undo()
    names = {table: set(rows(tmp_path, table, "run_test_name")) for table in ("calls", "executions")}
    assert names == {"calls": {("Checkout II",)}, "executions": {("Checkout",)}}
    move(dataset, Part(KEY, place()), KEY, {"e1"}, run_test_name="Checkout II", stamp=MOVED)
    assert reasons(dataset, a_bundle("e1")) == {"e1": Reason.FINAL}


def test_execution_with_a_wrong_row_hash_is_still_damaged_after_the_move(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    calls = pq.ParquetFile(tmp_path / part("calls")).read()
    pq.write_table(with_column(calls, "row_hash", ["wrong"] * len(calls)), tmp_path / part("calls"))
    move_to_other(dataset, "e1")
    assert reasons(dataset, a_bundle("e1"), key=OTHER) == {"e1": Reason.DAMAGED}


@pytest.mark.parametrize("others", [[], [a_bundle("e9", ["c9"], key=OTHER)]], ids=["new", "old"])
def test_row_that_stands_twice_by_whoevers_hand_moves_once(dataset, tmp_path, others):
    export_to(dataset, a_bundle("e1"), *others)
    for table in ("calls", "executions"):
        path = tmp_path / part(table)
        once = pq.ParquetFile(path).read()
        pq.write_table(pa.concat_tables([once, once]), path)
    move_to_other(dataset, "e1")
    assert rows(tmp_path, "calls", "call_execution_id") == [("c1",), ("c2",), *[("c9",)] * len(others)]
    assert rows(tmp_path, "executions", "execution_id") == [("e1",), *[("e9",)] * len(others)]
    assert reasons(dataset, a_bundle("e1"), key=OTHER) == {"e1": Reason.DAMAGED}


@pytest.mark.parametrize("newer", [KEY, OTHER])
@pytest.mark.parametrize("listed", [{KEY: ["e1"]}, {OTHER: ["e1"]}, {"third": ["e1"]}, {}], ids=str)
def test_of_an_execution_that_lies_in_two_places_the_one_counts_that_was_written_last(dataset, tmp_path, newer, listed):
    older = ({KEY, OTHER} - {newer}).pop()
    export_to(dataset, a_bundle("e1", seconds=2.0, key=newer), run="run-2", fetched_at=LATER)
    export_to(dataset, a_bundle("e1", seconds=1.0, key=older))
    settle(dataset, **listed)
    assert rows(tmp_path, "calls", "duration_seconds") == [(2.0,), (2.0,)]
    assert {path.split("/")[1] for path in files(tmp_path)} == {f"run_test={next(iter(listed), newer)}"}


@pytest.mark.parametrize("cut", [KEY, OTHER])
@pytest.mark.parametrize("home", [KEY, OTHER, "third"])
def test_two_moves_that_were_cut_short_cost_no_call(dataset, tmp_path, cut, home):
    """The first was killed when it had taken the calls from its source, the second before it began."""
    for key in (KEY, OTHER):
        export_to(dataset, a_bundle("e1", key=key))
    for table in ("calls", "evals"):
        dataset.remove(schema.TABLES[table], Part(cut, place()))
    settle(dataset, **{home: ["e1"]})
    assert len(rows(tmp_path, "calls", "call_execution_id")) == 2
    assert {path.split("/")[1] for path in files(tmp_path)} == {f"run_test={home}"}
    assert not stored_in(dataset, home)["e1"].is_damaged


@pytest.mark.parametrize("step", range(4))
def test_a_move_that_fails_at_any_table_loses_nothing_and_is_completed_by_the_next(tmp_path, monkeypatch, step):
    dataset, whole = a_dataset(tmp_path / "data"), a_dataset(tmp_path / "whole")
    export_to(dataset, a_bundle("e1", given_up=["c2"]))
    export_to(whole, a_bundle("e1", given_up=["c2"], key=OTHER))
    before = {path: (tmp_path / "data" / path).read_bytes() for path in files(tmp_path / "data")}
    published(monkeypatch, failing=TABLES[step])
    with pytest.raises(DestinationError):
        move_to_other(dataset, "e1")
    monkeypatch.undo()
    assert all((tmp_path / "data" / path).read_bytes() == content for path, content in before.items())
    settle(dataset, booking=["e1"])
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")
    assert found(dataset, booking=["e1"]) == {}


@pytest.mark.parametrize("step", range(4))
def test_a_removal_that_fails_at_any_table_is_completed_by_the_next(tmp_path, monkeypatch, step):
    dataset, whole = a_dataset(tmp_path / "data"), a_dataset(tmp_path / "whole")
    export_to(dataset, a_bundle("e1", given_up=["c2"]))
    export_to(whole, a_bundle("e1", given_up=["c2"], key=OTHER))
    remove, left = type(dataset).remove, iter(range(step))

    def fail_at_step(self, table, partition):
        if next(left, None) is None:
            raise DestinationError("no")
        remove(self, table, partition)

    monkeypatch.setattr(type(dataset), "remove", fail_at_step)
    with pytest.raises(DestinationError):
        move_to_other(dataset, "e1")
    monkeypatch.undo()
    settle(dataset, booking=["e1"])
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")


def test_a_plan_sees_the_executions_where_they_would_lie(dataset):
    export_to(dataset, a_bundle("e1"))
    state = load_state(dataset, [KEY, OTHER], set_aside=False)
    as_if_moved(state, find_moves(state, {OTHER: ["e1"]}, {OTHER: "Booking"}))
    assert (set(state.executions[KEY]), set(state.executions[OTHER])) == (set(), {"e1"})
    assert not state.executions[OTHER]["e1"].is_damaged


def test_deleted_execution_keeps_everything_but_says_when(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"]))
    before, later = stored_in(dataset), FETCHED_AT + timedelta(days=1)
    mark_deleted(dataset, Part(KEY, place()), {"e1"}, deleted_at=later, stamp=ExportStamp("run-2", later))
    assert stored_in(dataset) == {
        "e1": replace(before["e1"], deleted_at=later, exported_at=later),
        "e2": before["e2"],
    }
    assert rows(tmp_path, "executions", "export_run_id") == [("run-2",), ("run-1",)]
    assert wrong_schemas(tmp_path) == []


def written_by(root, table):
    """Which run wrote each row, by key of the row."""
    return dict(zip(rows(root, table, *schema.TABLES[table].key), rows(root, table, "export_run_id"), strict=True))


@pytest.mark.parametrize(("key", "name"), [(OTHER, "Booking"), (KEY, "Checkout II")], ids=["to another", "renamed"])
def test_all_rows_of_an_execution_that_moved_are_of_the_run_that_moved_it(dataset, tmp_path, key, name):
    export_to(dataset, a_bundle("e1", given_up=["c2"]), a_bundle("e2", ["c3"]))
    before = stored_in(dataset)["e1"]
    move(dataset, Part(KEY, place()), key, {"e1"}, run_test_name=name, stamp=MOVED)
    assert stored_in(dataset, key)["e1"].exported_at == MOVED.exported_at
    assert stored_in(dataset, key)["e1"].verified_at == before.verified_at, "a move verifies nothing"
    assert rows(tmp_path, "executions", "exported_at", "export_run_id") == [
        (MOVED.exported_at, "run-9"),
        (FETCHED_AT, "run-1"),
    ]
    assert written_by(tmp_path, "calls") == {("c1",): ("run-9",), ("c3",): ("run-1",)}
    assert written_by(tmp_path, "evals") == {
        ("c1", "tone"): ("run-9",),
        ("c2", "tone"): ("run-9",),
        ("c3", "tone"): ("run-1",),
    }
    assert set(written_by(tmp_path, "errors").values()) == {("run-9",)}
    assert dataset.receipt.as_json()["executions"][key]["moved"] == 1


def test_of_two_copies_that_a_move_left_the_one_stays_that_is_whole(dataset, tmp_path):
    """The API may not have its calls any more."""
    export_to(dataset, a_bundle("e1"))
    old = {table: dataset.files.read(part(table)) for table in ("calls", "evals", "executions")}
    move_to_other(dataset, "e1")
    for table, data in old.items():
        dataset.files.publish(part(table), bytes(data))
    dataset.remove(schema.CALLS, Part(OTHER, place()))
    settle(dataset, booking=["e1"])
    assert len(rows(tmp_path, "calls", "call_execution_id")) == 2
    assert not stored_in(dataset, OTHER)["e1"].is_damaged


def test_what_stays_of_an_execution_tells_that_something_went(dataset):
    export_to(dataset, a_bundle("e1"), a_bundle("e1", key=OTHER), a_bundle("e2", ["c3"]))
    state = load_state(dataset, [KEY, OTHER], set_aside=False)
    drops = surplus(find_doubled(state), state, {KEY: ["e1", "e2"]})
    as_if_dropped(state, drops)
    assert find_untold(state, drops.items()) == {Part(KEY, place()): {"e1"}}
    dataset.receipt = Receipt()
    renew(dataset, Part(KEY, place()), {"e1", "gone"}, MOVED)
    assert {each: known.exported_at for each, known in stored_in(dataset).items()} == {
        "e1": MOVED.exported_at,
        "e2": FETCHED_AT,
    }
    assert dataset.receipt.as_json()["executions"][KEY]["replaced"] == 1


def test_what_a_killed_commit_left_is_told_though_nothing_else_shows_it(dataset, tmp_path, monkeypatch):
    """Calls that were lost are fetched again, and say the same; the run dies before it writes the execution's row."""
    bundles = [a_bundle("e1"), a_bundle("e2", ["c3"], date="2026-09-02")]
    export_to(dataset, *bundles)
    (tmp_path / part("calls")).unlink()
    published(monkeypatch, failing="executions")
    with pytest.raises(DestinationError):
        export_to(dataset, *bundles, run="run-2", fetched_at=LATER)
    monkeypatch.undo()

    state = load_state(dataset, [KEY], set_aside=False)
    assert not any(known.is_damaged for known in state.executions[KEY].values())
    assert state.late == {Part(KEY, place()): {"e1": LATER}}
    assert find_untold(state, []) == {Part(KEY, place()): {"e1"}}
    forget_the_future(state, FETCHED_AT)
    assert find_untold(state, []) == {}, "a clock that was wrong tells nothing"
