"""Aggregates computed again from calls, and the causes of what differs."""

from typing import Any

import pytest

from etl.model import schema
from etl.transform.aggregates import AGGREGATES, NO_CALLS, Cause, Mismatch, Recomputed, mismatches, recompute
from tests.bundles import EXPORT, bundle_of, calls_frame, fetched_call, recorded, through_parquet

Metrics = dict[str, Any]


def recomputed(*calls: Metrics) -> Recomputed:
    """Of one execution with these calls, by way of Parquet."""
    bundle = bundle_of(*(fetched_call(f"call-{number}", metrics) for number, metrics in enumerate(calls)))
    rows = through_parquet(calls_frame([bundle], EXPORT).rows)
    return recompute(rows).get("execution", NO_CALLS)


def found(payload: Metrics, *calls: Metrics, has_letters: bool = False) -> dict[str, Cause | None]:
    """The cause of each difference of an aggregate that the payload has."""
    causes = mismatches({"metrics": payload}, recomputed(*calls), has_letters=has_letters)
    return {each.name: each.cause for each in causes if each.cause is not Cause.LEFT_OUT}


def latency(value: Any) -> Metrics:
    return {"latency": {"avg_agent_latency_ms": value}}


def test_every_aggregate_column_of_executions_is_recomputed() -> None:
    from_metrics = {c.name for c in schema.EXECUTIONS.columns if any(path[0] == "metrics" for path in c.paths)}
    assert {aggregate.column for aggregate in AGGREGATES} == from_metrics
    assert all(aggregate.source in schema.CALLS.names for aggregate in AGGREGATES)


def test_nulls_are_left_out_of_means_and_zeros_are_not() -> None:
    values = recomputed(latency(None), latency(0), latency(300)).values
    assert values["latency_avg_agent_latency_ms"] == 150
    assert values["latency_avg_response_time_ms"] is None


def test_percentiles_are_linear_between_neighbours() -> None:
    calls = [latency(value) for value in (400, 100, 300, 200)]
    values = recomputed(*calls).values
    assert [values[f"latency_percentiles_{name}"] for name in ("p50", "p95", "p99")] == pytest.approx([250, 385, 397])
    assert recomputed(latency(7)).values["latency_percentiles_p99"] == 7


def test_sums_and_counts_of_nothing_are_zero() -> None:
    values = recomputed({"duration_seconds": None, "status": "queued"}).values
    assert [values[name] for name in ("cost_total_duration_seconds", "calls_total", "calls_completed")] == [0, 1, 0]
    assert NO_CALLS.values["cost_total_duration_seconds"] == 0
    assert NO_CALLS.values["chat_avg_csat_score"] is None


@pytest.mark.parametrize("case", ["metrics_edge_no_metrics", "metrics_edge_zero_calls"])
def test_recorded_execution_without_data_differs_by_zeros_alone(case: str) -> None:
    payload = recorded(case)
    calls = [{"status": "completed"}] * payload["total_calls"]
    assert {each.cause for each in mismatches(payload, recomputed(*calls), has_letters=False)} == {Cause.ZERO_FOR_NULL}


LATENCY, SECONDS, TURNS, CSAT = (
    "latency.avg_agent_latency_ms", "cost.total_duration_seconds", "chat.avg_turn_count", "chat.avg_csat_score",
)  # fmt: skip
UNREADABLE: tuple[Any, ...] = ("1.5x", True, {}, [1])
TWO = (latency(150), latency(151))
HALF_SECONDS = ({"duration_seconds": 1.5}, {"duration_seconds": 2})
NINE_SECONDS = ({"duration_seconds": 9},)
OF_CHATS = {"chat": {"avg_turn_count": 9, "avg_csat_score": 4}}
WITH_TURNS, WITHOUT = {"chat_metrics": {"turn_count": 4, "csat_score": 3}}, {"chat_metrics": {"csat_score": 3}}


def seconds(value: float) -> Metrics:
    return {"cost": {"total_duration_seconds": value}}


@pytest.mark.parametrize(
    ("payload", "calls", "causes"),
    [
        # a mean may be off by half of its last digit, a sum of seconds may be cut, a count is never rounded
        (latency(150.5), TWO, {}),
        *((latency(value), TWO, {LATENCY: Cause.ROUNDING}) for value in (150.4, 150, 151)),
        *((latency(value), TWO, {LATENCY: None}) for value in (149.9, 151.1)),
        (seconds(3.5), HALF_SECONDS, {}),
        *((seconds(value), HALF_SECONDS, {SECONDS: Cause.ROUNDING}) for value in (3, 4)),
        (seconds(2), HALF_SECONDS, {SECONDS: None}),
        ({"calls": {"completed": 2}}, ({},), {"calls.completed": None}),
        # zero explains itself where there are no data, and nowhere else
        (latency(0.0), ({},), {LATENCY: Cause.ZERO_FOR_NULL}),
        (latency(1.0), ({},), {LATENCY: None}),
        (latency(0.0), (latency(100),), {LATENCY: None}),
        # calls that the API counts and nobody lists may have added something, but not more than they are
        (
            {"calls": {"total": 3, "completed": 2, "failed": 1}} | seconds(30) | latency(500),
            (latency(100) | NINE_SECONDS[0],),
            dict.fromkeys([LATENCY, SECONDS, "calls.total", "calls.completed", "calls.failed"], Cause.DELETED_CALLS),
        ),
        ({"calls": {"total": 3}} | seconds(8), NINE_SECONDS, {"calls.total": Cause.DELETED_CALLS, SECONDS: None}),
        (
            {"calls": {"total": 3, "completed": 0, "failed": 3}},
            NINE_SECONDS,
            {"calls.total": Cause.DELETED_CALLS, "calls.completed": None, "calls.failed": None},
        ),
        ({"calls": {"total": 1}}, ({}, {}), {"calls.total": None}),
        # a value in extra, or a missing turn count, explains its own aggregate alone
        (
            {"chat": {"avg_turn_count": 5, "avg_csat_score": 4}},
            ({"chat_metrics": {"turn_count": 4.5, "csat_score": 3}},),
            {TURNS: Cause.MISFIT, CSAT: None},
        ),
        (OF_CHATS, (WITH_TURNS, WITHOUT), {TURNS: Cause.BOT_MESSAGES, CSAT: None}),
        (OF_CHATS, (WITHOUT,), {TURNS: Cause.BOT_MESSAGES, CSAT: None}),
        (OF_CHATS, (WITH_TURNS,), {TURNS: None, CSAT: None}),
        # what is no number cannot be explained
        *((latency(value), (latency(1),), {LATENCY: None}) for value in UNREADABLE),
    ],
)
def test_each_difference_has_its_cause_or_none(
    payload: Metrics, calls: tuple[Metrics, ...], causes: dict[str, Cause | None]
) -> None:
    assert found(payload, *calls) == causes


def test_dead_letters_explain_everything() -> None:
    assert found(latency(7), {}, has_letters=True) == {LATENCY: Cause.DEAD_LETTER}


@pytest.mark.parametrize("payload", [{}, {"metrics": {}}, {"metrics": None}, {"metrics": "none"}])
def test_aggregates_that_are_left_out_are_explained(payload: Metrics) -> None:
    causes = {each.cause for each in mismatches(payload, recomputed(latency(1)), has_letters=False)}
    assert causes == {Cause.LEFT_OUT}


def test_both_values_are_told() -> None:
    assert str(Mismatch("chat.avg_csat_score", 4.25, None, None)) == (
        "chat.avg_csat_score is 4.25 according to the API, null computed from the exported calls"
    )
