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


def latency(value: float | None) -> Metrics:
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


@pytest.mark.parametrize(
    ("of_api", "cause"),
    [
        (150.5, "same"),
        (150.4, Cause.ROUNDING),
        (150, Cause.ROUNDING),
        (151, Cause.ROUNDING),
        (149.9, None),
        (151.1, None),
    ],
)
def test_mean_may_be_off_by_half_of_its_last_digit(of_api: float, cause: Any) -> None:
    causes = found(latency(of_api), latency(150), latency(151))
    assert causes.get("latency.avg_agent_latency_ms", "same") == cause


@pytest.mark.parametrize(("of_api", "cause"), [(3, Cause.ROUNDING), (3.5, "same"), (4, Cause.ROUNDING), (2, None)])
def test_sum_of_seconds_may_be_cut(of_api: float, cause: Any) -> None:
    calls = ({"duration_seconds": 1.5}, {"duration_seconds": 2})
    assert (
        found({"cost": {"total_duration_seconds": of_api}}, *calls).get("cost.total_duration_seconds", "same") == cause
    )


def test_counts_are_never_rounded() -> None:
    assert found({"calls": {"completed": 2}}, {}) == {"calls.completed": None}


def test_zero_without_data_is_explained_and_another_value_is_not() -> None:
    assert found(latency(0.0), {}) == {"latency.avg_agent_latency_ms": Cause.ZERO_FOR_NULL}
    assert found(latency(1.0), {}) == {"latency.avg_agent_latency_ms": None}
    assert found(latency(0.0), latency(100)) == {"latency.avg_agent_latency_ms": None}


def test_calls_that_the_api_counts_and_nobody_lists_explain_what_they_may_have_changed() -> None:
    calls = {"calls": {"total": 3, "completed": 2, "failed": 1}, "cost": {"total_duration_seconds": 30}}
    explained = found(calls | latency(500), latency(100) | {"duration_seconds": 9})
    assert explained == dict.fromkeys(
        [
            "calls.total",
            "calls.completed",
            "calls.failed",
            "cost.total_duration_seconds",
            "latency.avg_agent_latency_ms",
        ],
        Cause.DELETED_CALLS,
    )


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        ({"cost": {"total_duration_seconds": 8}}, "cost.total_duration_seconds"),
        ({"calls": {"total": 3, "completed": 0}}, "calls.completed"),
        ({"calls": {"total": 3, "failed": 3}}, "calls.failed"),
    ],
)
def test_more_calls_cannot_explain_less_of_anything_or_more_than_they_are(payload: Metrics, name: str) -> None:
    assert found({"calls": {"total": 3}} | payload, {"duration_seconds": 9})[name] is None


def test_fewer_calls_at_the_api_are_not_explained() -> None:
    assert found({"calls": {"total": 1}}, {}, {}) == {"calls.total": None}


def test_dead_letters_explain_everything() -> None:
    assert found(latency(7), {}, has_letters=True) == {"latency.avg_agent_latency_ms": Cause.DEAD_LETTER}


def test_value_that_stands_in_extra_explains_its_own_aggregate_alone() -> None:
    odd = {"chat_metrics": {"turn_count": 4.5, "csat_score": 3}}
    payload = {"chat": {"avg_turn_count": 5, "avg_csat_score": 4}}
    assert found(payload, odd) == {"chat.avg_turn_count": Cause.MISFIT, "chat.avg_csat_score": None}


def test_call_without_a_turn_count_explains_the_mean_of_turns_alone() -> None:
    """The API averages COALESCE(turn_count, bot_message_count), and gives only the first of them for a call."""
    payload = {"chat": {"avg_turn_count": 9, "avg_csat_score": 4}}
    with_turns, without = {"chat_metrics": {"turn_count": 4, "csat_score": 3}}, {"chat_metrics": {"csat_score": 3}}
    assert found(payload, with_turns, without) == {
        "chat.avg_turn_count": Cause.BOT_MESSAGES,
        "chat.avg_csat_score": None,
    }
    assert found(payload, without)["chat.avg_turn_count"] is Cause.BOT_MESSAGES
    assert found(payload, with_turns)["chat.avg_turn_count"] is None


@pytest.mark.parametrize("text", ["1.5x", True, {}, [1]])
def test_aggregate_that_is_no_number_is_not_explained(text: Any) -> None:
    assert found(latency(text), latency(1))["latency.avg_agent_latency_ms"] is None


@pytest.mark.parametrize("payload", [{}, {"metrics": {}}, {"metrics": None}, {"metrics": "none"}])
def test_aggregates_that_are_left_out_are_explained(payload: Metrics) -> None:
    causes = {each.cause for each in mismatches(payload, recomputed(latency(1)), has_letters=False)}
    assert causes == {Cause.LEFT_OUT}


def test_both_values_are_told() -> None:
    assert str(Mismatch("chat.avg_csat_score", 4.25, None, None)) == (
        "chat.avg_csat_score is 4.25 at the API, null computed from the exported calls"
    )
