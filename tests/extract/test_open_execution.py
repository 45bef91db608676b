"""What becomes of an open execution as lists are read and calls arrive; no request is sent."""

from dataclasses import replace

from etl.errors import SourceError
from etl.extract.call_list import CallList
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Route
from etl.model.records import CallMetrics, ListedCall
from tests.bundles import planned


def entry(key, **payload):
    return ListedCall(call_execution_id=key, payload={"call_execution_id": key, **payload})


def call_list(keys, *, count=None, lacks_evals=False, unreadable=None):
    return CallList({key: entry(key) for key in keys}, count, unreadable, lacks_evals)


def metrics(key, execution_id="e"):
    return CallMetrics(call_execution_id=key, execution_id=execution_id, status="completed", payload={})


def opened(keys="", *, arrived="", route=Route.WHOLE, **list_options):
    """An execution whose list was read once, and of which some calls have arrived."""
    execution = OpenExecution(replace(planned("e"), route=route))
    execution.take_list(call_list(keys, **list_options))
    execution.arrived.metrics |= {key: metrics(key) for key in arrived}
    return execution


def test_calls_of_many_pages_are_joined_and_fetched_again_after_each_count():
    """Only what is found alive after the latest count proves it (L4)."""
    execution = opened("ab", arrived="ab", count=3)
    execution.arrived.kept = frozenset("b")
    assert execution.take_list(call_list("bc", count=3)) == ["a", "b", "c"]
    resumed = opened("ab", count=3, route=Route.RESUME)
    resumed.arrived.kept = frozenset("b")
    assert resumed.take_list(call_list("bc", count=3)) == ["a", "c"], "what was fetched since it began stays"


def test_listed_call_that_is_unknown_by_id_is_gone_if_the_next_list_agrees_and_lags_if_not():
    execution = opened("ab")
    execution.listed.not_found |= {"a", "b"}
    execution.take_list(call_list("b"))
    assert (execution.listed.gone, execution.listed.lagging, execution.listed.lags) == ({"a"}, {"b"}, False)
    execution.listed.not_found.add("b")
    assert execution.listed.lags


def test_call_keeps_the_entry_that_came_with_its_evals():
    execution = OpenExecution(planned("e"))
    execution.take_list(CallList({key: entry(key, evals=True) for key in "ab"}))
    execution.arrived.metrics["a"] = metrics("a")
    execution.take_list(call_list("ab", lacks_evals=True))
    assert {key: "evals" in call.payload for key, call in execution.listed.calls.items()} == {"a": True, "b": False}


def test_list_of_many_pages_that_says_the_same_again_is_told_from_news():
    execution = opened("ab", arrived="ab", count=2)
    assert execution.is_repeated_by(call_list("ab", count=2))
    assert not execution.is_repeated_by(call_list("ab", count=3))
    assert not execution.is_repeated_by(call_list("abc", count=2))
    assert not opened("ab", arrived="ab").is_repeated_by(call_list("ab")), "one page proves itself"
    assert not opened("ab", arrived="a", count=2).is_repeated_by(call_list("ab", count=2)), "not all were seen alive"


def test_bundle_says_nothing_of_calls_that_are_elsewhere_or_whose_entries_are_missing():
    execution = opened("abc", arrived="a")
    execution.arrived.elsewhere.add("b")
    execution.arrived.left_out.add("c")
    assert [call.call_execution_id for call in execution.bundle().listed] == ["a"]


def test_execution_that_is_cut_short_says_nothing_of_its_calls_unless_a_part_was_taken():
    execution = opened("ab", arrived="a", unreadable=SourceError("one row cannot be read"))
    assert (execution.cut_short().listed, len(execution.cut_short().dead_letters)) == (None, 1)
    execution.take_arrived()
    assert execution.cut_short().listed == ()
