"""A call that moved to another execution is removed from where it was, and the execution that it left vouches for the rest."""

from datetime import UTC, datetime, timedelta

import pytest

from etl.errors import DestinationError
from etl.extract.plan import Reason
from etl.load.doubled_calls import find_doubled_calls, remove_calls
from etl.load.index import Index, update_index
from etl.load.layout import Part
from etl.transform.frames import ExportStamp
from tests.bundles import KEY, a_bundle
from tests.datasets import FETCHED_AT, assert_sound, export_to, part, place, published, reasons, rows

NEXT_DAY = "2026-09-02"
STAMP = ExportStamp("run-3", datetime(2026, 11, 9, tzinfo=UTC))
HERE = Part(KEY, place())


def exported(dataset, *bundles, days=0):
    export_to(dataset, *bundles, run=f"run-{days}", fetched_at=FETCHED_AT + timedelta(days=days))


def doubled_in(dataset):
    return find_doubled_calls(dataset, update_index(dataset, Index(), []), now=STAMP.exported_at)


def remove_all(dataset):
    for partition, calls in doubled_in(dataset).items():
        remove_calls(dataset, partition, calls, STAMP)


def test_no_call_is_doubled_in_a_sound_dataset(dataset):
    assert doubled_in(dataset) == {}
    exported(dataset, a_bundle("e1"), a_bundle("e2", ["c3"], key="booking"))
    assert doubled_in(dataset) == {}


@pytest.mark.parametrize("elsewhere", [{"key": "booking"}, {"date": NEXT_DAY}, {}])
@pytest.mark.parametrize("is_moved_back", [False, True])
def test_call_goes_from_where_it_is_older(dataset, tmp_path, elsewhere, *, is_moved_back):
    old, new = a_bundle("e1", ["c1", "c2"]), a_bundle("e2", ["c2", "c3"], **elsewhere)
    exported(dataset, new if is_moved_back else old)
    exported(dataset, old if is_moved_back else new, days=1)

    remove_all(dataset)

    found = assert_sound(tmp_path)
    places = {call: row["execution_id"] for (call,), row in found["calls"].items()}
    assert places == {"c1": "e1", "c2": "e1" if is_moved_back else "e2", "c3": "e2"}
    assert {key[0]: row["execution_id"] for key, row in found["evals"].items()} == places
    counts = {key: (row["listed_calls"], row["exported_calls"]) for (key,), row in found["executions"].items()}
    assert counts == ({"e1": (2, 2), "e2": (1, 1)} if is_moved_back else {"e1": (1, 1), "e2": (2, 2)})
    assert doubled_in(dataset) == {}
    assert reasons(dataset, old)["e1"] is Reason.FINAL
    assert reasons(dataset, new, key=elsewhere.get("key", KEY))["e2"] is Reason.FINAL


def test_execution_that_is_left_says_that_it_changed_and_the_others_do_not(dataset, tmp_path):
    exported(dataset, a_bundle("e1", ["c1"]), a_bundle("other", ["c9"]))
    exported(dataset, a_bundle("e2", ["c1"], key="booking"), days=1)

    remove_all(dataset)

    assert dict(rows(tmp_path, "executions", "execution_id", "export_run_id")) == {
        "e1": "run-3",
        "e2": "run-1",
        "other": "run-0",
    }


def test_call_that_was_the_last_of_its_file_takes_the_file_with_it(dataset, tmp_path):
    exported(dataset, a_bundle("e1", ["c1"]))
    exported(dataset, a_bundle("e2", ["c1"], key="booking"), days=1)
    remove_all(dataset)
    assert not (tmp_path / part("calls")).exists()
    assert reasons(dataset, a_bundle("e1", ["c1"]))["e1"] is Reason.FINAL


def test_execution_in_two_places_is_not_taken_for_a_call_in_two_executions(dataset):
    """A move of the execution that was cut short; the next survey sees to it."""
    exported(dataset, a_bundle("e1"))
    exported(dataset, a_bundle("e1", key="booking"), days=1)
    assert doubled_in(dataset) == {}


def test_damaged_file_is_left_to_those_who_need_it(dataset, tmp_path):
    exported(dataset, a_bundle("e1", ["c1"]))
    exported(dataset, a_bundle("e3", ["c1"], date=NEXT_DAY, key="third"))
    exported(dataset, a_bundle("e2", ["c1"], key="booking"), days=1)
    (tmp_path / part("calls")).write_bytes(b"garbage")
    assert doubled_in(dataset) == {Part("third", place(NEXT_DAY)): {"e3": {"c1"}}}


@pytest.mark.parametrize("elsewhere", [{"key": "booking"}, {}])
def test_evals_that_a_lost_file_of_calls_left_behind_do_not_stand_twice(dataset, tmp_path, elsewhere):
    exported(dataset, a_bundle("e1", ["c1", "c2"]))
    (tmp_path / part("calls")).unlink()
    exported(dataset, a_bundle("e2", ["c1"], **elsewhere), days=1)
    assert doubled_in(dataset) == {HERE: {"e1": {"c1"}}}
    remove_all(dataset)
    found = assert_sound(tmp_path)["evals"]
    assert {key[0]: row["execution_id"] for key, row in found.items()} == {"c1": "e2", "c2": "e1"}
    assert reasons(dataset, a_bundle("e1", ["c1", "c2"]))["e1"] is Reason.DAMAGED


@pytest.mark.parametrize("failing", ["calls", "evals", "executions"])
def test_removal_that_is_cut_short_is_noticed(dataset, monkeypatch, failing):
    """Whatever was written by then, the execution is fetched again or the call is still found."""
    exported(dataset, a_bundle("e1", ["c1", "c2"]))
    exported(dataset, a_bundle("e2", ["c2"], key="booking"), days=1)
    with monkeypatch.context() as patched:
        published(patched, failing)
        with pytest.raises(DestinationError):
            remove_all(dataset)
    is_found = doubled_in(dataset) == {HERE: {"e1": {"c2"}}}
    assert is_found or reasons(dataset, a_bundle("e1", ["c1", "c2"]))["e1"] is Reason.DAMAGED


def test_execution_that_was_damaged_is_so_afterwards(dataset, tmp_path):
    exported(dataset, a_bundle("e1", ["c1", "c2"]))
    exported(dataset, a_bundle("e2", ["c2"], key="booking"), days=1)
    (tmp_path / part("evals")).unlink()
    remove_all(dataset)
    assert reasons(dataset, a_bundle("e1", ["c1", "c2"]))["e1"] is Reason.DAMAGED


def test_time_that_has_not_come_yet_is_not_the_newest(dataset):
    exported(dataset, a_bundle("e1", ["c1"]), days=400)
    exported(dataset, a_bundle("e2", ["c1"], key="booking"), days=1)
    assert doubled_in(dataset) == {HERE: {"e1": {"c1"}}}
