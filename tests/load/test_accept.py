"""What is left of executions is believed: their rows vouch for it, and no list is thought to say the same as before."""

import pytest

from etl.load.accept import accept_damaged
from etl.load.identity import identify
from etl.load.index import Index, read_index, update_index, write_index
from etl.transform.frames import ExportStamp
from tests.bundles import KEY, a_bundle
from tests.datasets import FETCHED_AT, export_to, part, rows, stored_in

STAMP = ExportStamp("run-2", FETCHED_AT)


@pytest.fixture
def dataset(dataset):
    """A run test, and another one."""
    identify(dataset.files, FETCHED_AT)
    export_to(dataset, a_bundle("e1", ["c1", "c2"]), a_bundle("e2", ["c3"], date="2026-09-02"))
    export_to(dataset, a_bundle("e3", ["c4"], key="booking"))
    return dataset


def index_of(dataset):
    return update_index(dataset, Index(), [])


def test_row_vouches_for_what_is_left(dataset):
    dataset.files.remove(part("calls"))
    index = index_of(dataset)
    damaged = index.damaged()
    accept_damaged(dataset, index, damaged, STAMP)

    known = stored_in(dataset)["e1"]
    assert "e1" in damaged[KEY]
    assert (known.is_damaged, known.held.exported_calls, known.held.listed_calls, known.fingerprint) == (
        False,
        0,
        0,
        "",
    )
    assert index_of(dataset).damaged() == {}


def test_other_run_tests_stay_as_they_are(dataset):
    dataset.files.remove(part("calls"))
    dataset.files.remove(part("calls", "booking"))
    index = index_of(dataset)
    accept_damaged(dataset, index, {KEY: {"e1"}}, STAMP)
    assert index_of(dataset).damaged()["booking"] == {"e3"}


def test_calls_without_their_execution_are_noted_until_it_is_back_or_they_are_gone(dataset):
    row = dataset.files.read(part("executions"))
    dataset.files.remove(part("executions"))
    index = index_of(dataset)
    damaged = index.damaged()
    calls = len(rows(dataset.files.root, "calls", "execution_id"))
    accept_damaged(dataset, index, damaged, STAMP)
    write_index(dataset.files, index)

    accepted = update_index(dataset, read_index(dataset.files), [])
    assert (accepted.damaged(), {key: {*ids} for key, ids in accepted.accepted.items()}) == ({}, damaged)
    assert 0 < accepted.accepted_calls(KEY) < calls
    assert accepted.accepted_calls("booking") == 0
    dataset.files.publish(part("executions"), row)
    assert update_index(dataset, accepted, []).accepted == {}
    for table in ("executions", "calls", "evals"):
        dataset.files.remove(part(table))
    assert update_index(dataset, accepted, []).accepted == {}


def test_execution_that_is_whole_in_another_part_is_not_damaged(dataset):
    """A move that was killed while it removed what it had copied."""
    kept = {table: dataset.files.read(part(table)) for table in ("executions", "calls", "evals")}
    for table, data in kept.items():
        dataset.files.publish(part(table, date="2027-01-01"), data)
    for table in ("calls", "evals"):
        dataset.files.remove(part(table))
        assert index_of(dataset).damaged() == {}
    dataset.files.remove(part("calls", date="2027-01-01"))
    assert "e1" in index_of(dataset).damaged()[KEY]


def test_execution_that_says_to_be_incomplete_is_damaged_only_if_it_lacks_what_was_exported(dataset):
    export_to(dataset, a_bundle("e1", ["c1", "c2"], given_up=["c9"]))
    assert index_of(dataset).damaged() == {}
    dataset.files.remove(part("calls"))
    assert "e1" in index_of(dataset).damaged()[KEY]
