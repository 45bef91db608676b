"""How many calls a list should name, how few are too few, and what is said of a call that contradicts its list."""

import pytest

from etl.extract.doubts import (
    expected_calls,
    foreign_call,
    too_few_calls,
    too_few_evals,
    unlisted_call,
)
from etl.model.lifecycle import HeldRows
from etl.model.records import METRICS, RUNS
from tests.bundles import execution, fetched_call, plan_of, stored_of


def expected(payload, *, stored_calls=0, unlisted_before=0, **stored):
    """What is expected of an execution that is listed with the payload; ``stored`` is how the dataset has it, if at all."""
    listed = execution(**payload)
    known = {listed.execution_id: stored_of(listed, **stored)} if stored else {}
    [item] = plan_of([listed], known)
    return expected_calls(item, stored_calls, unlisted_before)


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


@pytest.mark.parametrize(("unlisted_before", "calls"), [(0, 7), (3, 4), (5, 2), (9, 2)])
@pytest.mark.parametrize("state", ["exported", "settling", "waiting", "incomplete"])
def test_calls_that_were_believed_to_be_missing_are_not_expected_again(state, unlisted_before, calls):
    stored = {"export_state": state, "fingerprint": "old"}
    assert expected(COUNTED, stored_calls=2, unlisted_before=unlisted_before, **stored) == calls


@pytest.mark.parametrize(
    ("missing", "of", "is_doubted"),
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
def test_one_call_may_vanish_and_a_tenth_but_never_all(missing, of, is_doubted):
    [item] = plan_of([execution("e1", total_calls=of)], {})
    by_count = too_few_calls(item, stored=0, unlisted=0, count=of - missing)
    by_id = too_few_calls(item, stored=of, unlisted=max(0, missing), count=of)
    assert {by_count is not None, by_id is not None} == {is_doubted}
    if by_count:
        assert (by_count.endpoint, by_count.subject_id) == (RUNS, "e1")
        assert by_count.message.startswith(f"{missing} of its {of} calls are missing from its list; ")


@pytest.mark.parametrize(
    ("stored", "changed", "missing"),
    [
        ({"c1": {"a", "b", "c"}, "c2": {"a", "b"}}, set(), "3 of its 5"),
        ({"c1": {"a", "b", "c"}, "c2": {"a", "b"}}, {"c1", "c2"}, None),  # a rerun empties them
        ({"c1": {"a", "b", "c"}, "c2": {"a", "b"}}, {"c2"}, "2 of its 3"),
        ({"c1": {"a", "b"}, "c2": {"a", "b"}}, set(), None),
        ({"c1": {"a", "b"}}, set(), None),
        ({"c1": {"a"}, "c2": {"a"}}, set(), None),
        ({"c1": {"b"}, "c2": {"b"}}, set(), None),  # the evals were made anew, under other ids
        ({"c1": {"b", "c"}, "c2": {"b", "c", "d"}}, set(), "3 of its 5"),
        ({"c3": {"a"}, "c2": set()}, set(), "1 of its 1"),
        ({"c4": {"a"}, "c2": {"a"}}, set(), None),
        ({"c4": {"a", "b"}}, set(), "2 of its 2"),  # what is no output of an eval is none in its place
        ({"c3": {"a"}, "c1": {"a", "b"}}, {"c1"}, "1 of its 1"),
        ({"gone": {"a", "b"}}, set(), None),  # that of a call is another matter
        ({}, set(), None),
    ],
)
def test_one_eval_may_vanish_from_unchanged_calls_and_never_most_or_all(stored, changed, missing):
    [item] = plan_of([execution("e1")], {})
    calls = {each: fetched_call(each, listed={"eval_outputs": {"a": {}}}).listed for each in ("c1", "c2")}
    calls["c3"] = fetched_call("c3", listed={"eval_outputs": {}}).listed
    calls["c4"] = fetched_call("c4", listed={"eval_outputs": {"error": "busy", "code": 3, "message": None}}).listed

    doubt = too_few_evals(item, stored, calls, changed)

    assert (doubt is not None) == (missing is not None)
    if doubt:
        assert doubt.message.startswith(f"{missing} evals are missing from its list; ")


def test_contradictions_say_what_they_are_about():
    found, missing = foreign_call(fetched_call("c1", execution_id="e2").metrics, "e1"), unlisted_call("c1", "e1")
    assert (found.endpoint, found.subject_id) == (METRICS, "c1")
    assert found.message == "call c1: execution e1 lists it, but it belongs to execution e2"
    assert (missing.endpoint, missing.subject_id) == (RUNS, "e1")
    assert missing.message == "call c1 exists, but is missing from the list of its execution"
