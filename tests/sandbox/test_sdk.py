"""What the sandbox computes: the recorded formulas and roundings. ``test_dispatch.py`` proves the shapes."""

from datetime import timedelta

import pytest

from etl.sandbox.fields import AnswerError
from etl.sandbox.sdk import aggregates, rounded, run_execution
from etl.sandbox.world import Scenario, SimulatedCall
from tests.sandbox.samples import result_of
from tests.worlds import END, settled_world


def call(number=0, status="completed", **values):
    return SimulatedCall(
        call_execution_id=f"call-{number}",
        scenario=Scenario("scenario", "Scenario"),
        status=status,
        updated_at=END + timedelta(seconds=number),
        **values,
    )


# Two recorded executions whose only two latencies follow from their percentiles.
@pytest.mark.parametrize(
    ("latencies", "average_ms", "percentiles"),
    [
        ((3522, 3917), 3720.0, {"p50": 3719.5, "p95": 3897.3, "p99": 3913.1}),
        ((3048, 3561), 3305.0, {"p50": 3304.5, "p95": 3535.4, "p99": 3555.9}),
        ((4098,), 4098.0, {"p50": 4098.0, "p95": 4098.0, "p99": 4098.0}),
        ((), 0.0, {}),
    ],
)
def test_latency_aggregates_are_those_that_were_recorded(latencies, average_ms, percentiles):
    latency = aggregates([call(avg_agent_latency_ms=each) for each in latencies])["latency"]
    assert (latency["avg_agent_latency_ms"], latency["percentiles"]) == (average_ms, percentiles)


def test_execution_without_data_has_zeros_as_recorded():
    assert aggregates([call(), call(), call()]) == result_of("metrics_edge_no_metrics")["metrics"]
    assert aggregates([]) == result_of("metrics_edge_zero_calls")["metrics"]


def test_averages_are_over_the_calls_that_have_data():
    assert (
        aggregates([call(user_wpm=100.0), call(user_wpm=None), call(user_wpm=101.5)])["conversation"]["avg_user_wpm"]
        == 100.8
    )


def test_counts_cover_deleted_calls_and_no_other_statuses():
    calls = [call(status=each) for each in ("completed", "failed", "pending", "queued", "ongoing", "cancelled")]
    calls[0].is_deleted = True
    assert aggregates(calls)["calls"] == {"total": 6, "completed": 1, "failed": 1, "pending": 1}


def test_numbers_written_as_text_are_averaged():
    chat = aggregates(
        [call(chat_metrics={"total_tokens": "1500", "csat_score": "4.25"}), call(chat_metrics={"total_tokens": None})]
    )
    assert (chat["chat"]["avg_total_tokens"], chat["chat"]["avg_csat_score"]) == (1500.0, 4.25)


@pytest.mark.parametrize(
    "chat",
    [
        {"total_tokens": 2.5},
        {"total_tokens": 2.0},
        {"input_tokens": "2.5"},
        {"output_tokens": True},
        {"turn_count": "x"},
    ],
)
def test_token_count_that_is_no_integer_cannot_be_aggregated(chat):
    with pytest.raises(AnswerError):
        aggregates([call(chat_metrics=chat)])


@pytest.mark.parametrize(
    ("value", "digits", "expected"), [(2.5, 0, 3.0), (0.285, 2, 0.29), (1.25, 1, 1.3), (-0.5, 0, -1.0)]
)
def test_rounding_is_half_up(value, digits, expected):
    assert rounded(value, digits) == expected


def test_eval_names_choose_outputs_whatever_their_case():
    world = settled_world(2, run_tests=1, executions=1, calls=9)
    execution = world.run_tests[0].executions[0]
    result = run_execution(execution, {"eval_name": "tone score"}, None)
    names = {each["name"] for row in result["call_results"]["results"] for each in row["eval_outputs"].values()}
    assert names == {"Tone Score"}
