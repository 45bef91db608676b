"""A call that moved to another execution is removed from where it was, and the execution that it left vouches for the rest."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from etl.errors import DestinationError
from etl.extract.plan import Reason
from etl.load.doubled_calls import find_doubled_calls, remove_calls
from etl.load.index import Index, update_index
from etl.load.layout import Part
from etl.model.records import RUNS
from etl.transform.frames import ExportStamp
from tests.bundles import KEY, a_bundle, dead_letter
from tests.datasets import FETCHED_AT, assert_sound, export_to, part, place, published, reasons, rows, stored_in

NEXT_DAY = "2026-09-02"
STAMP = ExportStamp("run-3", datetime(2026, 11, 9, tzinfo=UTC))
HERE = Part(KEY, place())


def exported(dataset, *bundles, days=0):
    export_to(dataset, *bundles, run=f"run-{days}", fetched_at=FETCHED_AT + timedelta(days=days))


def doubled_in(dataset, moved=None):
    return find_doubled_calls(dataset, update_index(dataset, Index(), []), moved or {}, now=STAMP.exported_at)


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
    left, taker = ("e2", "e1") if is_moved_back else ("e1", "e2")
    found_reasons = reasons(dataset, old) | reasons(dataset, new, key=elsewhere.get("key", KEY))
    assert {left: found_reasons[left], taker: found_reasons[taker]} == {left: Reason.SETTLING, taker: Reason.FINAL}


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
    assert reasons(dataset, a_bundle("e1", ["c1"]))["e1"] is Reason.SETTLING


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


MOVED = {("e1", "c2"): "e2"}


def without_moved(given_up=(), of_list=("c2",)):
    """``e1`` once its list lacks its call ``c2``, which named another execution."""
    letters = [dead_letter(call_id, endpoint=RUNS) for call_id in of_list]
    bundle = a_bundle("e1", ["c1", *given_up], given_up=given_up)
    return structs.replace(bundle, dead_letters=(*bundle.dead_letters, *letters))


@pytest.mark.parametrize("elsewhere", [{"key": "booking"}, {}])
@pytest.mark.parametrize("is_owner_first", [False, True])
def test_call_that_names_its_new_place_goes_with_its_dead_letter_once_it_is_there(
    dataset, tmp_path, elsewhere, *, is_owner_first
):
    exported(dataset, a_bundle("e1", ["c1", "c2"]))
    owner = a_bundle("e2", ["c2"], **elsewhere)
    if is_owner_first:
        exported(dataset, owner, days=1)
    exported(dataset, without_moved(), days=2)
    assert reasons(dataset, a_bundle("e1"))["e1"] is Reason.INCOMPLETE
    assert is_owner_first or doubled_in(dataset, MOVED) == {}, "nobody else has it"
    exported(dataset, owner, days=3)
    assert doubled_in(dataset, MOVED) == {HERE: {"e1": {"c2"}}}

    assert remove_calls(dataset, HERE, {"e1": {"c2"}}, STAMP) == {"e1": {"c2"}}

    found = assert_sound(tmp_path)
    assert {call: row["execution_id"] for (call,), row in found["calls"].items()} == {"c1": "e1", "c2": "e2"}
    assert not found["errors"]
    [counts] = [
        (row["listed_calls"], row["exported_calls"]) for (key,), row in found["executions"].items() if key == "e1"
    ]
    assert counts == (1, 1)
    assert reasons(dataset, a_bundle("e1"))["e1"] is Reason.SETTLING


def test_dead_letter_of_a_call_whose_rows_are_gone_already_goes(dataset, tmp_path):
    """A commit of both executions keeps the newer row of the two alone, where they lie in one file."""
    exported(dataset, a_bundle("e1", ["c1", "c2"]))
    exported(dataset, without_moved(), a_bundle("e2", ["c2"]), days=1)
    assert doubled_in(dataset, MOVED) == {HERE: {"e1": {"c2"}}}
    remove_calls(dataset, HERE, {"e1": {"c2"}}, STAMP)
    assert not assert_sound(tmp_path)["errors"]
    assert reasons(dataset, a_bundle("e1"))["e1"] is Reason.SETTLING


def test_call_that_names_its_place_stays_there_though_another_one_is_newer(dataset):
    exported(dataset, a_bundle("e2", ["c2"], key="booking"))
    exported(dataset, a_bundle("e1", ["c1", "c2"]), days=1)
    assert doubled_in(dataset) == {Part("booking", place()): {"e2": {"c2"}}}
    assert doubled_in(dataset, MOVED) == {HERE: {"e1": {"c2"}}}


@pytest.mark.parametrize("lacking", [{"given_up": ("c3",)}, {"of_list": ("c2", "c4")}])
def test_execution_that_lacks_something_else_stays_incomplete(dataset, lacking):
    exported(dataset, a_bundle("e1", ["c1", "c2", "c4"]))
    exported(dataset, without_moved(**lacking), a_bundle("e2", ["c2"], key="booking"), days=1)
    assert remove_calls(dataset, HERE, {"e1": {"c2"}}, STAMP) == {"e1": {"c2"}}
    assert reasons(dataset, a_bundle("e1"))["e1"] is Reason.INCOMPLETE
    assert stored_in(dataset)["e1"].has_letters
