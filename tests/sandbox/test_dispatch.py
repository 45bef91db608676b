"""Every recorded request gets the recorded answer, or one of its shape where the recorded world cannot be rebuilt."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from random import Random
from typing import Any

import aiohttp
import pytest
import yarl

from etl.sandbox import Sandbox, World
from etl.sandbox.generate import add_execution, new_run_test
from etl.sandbox.world import (
    EvalConfig,
    Profile,
    Scenario,
    SimulatedCall,
    SimulatedExecution,
    SimulatedRunTest,
    listable_calls,
)
from tests.sandbox.requests import KEYS, RUN_TESTS, get
from tests.sandbox.samples import SAMPLES, result_of, without_sums
from tests.worlds import CALL_STATUSES, END, EXECUTION_STATUSES, world_of

BIG_NAME = "Ünïcode / Agent Test #1"
BIG_ID = "fb21abee-6eae-507e-8293-b01d1abc0173"
STATUSES_ID = "08351e4c-6d6d-54d8-ab7c-1ed89f7c4c53"

# The headers that the recorder sent; what a request's target cannot tell.
SENT = {
    "metrics_no_auth": {},
    "metrics_wrong_secret": {**KEYS, "X-Secret-Key": "wrong"},
    "metrics_disabled_key": {**KEYS, "X-Api-Key": "disabled"},
    "metrics_basic_auth_plus_keys": {**KEYS, "Authorization": "Basic dXNlcjpwYXNz"},
    "metrics_accept_html": {**KEYS, "Accept": "text/html"},
}

# Too much of the recorded world is unknown to rebuild these to the letter: their shape must agree, not their values.
SHAPE_ONLY = {
    *("metrics_execution", "metrics_name", "metrics_limit_0", "metrics_name_limit2_page2"),
    *("metrics_statuses_list", "metrics_shared_name"),
    *("runs_execution", "runs_execution_limit3", "runs_execution_page2"),
    *("runs_eval_name_one", "runs_name"),
    *("runtests_list", "runtests_limit2", "runtests_search"),
}


def call_with_answer(metrics: dict[str, Any], run: dict[str, Any] | None = None) -> SimulatedCall:
    """The call that gives this answer."""
    run = run or {"scenario_id": "353d02e2-8edf-55c8-95cb-9bc59e53e7b1", "scenario_name": "Billing"}
    latency, cost = dict(metrics["latency"]), dict(metrics["cost"])
    times: dict[str, Any] = {
        name: datetime.fromisoformat(run[name]) for name in ("started_at", "completed_at") if run.get(name)
    }
    return SimulatedCall(
        call_execution_id=metrics["call_execution_id"],
        scenario=Scenario(run["scenario_id"], run["scenario_name"]),
        status=metrics["status"],
        updated_at=END,
        duration_seconds=metrics["duration_seconds"],
        system_metrics=latency.pop("system_metrics", None),
        cost_breakdown=cost.pop("breakdown", None),
        chat_metrics=metrics["chat_metrics"],
        ended_reason=run.get("ended_reason"),
        call_summary=run.get("call_summary"),
        eval_outputs=run.get("eval_outputs", {}),
        **latency,
        **cost,
        **metrics["conversation"],
        **times,
    )


def execution_with_answer(
    run_test: SimulatedRunTest, result: dict[str, Any], calls: list[SimulatedCall]
) -> SimulatedExecution:
    started_at = datetime.fromisoformat(result["started_at"])
    return SimulatedExecution(
        execution_id=result["execution_id"],
        run_test=run_test,
        status=result["status"],
        created_at=started_at - timedelta(seconds=1),
        started_at=started_at,
        completed_at=datetime.fromisoformat(result["completed_at"]) if result["completed_at"] else None,
        total_calls=result["total_calls"],
        completed_calls=result["completed_calls"],
        failed_calls=result["failed_calls"],
        calls=calls,
    )


def recorded_configs(case: str) -> list[EvalConfig]:
    return [
        EvalConfig(each["result"][0]["id"], each["result"][0]["name"], each["output_type"], each["id"], each["name"])
        for each in result_of(case)["eval_results"]
    ]


def recorded_world() -> World:
    """A world that can express every recorded answer, with the recorded ids."""
    rng = Random(7)
    world = World(organization_id="24ddf894-d7fc-5ce0-9a5e-b97fb7c8a548")

    def run_test(name: str, number: int = 0) -> SimulatedRunTest:
        world.run_tests.append(new_run_test(rng, name, END - timedelta(days=60, minutes=number), Profile()))
        return world.run_tests[-1]

    big = run_test(BIG_NAME)
    big.eval_configs = recorded_configs("runs_execution")
    for number in range(25):
        status = {23: "evaluating", 24: "running"}.get(number, "completed")
        chat = number % 3 == 0
        big.profile = replace(big.profile, is_chat=chat)
        add_execution(world, big, rng, END - timedelta(hours=30 - number), 30, status=status)
    recorded = big.executions[1]
    recorded.execution_id = BIG_ID
    run = result_of("runs_call")
    recorded.calls[:5] = [
        call_with_answer(each, run if each["call_execution_id"] == run["call_execution_id"] else None)
        for each in (result_of(f"metrics_call_0{number}") for number in range(5))
    ]
    listed = [
        each
        for case in ("runs_execution", "runs_execution_page2")
        for each in result_of(case)["call_results"]["results"]
    ]
    for call, status in zip(listable_calls(recorded)[5:7], ("Failed", "skipped"), strict=True):
        call.eval_outputs = next(
            each["eval_outputs"]
            for each in listed
            if status in {one["status"] for one in each["eval_outputs"].values()}
        )

    statuses = run_test("All Statuses")
    for number, status in enumerate(EXECUTION_STATUSES):
        execution = add_execution(world, statuses, rng, END - timedelta(hours=20 - number), 30, status=status)
        execution.calls += [
            call_with_answer(result_of(f"metrics_call_status_{each}"))
            for each in CALL_STATUSES
            if status == "completed" and f"metrics_call_status_{each}" in SAMPLES
        ]
        if status == "completed":
            execution.execution_id = STATUSES_ID

    for number in range(2):
        shared = run_test("Shared Name", number)
        for order in range(6):
            status = {4: "evaluating", 5: "running"}.get(order, "completed")
            add_execution(world, shared, rng, END - timedelta(hours=10 - order, minutes=30 * number), 4, status=status)
    add_execution(world, run_test("Only Running"), rng, END - timedelta(hours=1), 3, status="running")
    run_test("Empty Run Test")

    edge = run_test("Edge Cases")
    edge.eval_configs = recorded_configs("runs_edge_zero_calls")
    edge.executions.append(execution_with_answer(edge, result_of("metrics_edge_zero_calls"), []))
    null_objects = result_of("runs_edge_eval_null_objects")
    calls = [
        SimulatedCall(
            call_execution_id=each["call_execution_id"],
            scenario=Scenario(each["scenario_id"], each["scenario_name"]),
            status=each["status"],
            updated_at=END - timedelta(seconds=order),
            duration_seconds=each["duration_seconds"],
            eval_outputs=each["eval_outputs"],
        )
        for order, each in enumerate(null_objects["call_results"]["results"])
    ]
    edge.executions.append(execution_with_answer(edge, null_objects, calls))
    no_metrics = result_of("metrics_call_edge_no_metrics")
    calls = [
        call_with_answer({**no_metrics, "call_execution_id": f"{each}{no_metrics['call_execution_id'][1:]}"})
        for each in "012"
    ]
    edge.executions.append(execution_with_answer(edge, result_of("metrics_edge_no_metrics"), calls))
    for case in ("edge_chat_only", "edge_large_ints", "edge_true_zero", "json_scalars_0", "json_scalars_1"):
        metrics_of = result_of(f"metrics_call_{case}")
        head = {**result_of("metrics_edge_zero_calls"), "execution_id": metrics_of["execution_id"]}
        edge.executions.append(execution_with_answer(edge, head, [call_with_answer(metrics_of)]))

    padded = run_test("a,b", 5)
    padded.eval_configs = []
    for number in range(26 - len(world.run_tests)):
        run_test(f"Filler {number}", 10 + number)
    return World(world.organization_id, world.run_tests)


FREE_FORM = {"eval_outputs", "system_metrics", "breakdown"}


def kinds(value: Any, path: str = "", *, is_free: bool = False) -> Iterator[tuple[str, str]]:
    """Every path of a JSON value with the kind of what stands there; keys of free-form objects are all alike."""
    yield path, type(value).__name__
    if isinstance(value, dict):
        for key, inner in value.items():
            place = f"{path}.{'*' if is_free or key.startswith('[') else key}"
            yield from kinds(inner, place, is_free=key in FREE_FORM)
    elif isinstance(value, list):
        for inner in value:
            yield from kinds(inner, f"{path}[]")


def shape(bodies: list[Any]) -> dict[str, set[str]]:
    """Every path of these bodies, and which kinds stand there beside null."""
    found: dict[str, set[str]] = {}
    for path, kind in chain.from_iterable(kinds(body) for body in bodies):
        found.setdefault(path, set()).update({kind} - {"NoneType"})
    return found


def family(case: str) -> str:
    """Samples of the same endpoint and selector have one shape between them."""
    url = yarl.URL(SAMPLES[case]["request"]["target"], encoded=True)
    return f"{url.path} {min(url.query.keys() & {'run_test_name', 'execution_id'}, default='')}"


async def answer_of(sandbox: Sandbox, case: str) -> tuple[int, dict[str, str], bytes]:
    request = SAMPLES[case]["request"]
    url = yarl.URL(f"{sandbox.base_url}{request['target']}", encoded=True)
    async with (
        aiohttp.ClientSession(headers=SENT.get(case, KEYS)) as session,
        session.request(request["method"], url, allow_redirects=False) as response,
    ):
        return response.status, dict(response.headers), await response.read()


@pytest.fixture(scope="module")
def as_recorded() -> World:
    return recorded_world()


@pytest.mark.parametrize("case", sorted(SAMPLES.keys() - {"ratelimit_429"}))
async def test_recorded_request_gets_the_recorded_answer(case, as_recorded):
    sample = SAMPLES[case]
    async with Sandbox(as_recorded) as sandbox:
        status, headers, body = await answer_of(sandbox, case)
    headers = {name.lower(): value for name, value in headers.items()}
    assert status == sample["status"]
    assert {name: headers.get(name) for name in sample["headers"]} == sample["headers"]
    if "body_text" in sample:
        assert body.decode() == sample["body_text"]
    elif case not in SHAPE_ONLY:
        assert json.loads(body) == without_sums(sample["body"])


@pytest.mark.parametrize("group", sorted({family(case) for case in SHAPE_ONLY}))
async def test_answers_of_one_endpoint_have_the_recorded_shape(group, as_recorded):
    cases = [case for case in SAMPLES if case in SHAPE_ONLY and family(case) == group]
    async with Sandbox(as_recorded) as sandbox:
        given = shape([json.loads((await answer_of(sandbox, case))[2]) for case in cases])
    recorded = shape([without_sums(SAMPLES[case]["body"]) for case in cases])
    assert given.keys() == recorded.keys()
    known = [path for path in given if given[path] and recorded[path]]  # the others were null throughout, on one side
    assert {path: given[path] for path in known} == {path: recorded[path] for path in known}


async def test_run_tests_link_to_their_neighbours(session):
    async with Sandbox(world_of(run_tests=5, executions=0)) as sandbox:
        _, page = await get(session, sandbox, RUN_TESTS, limit=2, page=2)
        async with session.get(page["next"]) as response:
            last = await response.json()
        async with session.get(page["previous"]) as response:
            first = await response.json()
    assert [len(each["results"]) for each in (first, page, last)] == [2, 2, 1]
    assert (first["previous"], last["next"]) == (None, None)
