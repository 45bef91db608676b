"""What the dataset holds of calls, as a crawl asks for it."""

import pytest
from msgspec.structs import replace

from etl.load.commit import mark_deleted
from etl.load.layout import Part
from etl.load.merge import mark
from etl.load.state import StoredCalls
from etl.model import schema
from etl.transform.frames import ExportStamp
from tests.bundles import KEY, a_bundle
from tests.datasets import FETCHED_AT, export_to, part, place

HERE, THERE = Part(KEY, place()), Part(KEY, place("2026-09-02"))


@pytest.fixture
def dataset(dataset):
    """Of e1 the call c2 failed and c3 is deleted, e3 lies in another month, and e4 is deleted."""
    export_to(dataset, a_bundle("e1", ["c1", "c3"]), a_bundle("e2", ["d1"]), a_bundle("e4", ["f1"]))
    bundle = a_bundle("e1", ["c1", "c2"], given_up=["c2"], is_proved=False)
    export_to(dataset, replace(bundle, deleted=frozenset(["c3"])), a_bundle("e3", ["g1"], date="2026-09-02"))
    mark_deleted(dataset, {"e4": HERE}, ExportStamp("run-2", FETCHED_AT))
    return dataset


def test_calls_are_those_of_which_anything_lies_in_the_part_and_whether_all_of_it_is_marked(dataset):
    stored = StoredCalls(dataset)
    found = [stored.calls(HERE, each) for each in ("e1", "e2", "e3", "e4")]
    assert found == [{"c1": False, "c2": False, "c3": True}, {"d1": False}, {}, {"f1": True}]
    assert stored.calls(THERE, "e3") == {"g1": False}
    assert stored.calls(Part("booking", place()), "e1") == {}


def test_call_of_which_anything_is_not_marked_is_not_deleted(dataset):
    """As a run that was killed between the two tables leaves it."""
    marked = mark(schema.CALLS, dataset.rows(schema.CALLS, HERE), ["e2"], {"exported_at": FETCHED_AT})
    dataset.write(schema.CALLS, HERE, marked.table)
    assert StoredCalls(dataset).calls(HERE, "e2") == {"d1": False}


def test_file_that_is_gone_or_damaged_holds_nothing(dataset, tmp_path):
    (tmp_path / part("calls")).write_bytes(b"garbage")
    assert StoredCalls(dataset).calls(HERE, "e1") == {"c1": False, "c2": False, "c3": True}, "of which evals are left"
    (tmp_path / part("evals")).unlink()
    assert StoredCalls(dataset).calls(HERE, "e1") == {"c2": False}, "of which a dead letter is left"
    assert StoredCalls(dataset).rows(HERE, "e1") == {}
    (tmp_path / part("errors")).unlink()
    assert StoredCalls(dataset).calls(HERE, "e1") == {}


def test_rows_are_those_without_a_mark_in_the_order_of_the_columns(dataset):
    stored = StoredCalls(dataset)
    assert (set(stored.rows(HERE, "e1")), stored.rows(HERE, "e4")) == ({"c1"}, {})
    values = dict(zip(schema.CALLS.names, stored.rows(HERE, "e1")["c1"], strict=True))
    assert (values["call_execution_id"], values["execution_id"], values["raw"]) == ("c1", "e1", None)


def test_dead_letters_name_the_execution_or_its_calls(dataset):
    stored = StoredCalls(dataset)
    assert [stored.failed(HERE, each) for each in ("e1", "e2")] == [{"e1", "c2"}, set()]
