"""What the dataset holds of calls, as a crawl asks for it."""

import pytest
from msgspec.structs import replace

from etl.load.layout import Part
from etl.load.stored_calls import StoredCalls
from etl.model import schema
from etl.model.listed_execution import call_counts
from tests.bundles import KEY, a_bundle
from tests.datasets import export_to, part, place

LATER = "2026-09-02"
HERE = Part(KEY, place())


def test_stored_calls_are_those_that_lie_in_the_partition(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"]), a_bundle("e3", ["c4"], date=LATER))

    stored = StoredCalls(dataset)
    assert [{*stored.evals_by_call(HERE, each)} for each in ("e1", "e2", "e3")] == [{"c1", "c2"}, {"c3"}, set()]
    assert stored.evals_by_call(Part(KEY, place(LATER)), "e3").keys() == {"c4"}
    assert stored.evals_by_call(Part("booking", place()), "e1") == {}
    (tmp_path / part("calls")).write_bytes(b"garbage")
    assert stored.evals_by_call(HERE, "e1").keys() == {"c1", "c2"}, "of which the evals are left"
    (tmp_path / part("evals")).unlink()
    assert StoredCalls(dataset).evals_by_call(HERE, "e1") == {}


def test_rows_are_in_the_order_of_the_columns(dataset):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"]))

    rows = StoredCalls(dataset).rows(HERE, "e1")

    assert rows.keys() == {"c1", "c2"}
    for key, row in rows.items():
        values = dict(zip(schema.CALLS.names, row, strict=True))
        assert (values["call_execution_id"], values["execution_id"], values["raw"]) == (key, "e1", None)


def test_letters_tell_of_which_calls_the_rows_are_older(dataset):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"]))
    export_to(dataset, a_bundle("e1", given_up=["c2"]), run="run-2")

    stored = StoredCalls(dataset)
    assert stored.rows(HERE, "e1").keys() == {"c1", "c2"}
    [letter] = a_bundle("e1", given_up=["c2"]).dead_letters
    assert stored.letters(HERE, "e1") == {("c2", letter.message)}
    assert stored.letters(HERE, "e2") == frozenset()


@pytest.mark.parametrize(
    "payload",
    [{"total_calls": 5, "metrics": {"calls": {"total": 7}}}, {"total_calls": 5}, {"metrics": {"calls": {"total": 7}}}],
)
def test_stored_call_counts_are_those_of_the_payload(dataset, payload):
    bundle = a_bundle("e1")
    listed = replace(bundle.execution, payload=bundle.execution.payload | payload)
    export_to(dataset, replace(bundle, execution=listed))

    assert StoredCalls(dataset).call_counts(HERE, "e1") == call_counts(listed.payload) != []
    assert StoredCalls(dataset).call_counts(HERE, "e2") == []
