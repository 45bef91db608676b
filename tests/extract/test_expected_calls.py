"""How many calls a list should name, and how few are too few."""

import pytest

from etl.extract.expected_calls import expected_calls, is_too_few
from etl.model.lifecycle import HeldRows
from tests.bundles import execution, plan_of, stored_of
from tests.worlds import END


def expected(payload, *, stored_calls=0, **stored):
    """What is expected of an execution that is listed with the payload; ``stored`` is how the dataset has it, if at all."""
    listed = execution(**payload)
    known = {listed.execution_id: stored_of(listed, **stored)} if stored else {}
    [item] = plan_of([listed], known, now=END)
    return expected_calls(item, stored_calls)


COUNTED = {"metrics": {"calls": {"total": 7}}, "total_calls": 5}


@pytest.mark.parametrize(
    ("payload", "calls"),
    [(COUNTED, 7), ({"total_calls": 5, "metrics": {"calls": {"total": 0}}}, 5), ({"metrics": {}}, 0), ({}, 0)],
)
def test_new_execution_has_as_many_calls_as_the_source_counts(payload, calls):
    assert expected(payload) == calls


@pytest.mark.parametrize(("listed_calls", "stored_calls", "calls"), [(3, 3, 3), (3, 4, 4), (3, 0, 3), (None, 0, 0)])
@pytest.mark.parametrize("state", ["exported", "settling"])
def test_execution_that_was_exported_as_it_is_has_what_was_listed_or_is_stored(
    state, listed_calls, stored_calls, calls
):
    held = HeldRows(listed_calls=listed_calls, exported_calls=stored_calls, calls_digest="digest")
    assert expected(COUNTED, stored_calls=stored_calls, held=held, export_state=state) == calls


@pytest.mark.parametrize(
    "stored", [{"export_state": "incomplete"}, {"export_state": "waiting"}, {"fingerprint": "old"}]
)
def test_execution_of_which_the_source_says_something_new_has_what_it_counts_too(stored):
    assert expected(COUNTED, stored_calls=2, **stored) == 7
    assert expected(COUNTED, stored_calls=9, **stored) == 9


@pytest.mark.parametrize(
    ("missing", "of", "is_it"),
    [
        (0, 0, False),
        (0, 5, False),
        (-2, 5, False),
        (1, 1, True),
        (1, 2, False),
        (1, 5, False),
        (2, 5, True),
        (2, 20, False),
        (3, 20, True),
        (10, 100, False),
        (11, 100, True),
        (100, 100, True),
    ],
)
def test_one_call_may_vanish_and_a_tenth_but_never_all(missing, of, is_it):
    assert is_too_few(missing=missing, expected=of) is is_it
