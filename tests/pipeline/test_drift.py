"""The API changes its answers: an alarm for as long as there are values that are not in their columns, and no other."""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from etl import sandbox
from etl.model.findings import Kind
from etl.model.records import DETAIL, METRICS, RUNS
from etl.model.values import to_int
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, SandboxRequest, SimulatedCall, SimulatedRunTest
from etl.sandbox.fields import COST, LATENCY
from etl.sandbox.world import CONVERSATION
from etl.transform.drift import _FIELDS
from etl.transform.rows import MAKERS
from tests.e2e.truth import assert_equals_world
from tests.pipeline.nights import Nights

Edit = Callable[[Any], None]
CALLS = 24


def begin(nights: Nights, calls: int = CALLS) -> list[SimulatedCall]:
    """An execution that ends before the next night, with one call more, which failed."""
    run_test = nights.world.run_tests[0]
    rng, ended_at = random.Random(len(run_test.executions)), nights.now + timedelta(hours=20)
    execution = sandbox.add_execution(nights.world, run_test, rng, ended_at, calls + 1, status="completed")
    first, *others = sorted(execution.calls, key=lambda call: call.call_execution_id)
    failed(0, first)
    return [complete(run_test, call) for call in others]


def complete(run_test: SimulatedRunTest, call: SimulatedCall) -> SimulatedCall:
    """With all values that are often missing."""
    call.status = "completed"
    call.chat_metrics = None
    call.avg_agent_latency_ms, call.llm_cost_cents, call.stt_cost_cents, call.total_cost_cents = 900, 2, 3, 12
    call.eval_outputs = {
        each.config_id: {"name": each.name, "output": "Passed", "output_type": "Pass/Fail", "reason": "r"}
        for each in run_test.eval_configs
        if each.output_type == "Pass/Fail"
    }
    return call


@pytest.fixture
async def settled(nights: Nights) -> Nights:
    """A run test of one execution a night, of which two are final."""
    run_tests = nights.world.run_tests
    del run_tests[1:]
    run_tests[0].executions.clear()
    for _ in range(4):
        begin(nights)
        assert (await nights.export()).problems == []
    return nights


def answer(nights: Nights, concerns: Callable[[SandboxRequest], bool], edit: Edit) -> None:
    """From now on these answers are other ones."""

    def edited(body: bytes) -> bytes:
        document = msgspec.json.decode(body)
        edit(document["result"])
        return msgspec.json.encode(document)

    nights.server.fault = lambda request, _nth: Fault(edit=edited) if concerns(request) else None


def of_call(request: SandboxRequest) -> bool:
    return request.path == METRICS and "call_execution_id" in request.query


def of_calls(request: SandboxRequest) -> bool:
    return request.path == RUNS and "execution_id" in request.query


def of_run_test(request: SandboxRequest) -> bool:
    return "run_test_name" in request.query


def rename_latency(call: Any) -> None:
    call["latencies"] = call.pop("latency")


def move_cost(call: Any) -> None:
    call["usage"] = {"cost": call.pop("cost")}


def flatten_call(call: Any) -> None:
    for name in ("latency", "cost", "conversation"):
        call |= call.pop(name)


def write_dollars(call: Any) -> None:
    call["cost"]["total_cost_cents"] = "$0.12"


def rename_a_cost_that_the_detail_lacks(call: Any) -> None:
    call["cost"]["stt_cents"] = call["cost"].pop("stt_cost_cents")


def rename_output(listed: Any) -> None:
    for call in listed["call_results"]["results"]:
        for output in call["eval_outputs"].values():
            output["result"] = output.pop("output")


def write_times_without_z(listed: Any) -> None:
    for execution in listed["results"]:
        for name in ("started_at", "completed_at"):
            execution[name] = execution[name] and execution[name].removesuffix("Z")


def told(summary: Summary) -> str:
    return next((str(each) for each in summary.findings if each.kind is Kind.ANSWERS_CHANGED), "")


@pytest.mark.parametrize(
    ("edit", "concerns", "column", "place"),
    [
        (rename_latency, of_call, "calls.latency_avg_agent_latency_ms", "latencies.avg_agent_latency_ms"),
        (move_cost, of_call, "calls.cost_total_cost_cents", "extra has usage.cost."),
        (flatten_call, of_call, "calls.latency_avg_agent_latency_ms", "extra has ai_interruption_count"),
        (write_dollars, of_call, "calls.cost_total_cost_cents", "cost.total_cost_cents"),
        (rename_a_cost_that_the_detail_lacks, of_call, "calls.cost_stt_cost_cents", "cost.stt_cents"),
        (rename_output, of_calls, "evals.output_passed", "extra has result"),
        (write_times_without_z, of_run_test, "executions.started_at", "extra has completed_at"),
    ],
)
async def test_values_that_the_api_gives_otherwise_are_an_alarm_until_they_are_back_and_fetched_again(
    settled: Nights, edit: Edit, concerns: Callable[[SandboxRequest], bool], column: str, place: str
) -> None:
    answer(settled, concerns, edit)
    begin(settled)
    first = await settled.export()
    later = [await settled.export() for _ in range(4)]
    begin(settled)
    newer = await settled.export()

    codes = [each.exit_code for each in (first, newer, *later)]
    if concerns is of_run_test:  # an entry that is right again changes its execution, which is not held open for it
        del codes[2:]
    assert {*codes} == {3}, [each.problems for each in later]
    assert first.run_tests[0].name in told(first)
    assert column in told(first), told(first)
    assert place in told(first), told(first)
    assert " calls of " in told(first)

    settled.server.fault = None
    after = [await settled.export() for _ in range(3)]
    assert [each.exit_code for each in after] == [0, 0, 0], [each.problems for each in after]
    assert_equals_world(settled.folder, settled.world)


def failed(_: int, call: SimulatedCall) -> None:
    call.status, call.eval_outputs = "failed", {}
    for name in ("duration_seconds", *LATENCY, *COST, *CONVERSATION, "system_metrics", "chat_metrics"):
        setattr(call, name, None)


def of_a_chat(number: int, call: SimulatedCall) -> None:
    failed(number, call)
    call.status, call.total_cost_cents, call.duration_seconds = "completed", 3, 60
    call.chat_metrics = {"total_tokens": 9, "input_tokens": 4, "output_tokens": 5, "turn_count": 2}


def without_evals(_: int, call: SimulatedCall) -> None:
    call.eval_outputs = {}


def with_few_costs(number: int, call: SimulatedCall) -> None:
    call.stt_cost_cents = 3 if number == 0 else None


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        (of_a_chat, CALLS),
        (failed, CALLS),
        (without_evals, CALLS),
        (with_few_costs, CALLS),
        (lambda _, call: setattr(call, "avg_agent_latency_ms", None), 12),
    ],
    ids=["a chat", "failed calls", "no evals", "a column that few have", "few calls"],
)
async def test_other_calls_than_before_are_no_alarm(
    settled: Nights, change: Callable[[int, SimulatedCall], None], calls: int
) -> None:
    codes = []
    for _ in range(4):
        for number, call in enumerate(begin(settled, calls)):
            change(number, call)
        codes.append((await settled.export()).problems)
    assert not any(codes)
    assert_equals_world(settled.folder, settled.world)


async def test_what_the_detail_has_and_the_metrics_lack_is_an_alarm_that_costs_one_request_more(
    settled: Nights,
) -> None:
    """However few calls there are."""
    answer(settled, of_call, lambda call: call["cost"].update(total_cost_cents=None))
    begin(settled, 3)
    first = await settled.export()
    second = await settled.export()
    sent = [each.target for each in settled.server.requests if DETAIL in each.target or of_call(each)]
    third = await settled.export()

    assert (first.exit_code, second.exit_code, third.exit_code) == (0, 3, 3)
    assert "calls.cost_total_cost_cents is null in 3 calls of 1 execution; the execution's detail" in told(second)
    assert len(sent) == 2  # the detail, and one call
    settled.server.fault = None
    assert [(await settled.export()).exit_code for _ in range(2)] == [0, 0]
    assert_equals_world(settled.folder, settled.world)


async def test_a_detail_that_changes_with_the_metrics_costs_no_more(settled: Nights) -> None:
    renamed = Fault(edit=lambda body: body.replace(b'"avg_agent_latency_ms"', b'"agent_latency_ms"'))
    settled.server.fault = lambda request, _nth: renamed if of_call(request) or DETAIL in request.path else None
    begin(settled)
    codes = [(await settled.export()).exit_code for _ in range(3)]
    sent = [each.target for each in settled.server.requests if DETAIL in each.target or of_call(each)]
    assert codes == [3, 3, 3]
    assert len(sent) == 4, "of two executions: the one of the night before is not proved by its detail"
    settled.server.fault = None
    assert [(await settled.export()).exit_code for _ in range(2)] == [0, 0]
    assert_equals_world(settled.folder, settled.world)


async def test_a_version_that_knows_the_new_name_fetches_what_the_old_one_did_not_understand(
    settled: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(settled, of_call, rename_a_cost_that_the_detail_lacks)
    begin(settled)
    assert [(await settled.export()).exit_code for _ in range(3)] == [3, 3, 3]
    costs = MAKERS["calls"]._tree.fields["cost"].fields  # type: ignore[union-attr]
    monkeypatch.setitem(costs, "stt_cents", costs["stt_cost_cents"])
    monkeypatch.setitem(_FIELDS["calls"], "cost_stt_cost_cents", [(("cost", "stt_cents"), to_int)])
    assert [(await settled.export()).exit_code for _ in range(3)] == [0, 0, 0]
    assert_equals_world(settled.folder, settled.world)


async def test_a_late_value_that_only_extra_has_is_fetched_beside_a_field_that_is_new(settled: Nights) -> None:
    answer(settled, of_call, lambda call: call["latency"].update(queue_ms=5))
    calls = begin(settled)
    for call in calls:
        call.response_time_ms, call.system_metrics = None, {"provider_score": 1}
    assert (await settled.export()).exit_code == 0
    calls[5].system_metrics = {"provider_score": 2}
    assert [(await settled.export()).exit_code for _ in range(2)] == [0, 0]
    rows = {row["call_execution_id"]: row["extra"] for row in settled.rows("calls")}
    assert '"provider_score":2' in rows[calls[5].call_execution_id]


async def test_a_late_value_of_one_call_is_fetched_beside_what_the_metrics_of_another_lack(settled: Nights) -> None:
    calls = begin(settled)
    answer(
        settled,
        lambda request: of_call(request) and request.query["call_execution_id"] == calls[3].call_execution_id,
        lambda call: call["cost"].update(total_cost_cents=None),
    )
    await settled.export()
    calls[7].total_cost_cents = 99
    assert "is null in 1 call of 1 execution; the execution's detail" in told(await settled.export())
    costs = {row["call_execution_id"]: row["cost_total_cost_cents"] for row in settled.rows("calls")}
    assert (costs[calls[3].call_execution_id], costs[calls[7].call_execution_id]) == (None, 99)
