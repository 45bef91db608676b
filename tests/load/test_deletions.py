"""What the source no longer has is marked in all tables, execution rows last, and nothing else is touched."""

from datetime import timedelta

import pytest

from etl.load.commit import mark_deleted
from etl.load.layout import Part
from etl.load.state import load_state
from etl.transform.frames import ExportStamp
from tests.bundles import KEY, a_bundle
from tests.datasets import FETCHED_AT, a_dataset, assert_sound, export_to, part, place, published, stored_in
from tests.load.killed import finished_after_each_kill, killed_before

LATER = "2026-09-02"
HERE, THERE = Part(KEY, place()), Part(KEY, place(LATER))
DELETED = {"e1": HERE, "e3": THERE}
STAMP = ExportStamp("run-2", FETCHED_AT + timedelta(days=1))
TOLD = {"export_run_id": STAMP.export_run_id, "exported_at": STAMP.exported_at}


@pytest.fixture
def dataset(tmp_path):
    """Two executions in each of two months, with a dead letter each."""
    dataset = a_dataset(tmp_path / "data")
    for number, date in enumerate(["2026-08-01", "2026-08-01", LATER, LATER], 1):
        calls = [f"c{number}", f"d{number}"]
        export_to(dataset, a_bundle(f"e{number}", calls, given_up=calls[1:], date=date))
    return dataset


def sound_rows(dataset):
    return assert_sound(dataset.files.root)


def marked_by_hand(before):
    """Rows as they are when e1 and e3 are marked, but for the digests."""
    expected = {table: dict(rows) for table, rows in before.items()}
    for table in ("executions", "calls", "evals"):
        for key, row in before[table].items():
            if row["execution_id"] in DELETED:
                expected[table][key] = row | TOLD | {"deleted_at": STAMP.exported_at}
    expected["errors"] = {key: row for key, row in before["errors"].items() if row["execution_id"] not in DELETED}
    for row in (expected["executions"][each,] for each in DELETED):
        row |= {"calls_digest": None, "exported_calls": 0}
    return expected


def without_digests(rows):
    executions = {
        key: row | {"calls_digest": None} if row["execution_id"] in DELETED else row
        for key, row in rows["executions"].items()
    }
    return rows | {"executions": executions}


def test_deleted_executions_are_marked_with_calls_and_evals_and_vouch_for_that(dataset, monkeypatch):
    before = sound_rows(dataset)
    paths = published(monkeypatch)
    assert mark_deleted(dataset, DELETED, STAMP) == 2
    tables = ("calls", "evals", "errors", "executions")
    assert paths == [part(table, date=date) for date in ("2026-08-01", LATER) for table in tables]
    assert without_digests(sound_rows(dataset)) == marked_by_hand(before)
    assert not any(each.is_damaged for each in stored_in(dataset).values())
    assert +dataset.written.marked == {"calls": 2, "evals": 4}
    assert dataset.receipt.as_json()["executions"][KEY]["marked"] == 2


def test_what_is_marked_is_not_marked_again(dataset, monkeypatch):
    mark_deleted(dataset, DELETED, STAMP)
    paths = published(monkeypatch)
    assert mark_deleted(dataset, DELETED, ExportStamp("run-3", FETCHED_AT + timedelta(days=2))) == 0
    assert paths == []


def test_whenever_it_is_killed_the_next_run_completes_it(dataset, tmp_path):
    expected = marked_by_hand(sound_rows(dataset))
    for again in finished_after_each_kill(
        dataset.files.root, tmp_path, lambda each: mark_deleted(each, DELETED, STAMP)
    ):
        assert without_digests(sound_rows(again)) == expected
        state = load_state(again, set_aside=False)
        assert not any(each.is_damaged for each in state.executions.values())
        assert (state.half_deleted, [each for each in state.executions.values() if not each.has_row]) == (set(), [])


def test_rows_without_an_execution_are_marked_until_no_look_up_is_due(dataset, tmp_path):
    """A run was killed before the execution row, and the source deleted it since."""
    with killed_before(3):
        export_to(dataset, a_bundle("e5", ["c5", "d5"], given_up=["d5"]))
    state = load_state(dataset, set_aside=False)
    assert (state.part_of("e5"), state.executions["e5"].has_row, state.executions["e5"].deleted_at) == (
        HERE,
        False,
        None,
    )
    assert mark_deleted(dataset, {"e5": HERE}, STAMP) == 0
    state = load_state(dataset, set_aside=False)
    assert state.executions["e5"].deleted_at is not None
    assert {row["deleted_at"] for row in sound_rows(dataset)["calls"].values() if row["execution_id"] == "e5"} == {
        STAMP.exported_at
    }


def test_damaged_execution_vouches_for_what_is_left_of_it_once_it_is_marked(dataset):
    """Nobody can fetch again what the source has no more."""
    (dataset.files.root / part("calls")).unlink()
    assert stored_in(dataset)["e1"].is_damaged
    mark_deleted(dataset, {"e1": HERE}, STAMP)
    stored = stored_in(dataset)
    assert (stored["e1"].is_damaged, stored["e2"].is_damaged) == (False, True)
    assert stored["e1"].deleted_at == STAMP.exported_at
