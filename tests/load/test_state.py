"""What the dataset holds is told by partition: rows vouch for what lies beside them, and what lies apart is found."""

from datetime import timedelta

import pyarrow as pa
import pytest

from etl.extract.plan import Reason
from etl.load.layout import Part
from etl.load.relocate import find_doubled, find_moves
from etl.load.state import held_rows, load_state
from etl.model import schema
from etl.model.digest import rows_digest
from etl.model.lifecycle import HeldRows
from tests.bundles import KEY, a_bundle
from tests.datasets import FETCHED_AT, export_to, part, place, reasons

EARLIER, LATER = "2026-07-30", "2026-09-02"
TABLES = ("executions", "calls", "evals", "errors")


@pytest.mark.parametrize("date", [EARLIER, LATER])
@pytest.mark.parametrize(
    ("table", "reason"), [("calls", Reason.DAMAGED), ("evals", Reason.DAMAGED), ("errors", Reason.INCOMPLETE)]
)
def test_what_lies_apart_from_its_row_is_surplus_and_its_execution_is_fetched_again(
    dataset, tmp_path, table, reason, date
):
    export_to(dataset, a_bundle("e1", given_up=["c2"] if table == "errors" else []))
    apart = tmp_path / part(table, date=date)
    apart.parent.mkdir(parents=True)
    (tmp_path / part(table)).rename(apart)

    state = load_state(dataset, [KEY], set_aside=False)

    assert state.surplus == {Part(KEY, place(date)): {"e1"}}
    assert (state.stray_places, state.orphans) == ({KEY: {}}, {KEY: {}})
    assert state.executions[KEY]["e1"].has_letters is (table == "errors")
    assert reasons(dataset, a_bundle("e1"))["e1"] is reason


@pytest.mark.parametrize("newer", [EARLIER, LATER])
def test_of_two_rows_of_an_execution_the_one_that_was_written_last_counts(dataset, newer):
    older = LATER if newer == EARLIER else EARLIER
    export_to(dataset, a_bundle("e1", date=older))
    export_to(dataset, a_bundle("e1", seconds=2.0, date=newer), run="run-2", fetched_at=FETCHED_AT + timedelta(days=1))

    state = load_state(dataset, [KEY], set_aside=False)

    assert (state.executions[KEY]["e1"].place, state.executions[KEY]["e1"].is_damaged) == (place(newer), False)
    assert state.surplus == {Part(KEY, place(older)): {"e1"}}


@pytest.mark.parametrize("newer", [EARLIER, LATER])
def test_of_two_rows_of_an_execution_the_one_whose_calls_are_there_counts(dataset, newer):
    older = LATER if newer == EARLIER else EARLIER
    export_to(dataset, a_bundle("e1", date=older))
    export_to(dataset, a_bundle("e1", date=newer), run="run-2", fetched_at=FETCHED_AT + timedelta(days=1))
    dataset.files.remove(part("calls", date=newer))

    state = load_state(dataset, [KEY], set_aside=False)

    assert (state.executions[KEY]["e1"].place, state.executions[KEY]["e1"].is_damaged) == (place(older), False)
    assert state.surplus == {Part(KEY, place(newer)): {"e1"}}


@pytest.mark.parametrize("table", ["calls", "evals", "errors"])
def test_what_lies_without_any_row_is_a_stray(dataset, tmp_path, table):
    export_to(dataset, a_bundle("e1", given_up=["c2"]))
    for other in {*TABLES} - {table}:
        (tmp_path / part(other)).unlink()

    state = load_state(dataset, [KEY], set_aside=False)

    assert (state.executions, state.surplus) == ({KEY: {}}, {})
    assert state.stray_places == {KEY: {"e1": place()}}
    assert state.orphans == {KEY: {"e1": place()} if table == "errors" else {}}


def test_an_execution_of_several_run_tests_is_doubled_wherever_anything_of_it_lies(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"), a_bundle("e2", ["c3"]))
    export_to(dataset, a_bundle("e1", key="booking", date=LATER), a_bundle("e3", ["c4"], key="booking"))
    export_to(dataset, a_bundle("e2", ["c3"], key="third"))
    (tmp_path / part("executions", key="third")).unlink()

    state = load_state(dataset, [KEY, "third"], set_aside=False)

    assert find_doubled(state) == {
        "e1": [Part("booking", place(LATER)), Part(KEY, place())],
        "e2": [Part(KEY, place()), Part("third", place())],
    }
    assert find_moves(state, {"third": ["e3", "unheard-of"]}, {"third": "Third"}) == {
        (Part("booking", place()), "third"): {"e3"}
    }


@pytest.mark.parametrize(("calls", "is_twice"), [(["c3"], False), (["c2"], True)])
def test_call_that_stands_under_two_executions_is_noticed(dataset, calls, is_twice):
    export_to(dataset, a_bundle("e1"))
    export_to(dataset, a_bundle("e2", calls, key="booking"))
    assert load_state(dataset, [KEY, "booking"], set_aside=False).may_hold_calls_twice() is is_twice
    assert load_state(dataset, [KEY], set_aside=False).may_hold_calls_twice() is is_twice, "wherever they stand"


def test_held_rows_are_those_of_the_executions_asked_for():
    def rows(table, *pairs):
        values = [dict.fromkeys(table.key, own) | {"execution_id": each, "row_hash": own} for each, own in pairs]
        return pa.Table.from_pylist(values, table.arrow_schema)

    calls = rows(schema.CALLS, ("e1", "h1"), ("e2", "h2"), ("e1", "h3"), ("e3", "h4"))
    evals = rows(schema.EVALS, ("e2", "h5"), ("e3", "h6"))
    assert held_rows({"e1": 2, "e2": 3, "e9": 0}, calls, evals) == {
        "e1": HeldRows(2, 2, rows_digest(["h1", "h3"])),
        "e2": HeldRows(3, 1, rows_digest(["h2", "h5"])),
        "e9": HeldRows(0, 0, rows_digest([])),
    }
