"""When an execution is final: late enough after its end and its last change, all calls finished and none missing."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.model.lifecycle import (
    TERMINAL_CALL,
    TERMINAL_EXECUTION,
    Arrival,
    ExportState,
    HeldRows,
    ListedExecution,
    Settlement,
    call_counts,
    export_state,
    sight_of,
)
from etl.model.records import Execution, NumberLiteral
from etl.model.values import json_text
from tests.bundles import as_listed, bundle_of, dead_letter, execution, fetched_call, stored_of
from tests.strategies import any_text, json_values
from tests.support import examples

NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)
UNFINISHED = ["pending", "running", "cancelling", "evaluating", "paused", "Completed", ""]
FINISHED = ["completed", "failed", "cancelled"]
DAYS_AGO = NOW - timedelta(days=9)


def ago(hours):
    return NOW - timedelta(hours=hours)


def state(bundle, settle_hours=24.0, known=None, digest="digest", *, behind=timedelta(0), now=NOW, is_late=False):
    arrival = Arrival(
        held=HeldRows(listed_calls=2, exported_calls=2, calls_digest=digest),
        call_statuses={call.metrics.status for call in bundle.calls} if bundle.listed is not None else None,
        is_whole=not bundle.dead_letters,
        is_late=is_late,
    )
    settlement = Settlement(fetched_at=now, now=now - behind, settle=timedelta(hours=settle_hours))
    return export_state(bundle.execution, known, arrival, settlement)


def finished(hours_ago, total_calls=1, **payload):
    return execution(completed_at=ago(hours_ago).isoformat(), total_calls=total_calls, **payload)


CHANGES = [
    {"export_state": "waiting"},
    {"export_state": "incomplete"},
    {"fingerprint": "another"},
    {"calls_digest": "another digest"},
    {"deleted_at": DAYS_AGO},
]
"""What a stored execution may be that another night shows otherwise."""
hours = st.sampled_from([0, 0.5, 21.5, 23.9, 24, 25, 48, 240, 240, 240])
ends = (
    st.none()
    | st.sampled_from(["soon", 7])
    | hours.map(lambda each: ago(each).isoformat())
    | st.just("2999-01-01T00:00:00Z")
)
statuses = st.sampled_from([*FINISHED, *FINISHED, *UNFINISHED])
worlds = st.fixed_dictionaries(
    {
        "of": st.builds(
            lambda status, end, total: execution(status=status, completed_at=end, total_calls=total),
            statuses,
            ends,
            st.sampled_from([0, 1, 2, 2, 3, None]),
        ),
        "calls": st.lists(st.sampled_from([*FINISHED, "completed", "pending", "a new word"]), max_size=2),
        "letters": st.sampled_from([(), (), (), (dead_letter(),)]),
    }
)
knowns = st.fixed_dictionaries(
    {
        "export_state": st.sampled_from(["exported", "settling"]),
        "verified_at": hours.map(ago),
        "exported_at": hours.map(ago),
    }
)


def bundle_in(world):
    calls = [fetched_call(f"c{number}", status=status) for number, status in enumerate(world["calls"])]
    return bundle_of(*calls, of=world["of"], dead_letters=world["letters"])


@settings(max_examples=examples(1000))
@given(worlds, st.none() | knowns, st.none() | st.sampled_from(CHANGES), st.sampled_from([0.0, 24.0]), st.booleans())
def test_final_is_only_what_is_whole_and_has_long_ended_and_is_first_or_unchanged(
    world, stored, change, settle_hours, is_late
):
    known = None if stored is None else stored_of(world["of"], **(stored | (change or {})))
    seen = state(bundle_in(world), settle_hours, known, is_late=is_late)
    assert (seen is ExportState.INCOMPLETE) is bool(world["letters"])
    assert seen in (ExportState.INCOMPLETE, ExportState.EXPORTED, ExportState.SETTLING)
    if seen is ExportState.EXPORTED:
        assert world["of"].status in TERMINAL_EXECUTION
        is_unchanged = known is not None and change is None
        assert TERMINAL_CALL.issuperset(world["calls"]) or is_unchanged
        assert (known is None and not is_late) or is_unchanged or settle_hours == 0
        just_ended = [ago(each).isoformat() for each in (0, 0.5, 21.5, 23.9)]
        assert not settle_hours or world["of"].payload["completed_at"] not in just_ended


@settings(max_examples=examples(500))
@given(worlds, st.none() | knowns, st.none() | st.sampled_from(CHANGES))
def test_whatever_is_compared_without_a_difference_becomes_final_in_the_end(world, stored, change):
    """However it was seen before: as it is seen now, it is stored, and settles from there."""
    of, bundle = world["of"], bundle_in(world | {"letters": ()})
    known = None if stored is None else stored_of(of, **(stored | (change or {})))
    first = state(bundle, known=known)
    later = NOW + timedelta(hours=24)
    settled = stored_of(of, export_state=first, verified_at=NOW, exported_at=NOW)
    assert (state(bundle, known=settled, now=later) is ExportState.EXPORTED) is (of.status in TERMINAL_EXECUTION)
    assert state(bundle, known=settled, digest="another", now=later) is ExportState.SETTLING


@pytest.mark.parametrize(("hours_since", "expected"), [(21.5, ExportState.SETTLING), (21.6, ExportState.EXPORTED)])
@pytest.mark.parametrize("of", [finished(240), execution(), execution(completed_at="soon"), finished(-1_000_000)])
def test_execution_is_final_once_it_was_compared_late_enough_after_it_was_first_seen_so(of, hours_since, expected):
    """Nightly runs may start a little early. An end that cannot be read, or has not come yet, says nothing."""
    known = stored_of(of, export_state="settling", verified_at=ago(hours_since))
    assert state(bundle_of(of=of), known=known) is expected
    assert state(bundle_of(of=of), known=replace(known, verified_at=None)) is ExportState.SETTLING
    assert state(bundle_of(of=of), known=stored_of(of, verified_at=NOW)) is ExportState.EXPORTED, "it was final before"


@given(st.dictionaries(any_text, json_values, max_size=4))
def test_payload_of_a_listed_execution_comes_back_as_it_was(payload):
    unpacked = as_listed(Execution(execution_id="e", status="completed", payload=payload)).unpack().payload
    assert (repr(unpacked), json_text(unpacked)) == (repr(payload), json_text(payload)), (
        "numbers stay as they were written"
    )


@pytest.mark.parametrize("number", [2**63, 10**400, -1, -1.0, True, None, 7.5, "many"])
def test_number_of_calls_counts_only_where_its_column_takes_it(number):
    assert call_counts({"metrics": {"calls": {"total": number}}, "total_calls": 3}) == [3]
    assert [call_counts({"total_calls": each}) for each in (7.0, "7", NumberLiteral("7.0"), 2**63 - 1)] == [
        *([7],) * 3,
        [2**63 - 1],
    ]


def test_payload_that_was_let_go_is_missed_with_a_word():
    with pytest.raises(ValueError, match="the payload of execution e is no longer in memory"):
        ListedExecution.of(execution("e")).unpack()


SEEN = {*ExportState} - {ExportState.FORGOTTEN}
"""The states of the executions that runs see."""


def every_sight(settle_hours=24):
    """The state before, what is seen, and the state after, of everything that can be stored and seen."""
    settlement = Settlement(fetched_at=NOW, now=NOW, settle=timedelta(hours=settle_hours))
    yes_or_no = (True, False)
    stored = product([None, *SEEN], yes_or_no, [ago(1), ago(200)], [0, 1, 2])
    arrived = product(
        ["completed", "running"], [None, ["completed"]], ["digest", "another"], [0, 1], yes_or_no, yes_or_no
    )
    for (before, is_another, seen_at, detail_calls), (status, calls, digest, of_lists, is_whole, is_late) in product(
        stored, list(arrived)
    ):
        of = finished(240, total_calls=2, status=status)
        known = None
        if before is not None:
            held = HeldRows(2, 2, "digest", detail_calls)
            known = stored_of(of, export_state=str(before), verified_at=seen_at, exported_at=seen_at, held=held)
        if known is not None and (is_another or before is ExportState.WAITING):  # which had another status then
            known = replace(known, fingerprint="another")
        for is_part in {False, not is_whole}:
            arrival = Arrival(
                held=HeldRows(2, 2, digest, of_lists),
                call_statuses=calls,
                is_whole=is_whole,
                is_part=is_part,
                is_late=is_late,
            )
            sight = sight_of(of, known, arrival, settlement)
            yield str(before or "[*]"), str(sight), str(export_state(of, known, arrival, settlement))


def test_the_picture_of_the_life_of_an_execution_shows_what_moves_it_and_nothing_else():
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    arrows = re.findall(r"^    (\S+) --> (\S+) : (.+)$", page, re.MULTILINE)
    drawn = {
        (before, sight, after)
        for start, after, sight in arrows
        for before in (map(str, SEEN) if start == "any" else [start])
    }
    seen = set(every_sight())
    news = {each for each in seen if each[1] != "nothing new"}
    assert news == drawn
    assert all(before == after for before, _, after in seen - news)
    assert set(every_sight(0)) - seen == {("waiting", "settled", "exported")}
