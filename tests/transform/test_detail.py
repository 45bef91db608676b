import json
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.extract.parse import parse_json
from etl.model import schema
from etl.model.records import CallMetrics, FetchedCall, ListedCall
from etl.model.schema import NOT_IN_LISTS
from etl.model.values import parsed
from etl.transform.detail import (
    COVERED_COLUMNS,
    SAME,
    SHOWN,
    SHOWN_COLUMNS,
    amended,
    differences,
    metrics_in,
    shown_in,
    shown_in_row,
)
from etl.transform.flatten import call_row
from tests.support import examples

SAMPLES = {path.stem: json.loads(path.read_bytes()) for path in Path(__file__).parents[1].glob("samples/detail/*.json")}
OBJECTS = ("customer_latency_metrics", "customer_cost_breakdown")
STARTED_AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
TURN_COUNT = schema.CALLS.names.index("chat_metrics_turn_count")
BLIND = {*NOT_IN_LISTS} - {"chat_metrics_turn_count"}
LEFT_OUT = {
    "given by the list, or by another field": {
        "scenario", "scenario_id", "eval_outputs", "eval_metrics", "response_time", "avg_agent_latency", "duration",
        "agent_talk_percentage", "start_time", "timestamp",
    },
    "personal data, texts and recordings": {
        "audio_url", "call_summary", "customer_call_id", "customer_name", "phone_number", "recordings",
        "service_provider_call_id", "session_id", "transcript",
    },
    "of the page, not of the call": {
        "call_type", "ended_reason", "is_snapshot", "original_call_execution_id", "processing_skip_reason",
        "processing_skipped", "rerun_type", "scenario_graph", "scenario_graph_id", "simulation_call_type",
        "snapshot_timestamp",
    },
}  # fmt: skip


def recorded(case: str) -> Any:
    return parse_json(msgspec.json.encode(SAMPLES[case]["body"]))


def pairs() -> Iterator[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Each call that was recorded in all three shapes: its entry in the list, in the detail, and its own metrics."""
    for case in ("detail_voice", "detail_chat", "detail_statuses", "detail_odd_json"):
        detailed = {each["id"]: each for each in recorded(case)["results"]}
        own = [recorded(name)["result"] for name in SAMPLES if name.startswith(f"{case}_metrics_")]
        for listed in recorded(f"runs_{case}")["result"]["call_results"]["results"]:
            key = listed["call_execution_id"]
            for metrics in (each for each in own if each["call_execution_id"] == key):
                yield f"{case}:{key[:8]}", listed, detailed[key], metrics


PAIRS = {name: (listed, detail, metrics) for name, listed, detail, metrics in pairs()}
# The metrics of these have no turn_count, so that the detail counts something else in its place.
NOT_TOLD = {
    name
    for name, (_, detail, metrics) in PAIRS.items()
    if detail["turn_count"] is not None and (metrics["chat_metrics"] or {}).get("turn_count") is None
}


def row_of(listed: dict[str, Any], metrics: dict[str, Any], shown: dict[str, Any] | None = None) -> list[Any]:
    key = listed["call_execution_id"]
    own = CallMetrics(
        call_execution_id=key, execution_id=metrics["execution_id"], status=metrics["status"], payload=metrics
    )
    call = FetchedCall(listed=ListedCall(call_execution_id=key, payload=listed), metrics=own, shown=shown or {})
    return call_row(call, run_test_name="Checkout", started_at=STARTED_AT)[0]


def row_by_lists(listed: dict[str, Any], detail: dict[str, Any]) -> list[Any] | None:
    shown = ListedCall(call_execution_id=detail["id"], payload=detail)
    if (metrics := metrics_in(shown)) is None:
        return None
    own = ListedCall(call_execution_id=detail["id"], payload=listed)
    call = FetchedCall(listed=own, metrics=metrics, shown=shown_in(shown))
    return call_row(call, run_test_name="Checkout", started_at=STARTED_AT)[0]


def is_vouched(
    listed: dict[str, Any], detail: dict[str, Any], row: list[Any], name: str = "Checkout", at: Any = STARTED_AT
) -> bool:
    in_list = ListedCall(call_execution_id=listed["call_execution_id"], payload=listed)
    in_detail = ListedCall(call_execution_id=detail["id"], payload=detail)
    return differences(in_list, in_detail, row, run_test_name=name, started_at=at) <= SHOWN_COLUMNS


def detail_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """What the real server's detail shows of a call with these metrics."""
    chat = metrics["chat_metrics"] or {}
    latency, cost, conversation = metrics["latency"], metrics["cost"], metrics["conversation"]
    return {
        "id": metrics["call_execution_id"],
        "test_execution_id": metrics["execution_id"],
        "status": metrics["status"],
        "duration_seconds": metrics["duration_seconds"],
        "avg_agent_latency_ms": latency["avg_agent_latency_ms"],
        "response_time_ms": latency["response_time_ms"],
        "cost_cents": cost["total_cost_cents"],
        **{name: value for name, value in conversation.items() if not name.endswith("_ms")},
        "avg_stop_time_after_interruption": conversation["avg_stop_time_after_interruption_ms"],
        **{
            name: chat.get(name)
            for name in ("input_tokens", "output_tokens", "total_tokens", "avg_latency_ms", "csat_score")
        },
        "turn_count": chat.get("message_count") if chat.get("turn_count") is None else chat["turn_count"],
        "customer_latency_metrics": {"systemMetrics": latency.get("system_metrics")},
        "customer_cost_breakdown": cost.get("breakdown"),
    }


LISTED, DETAIL, METRICS = PAIRS[min(PAIRS.keys() - NOT_TOLD)]
ROW = row_of(LISTED, METRICS)


def covered(row: list[Any]) -> dict[str, Any]:
    return {name: value for name, value in zip(schema.CALLS.names, row, strict=True) if name in COVERED_COLUMNS}


def test_recorded_pairs_are_many_and_of_every_kind():
    assert len(PAIRS) == 18
    assert len(NOT_TOLD) == 2


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_unchanged_call_is_vouched_for(name):
    listed, detail, metrics = PAIRS[name]
    assert is_vouched(listed, detail, row_of(listed, metrics))


@pytest.mark.parametrize("told", [4, 7.5, "seven"])
def test_turn_count_that_the_metrics_have_is_compared(told):
    """Also one that fits no column."""
    row = row_of(LISTED, changed(METRICS, ("chat_metrics", "turn_count"), told))
    for turn_count in (told, 5, None):
        assert is_vouched(LISTED, DETAIL | {"turn_count": turn_count}, row) == (turn_count == told)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_detail_of_the_tests_is_that_of_the_recorded_server(name):
    _, detail, metrics = PAIRS[name]
    made = detail_of(metrics)
    odd = {"turn_count", *OBJECTS}
    assert {field: detail[field] for field in made.keys() - odd} == {field: made[field] for field in made.keys() - odd}


@pytest.mark.parametrize("field", sorted({*SAME, *OBJECTS} - {"id", "test_execution_id"}))
def test_field_that_the_detail_lacks_vouches_for_nothing(field):
    without = {name: value for name, value in DETAIL.items() if name != field}
    assert not is_vouched(LISTED, without, ROW)


@pytest.mark.parametrize(("name", "at"), [("Checkout", None), ("Renamed", STARTED_AT)])
def test_row_of_an_execution_that_began_or_is_called_otherwise_now_is_made_anew(name, at):
    assert not is_vouched(LISTED, DETAIL, ROW, name, at)


def test_all_columns_of_a_call_are_covered_but_those_that_no_list_shows():
    of_source = {column.name for column in schema.CALLS.columns if column.source}
    assert of_source - set(COVERED_COLUMNS) == BLIND, "name it in schema.NOT_IN_LISTS, or map its field in detail.SAME"


def test_each_field_of_the_recorded_detail_is_exported_or_left_out_for_a_reason():
    """So that a new one is never exported by accident, and none that the screen shows is missed."""
    fields = {name for case in SAMPLES if "_metrics" not in case for name in fields_of(case)}
    known = {*SAME, *OBJECTS, *SHOWN}.union(*LEFT_OUT.values())
    assert fields - known == set()
    # None was set where that was recorded.
    assert {*SHOWN} - fields == {"simulator_agent_id", "simulator_agent_name", *schema.OF_VOICE_LIST}
    assert not known.intersection(*LEFT_OUT.values())


def fields_of(case: str) -> set[str]:
    body = SAMPLES[case].get("body")
    rows = body.get("results") if isinstance(body, dict) else None
    return {name for each in rows or () if isinstance(each, dict) and "test_execution_id" in each for name in each}


def test_snapshot_of_a_rerun_keeps_numbers_and_evals_and_no_text_of_the_call():
    snapshots = [each["rerun_snapshots"] for each in recorded("detail_statuses")["results"] if each["rerun_snapshots"]]
    detail = DETAIL | {"rerun_snapshots": snapshots[0]}
    (kept,) = shown_in(ListedCall(call_execution_id="c", payload=detail))["rerun_snapshots"]
    assert (kept["cost_cents"], kept["stt_cost_cents"], kept["chat_metrics"]["message_count"]) == (36, 4, 26)
    assert not kept.keys() & {"call_summary", "customer_number", "recording_url", "transcripts", "provider_call_data"}


def test_dictionary_names_the_columns_that_are_empty_in_rows_from_lists():
    meaning = schema.CALLS.columns[schema.CALLS.names.index("metrics_from")].meaning
    assert all(name in meaning for name in NOT_IN_LISTS)


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_row_is_the_same_whether_the_detail_came_with_it_or_later(name):
    listed, detail, metrics = PAIRS[name]
    odd = detail | {"overall_score": "good", "tool_outputs": {"a": [1.50]}, "customer_cost_cents": None}
    for told in (detail, odd):
        shown = ListedCall(call_execution_id=detail["id"], payload=told)
        at_once = row_of(listed, metrics, shown_in(shown))
        assert amended(row_of(listed, metrics), shown) == at_once
        assert row_of(listed, metrics, shown_in_row(at_once)) == at_once
        assert amended(row_of(listed, metrics, shown_in(DETAIL_CALL)), shown)[OVERALL] == at_once[OVERALL]


OVERALL = schema.CALLS.names.index("overall_score")
DETAIL_CALL = ListedCall(call_execution_id="c", payload=DETAIL)


def test_field_that_the_detail_no_longer_has_keeps_its_value():
    row = row_of(LISTED, METRICS, {"overall_score": 7.0, "provider": "vapi"})
    told = ListedCall(call_execution_id=DETAIL["id"], payload={"provider": None})
    assert shown_in_row(amended(row, told)) == {"overall_score": 7.0}


def test_reason_is_one_line_of_200_characters():
    told = ListedCall(call_execution_id=DETAIL["id"], payload={"ended_reason": "error:\n \x1b[31m" + "x" * 300})
    assert shown_in_row(amended(ROW, told))["ended_reason"] == "error: [31m" + "x" * 189


def test_open_ended_objects_are_the_same_in_either_spelling():
    listed, detail, metrics = VOICE
    documented = deepcopy(metrics)
    documented["latency"]["customer_latency_metrics"] = documented["latency"].pop("system_metrics")
    documented["cost"]["customer_cost_breakdown"] = documented["cost"].pop("breakdown")
    assert is_vouched(listed, detail, row_of(listed, documented))


VOICE = PAIRS[min(name for name in PAIRS if name.startswith("detail_voice"))]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3),
    st.lists(st.integers(), max_size=1),
    st.sampled_from(["1500", "1.5", -0.0, 0, 0.0, 1, 1.0]),
    st.dictionaries(st.sampled_from(["turn", "bot_wpm", "cost"]), st.integers(0, 3), max_size=2),
)  # fmt: skip
PLACES = st.sampled_from(
    [
        *((block, name) for block in ("latency", "cost", "conversation") for name in VOICE[2][block]),
        *(("chat_metrics", name) for name in ("total_tokens", "input_tokens", "output_tokens", "message_count")),
        *(("chat_metrics", name) for name in ("avg_latency_ms", "turn_count", "csat_score")),
        *(("latency", "system_metrics", name) for name in ("bot_wpm", "turn", "detailed_data", "new")),
        *(("cost", "breakdown", name) for name in ("llm", "new")),
        ("status",), ("duration_seconds",), ("chat_metrics",),
    ]
)  # fmt: skip


def changed(metrics: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The metrics with another value at the place, as a real server could send them."""
    result = deepcopy(metrics)
    at = result
    for step in place[:-1]:
        if not isinstance(at.get(step), dict):
            at[step] = {}
        at = at[step]
    at[place[-1]] = value
    for block, name in (("latency", "system_metrics"), ("cost", "breakdown")):
        if not isinstance(result[block].get(name), dict):
            result[block].pop(name, None)
    if not isinstance(result["chat_metrics"], dict):
        result["chat_metrics"] = None
    return result


@settings(max_examples=examples(150))
@given(st.lists(st.tuples(PLACES, VALUES), min_size=8, max_size=8))
def test_call_whose_metrics_differ_where_the_map_looks_is_never_vouched_for(changes):
    """Eight changes to each of the 18 recorded calls: over 20,000 pairs in full."""
    for listed, _, metrics in PAIRS.values():
        stored = row_of(listed, metrics)
        for place, value in changes:
            now = changed(metrics, place, value)
            fresh = row_of(listed, now)
            if is_vouched(listed, detail_of(now), stored):
                if stored[TURN_COUNT] is None:  # then the detail may have made up that of the other
                    fresh[TURN_COUNT] = None
                assert repr(covered(fresh)) == repr(covered(stored)), (place, value)


@settings(max_examples=60)
@given(st.lists(st.tuples(PLACES, VALUES), min_size=8, max_size=8))
def test_each_value_of_a_row_from_lists_is_that_of_the_metrics_or_null(changes):
    """Eight changes to each of the 18 recorded calls; null beside a value only in the columns that are documented."""
    for listed, recorded_detail, metrics in PAIRS.values():
        shown = {name: value for name, value in recorded_detail.items() if name in SHOWN}
        for place, value in [((), None), *changes]:
            now = changed(metrics, place, value) if place else metrics
            detail = {**(detail_of(now) if place else recorded_detail), **shown}
            if (row := row_by_lists(listed, detail)) is None:
                assert not isinstance(now["status"], str)
                continue
            exact = row_of(listed, now, shown_in(ListedCall(call_execution_id="c", payload=detail)))
            for name, own, truth in zip(schema.CALLS.names, row, exact, strict=True):
                if name == "extra":
                    assert is_within(parsed(own), parsed(truth)), (place, value)
                elif name != "metrics_from":
                    assert repr(own) == repr(truth) or (own is None and name in NOT_IN_LISTS), (name, place, value)


def is_within(part: Any, whole: Any) -> bool:
    if not isinstance(part, dict):
        return bool(part == whole)
    return all(name in whole and is_within(value, whole[name]) for name, value in part.items())
