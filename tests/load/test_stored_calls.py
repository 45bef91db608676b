"""What the dataset holds of calls, as a crawl asks for it."""

import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from etl.load.layout import Part
from etl.load.merge import with_column
from etl.load.stored_calls import StoredCalls
from etl.model import schema
from tests.bundles import KEY, a_bundle, an_unlisted_bundle
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


def with_counts(bundle, **payload):
    return replace(bundle, execution=replace(bundle.execution, payload=bundle.execution.payload | payload))


def unlisted_calls(dataset):
    return StoredCalls(dataset).unlisted_calls(HERE, "e1")


@pytest.mark.parametrize(
    ("payload", "unlisted"),
    [
        ({"total_calls": 5, "metrics": {"calls": {"total": 7}}}, 5),
        ({"total_calls": 5, "metrics": {}}, 3),
        ({"total_calls": 2, "metrics": {}}, 0),
        ({"total_calls": 0, "metrics": {}}, 0),
        ({"total_calls": None, "metrics": {}}, 0),
    ],
)
def test_calls_that_are_counted_and_not_listed_are_those_of_the_list_that_was_believed_last(dataset, payload, unlisted):
    """A night that tells nothing of them leaves their number as it is: no list, one that is not believed, no counts."""
    assert unlisted_calls(dataset) == 0
    export_to(dataset, with_counts(a_bundle("e1", ["c1", "c2"]), **payload))
    assert unlisted_calls(dataset) == unlisted
    for bundle in (
        an_unlisted_bundle("e1", status="running"),
        an_unlisted_bundle("e1", is_given_up=True),
        a_bundle("e1", ["c1"], is_proved=False),
    ):
        export_to(dataset, with_counts(bundle, total_calls=70, metrics={}))
        assert unlisted_calls(dataset) == unlisted
    export_to(dataset, with_counts(a_bundle("e1", ["c1", "c2"]), total_calls=None, metrics={}))
    assert unlisted_calls(dataset) == unlisted
    export_to(dataset, with_counts(a_bundle("e1", ["c1"]), total_calls=9, metrics={}))
    assert unlisted_calls(dataset) == 8


@pytest.mark.parametrize(("state", "unlisted"), [("exported", 7), ("settling", 7), ("waiting", 0), ("incomplete", 0)])
def test_row_of_an_older_version_tells_what_was_not_listed_if_its_list_was_believed(dataset, tmp_path, state, unlisted):
    export_to(dataset, with_counts(a_bundle("e1", ["c1", "c2"]), total_calls=9))
    (path,) = (tmp_path / "executions").rglob("*.parquet")
    rows = pq.ParquetFile(path).read().drop_columns(["unlisted_calls"])
    pq.write_table(with_column(rows, "export_state", [state] * len(rows)), path)
    assert unlisted_calls(dataset) == unlisted
