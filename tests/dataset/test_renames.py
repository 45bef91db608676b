"""A run test that has another name at the source: all its rows take that, and none moves."""

from datetime import timedelta

import pytest

from etl.dataset.commit import mark_deleted
from etl.dataset.layout import Part
from etl.dataset.renames import find_renames, rename
from etl.dataset.state import read_state
from etl.model import schema
from etl.model.arrow import with_values
from etl.transform.frames import ExportStamp
from tests.bundles import KEY, a_bundle
from tests.datasets import FETCHED_AT, a_dataset, assert_sound, export_to, part, place, published, stored_in

OLDER, LATER = "2026-07-30", "2026-09-02"
OLD, NEW = KEY.title(), "Till"
ALL = ("e0", "e1", "e2", "e3")
HERE = Part(KEY, place())
STAMP = ExportStamp("run-2", FETCHED_AT + timedelta(days=1))


@pytest.fixture
def dataset(tmp_path):
    """Executions in three months, of which the source has lost the oldest and the newest, and another run test."""
    dataset = a_dataset(tmp_path / "data")
    export_to(dataset, a_bundle("e0", ["c0"], date=OLDER), a_bundle("e1", given_up=["c2"]), a_bundle("e2", ["c3"]))
    export_to(dataset, a_bundle("e3", ["c4"], date=LATER), a_bundle("e9", ["c9"], key="booking"))
    mark_deleted(dataset, {"e0": Part(KEY, place(OLDER)), "e3": Part(KEY, place(LATER))}, STAMP)
    return dataset


def rename_as_listed(dataset, listed, gone=(OLD,)):
    for in_part, names in find_renames(read_state(dataset, set_aside=False), listed, gone).items():
        rename(dataset, in_part, names, STAMP)


def names_in(dataset):
    """The name of each execution, which all its rows have."""
    found: dict[str, set[str]] = {}
    for table in ("executions", "calls", "evals", "errors"):
        for row in assert_sound(dataset.files.root)[table].values():
            found.setdefault(row["execution_id"], set()).add(row["run_test_name"])
    assert all(len(names) == 1 for names in found.values()), found
    return {execution_id: names.pop() for execution_id, names in found.items()}


def assert_vouched(dataset, *damaged):
    """Each execution but the damaged ones vouches for its rows."""
    assert {key for key, stored in stored_in(dataset).items() if stored.is_damaged} == {*damaged}


def test_rows_of_renamed_executions_take_the_name_where_they_lie_and_say_so(dataset, monkeypatch):
    before = assert_sound(dataset.files.root)
    paths = published(monkeypatch)
    rename(dataset, HERE, {"e1": NEW}, STAMP)
    assert paths == [part(table) for table in ("calls", "evals", "errors", "executions")]
    now = assert_sound(dataset.files.root)
    for table in ("executions", "calls", "evals", "errors"):
        changed = {"run_test_name", "calls_digest"} | ({"export_run_id", "exported_at"} if table != "errors" else set())
        # The export states are "incomplete": what was fetched since is unknown where all its rows are stamped.
        changed |= {"verified_at"} if table == "executions" else set()
        for key, row in before[table].items():
            differing = {name for name, value in row.items() if now[table][key][name] != value}
            assert differing == (changed & {*row} if row["execution_id"] == "e1" else set())
    assert now["executions"]["e1",]["exported_at"] == STAMP.exported_at
    assert_vouched(dataset)
    assert names_in(dataset) == {"e0": OLD, "e1": NEW, "e2": OLD, "e3": OLD, "e9": "Booking"}


@pytest.mark.parametrize(
    ("listed", "gone", "renamed"),
    [
        ({NEW: ["e1", "e2"]}, [OLD], dict.fromkeys(ALL, NEW)),
        ({NEW: ["e1", "e2"]}, [], dict.fromkeys(ALL, NEW)),
        ({NEW: ["e1"]}, [], {"e1": NEW}),
        ({NEW: ["e1"], "Other": ["e2"]}, [OLD], {"e1": NEW, "e2": "Other"}),
        ({NEW: ["e1"], OLD: ["e1", "e2"]}, [], {"e1": NEW}),
        ({OLD: ["e1", "e2"], NEW: ["e1", "e5"]}, [], {}),
        ({OLD: ["e9"], "Booking": ["e1", "e2"]}, [], dict.fromkeys(ALL, "Booking") | {"e9": OLD}),
        ({}, [OLD], {}),
    ],
    ids=[
        "all",
        "another one has the old name",
        "one is in no list",
        "split",
        "two lists",
        "the other way round",
        "swapped",
        "nothing is listed",
    ],
)
def test_executions_are_renamed_that_a_list_shows_under_another_name_and_deleted_ones_follow_the_living(
    dataset, listed, gone, renamed
):
    before = names_in(dataset)
    rename_as_listed(dataset, listed, gone)
    assert names_in(dataset) == before | renamed
    assert_vouched(dataset)
    assert find_renames(read_state(dataset, set_aside=False), listed, gone) == {}


def test_what_was_damaged_before_is_damaged_still(dataset):
    calls = dataset.rows(schema.CALLS, HERE)
    dataset.write(schema.CALLS, HERE, calls.slice(1))
    rename_as_listed(dataset, {NEW: ["e1", "e2"]})
    assert_vouched(dataset, "e1")


def test_rows_without_an_execution_row_take_the_name_that_lists_it(dataset):
    """Also a marked call, which no fetch replaces."""
    calls = dataset.rows(schema.CALLS, HERE)
    dataset.write(schema.CALLS, HERE, with_values(calls, {"deleted_at": {"e1": FETCHED_AT}}))
    (dataset.files.root / part("executions")).unlink()
    rename_as_listed(dataset, {NEW: ["e1"]}, gone=())
    assert "replaced" not in dataset.receipt.executions[KEY], "its row is still to come"
    assert names_in(dataset) == {"e0": OLD, "e1": NEW, "e2": OLD, "e3": OLD, "e9": "Booking"}
