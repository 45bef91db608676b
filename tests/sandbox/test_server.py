"""The sandbox answers as the real server did: every recorded answer, and every way in which the API misbehaves."""

import asyncio
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
from hypothesis import given
from hypothesis import strategies as st

from etl.sandbox import (
    Call,
    EvalConfig,
    Execution,
    Fault,
    Profile,
    RunTest,
    Sandbox,
    Scenario,
    World,
    add_execution,
    delete_call,
    delete_execution,
    listable_calls,
    listable_executions,
    new_run_test,
    rename_run_test,
    touch_call,
)
from etl.sandbox.server import FixedWindow
from etl.sandbox.world import CALL_STATUSES, EXECUTION_STATUSES
from tests.sandbox.requests import KEYS, METRICS, RUN_TESTS, RUNS, get
from tests.sandbox.samples import SAMPLES, result_of
from tests.worlds import END, world_of

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


def call_with_answer(metrics: dict[str, Any], run: dict[str, Any] | None = None) -> Call:
    """The call that gives this answer."""
    run = run or {"scenario_id": "353d02e2-8edf-55c8-95cb-9bc59e53e7b1", "scenario_name": "Billing"}
    latency, cost = dict(metrics["latency"]), dict(metrics["cost"])
    times: dict[str, Any] = {
        name: datetime.fromisoformat(run[name]) for name in ("started_at", "completed_at") if run.get(name)
    }
    return Call(
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


def execution_with_answer(run_test: RunTest, result: dict[str, Any], calls: list[Call]) -> Execution:
    started_at = datetime.fromisoformat(result["started_at"])
    return Execution(
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

    def run_test(name: str, number: int = 0) -> RunTest:
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
        Call(
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


FREE_FORM = {"eval_outputs", "system_metrics", "breakdown", "total_choices_avg"}


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
        assert json.loads(body) == sample["body"]


@pytest.mark.parametrize("group", sorted({family(case) for case in SHAPE_ONLY}))
async def test_answers_of_one_endpoint_have_the_recorded_shape(group, as_recorded):
    cases = [case for case in SAMPLES if case in SHAPE_ONLY and family(case) == group]
    async with Sandbox(as_recorded) as sandbox:
        given = shape([json.loads((await answer_of(sandbox, case))[2]) for case in cases])
    recorded = shape([SAMPLES[case]["body"] for case in cases])
    assert given.keys() == recorded.keys()
    known = [path for path in given if given[path] and recorded[path]]  # the others were null throughout, on one side
    assert {path: given[path] for path in known} == {path: recorded[path] for path in known}


async def listed(session, sandbox, **params):
    return (await get(session, sandbox, METRICS, run_test_name=sandbox.world.run_tests[0].name, **params))[1]["result"]


async def test_pages_put_together_are_the_list_in_order(world, session):
    execution = world.run_tests[0].executions[0]
    async with Sandbox(world) as sandbox:
        executions = [
            row["execution_id"]
            for page in range(1, 4)
            for row in (await listed(session, sandbox, limit=5, page=page))["results"]
        ]
        calls = [
            row["call_execution_id"]
            for page in range(1, 5)
            for row in (await get(session, sandbox, RUNS, execution_id=execution.execution_id, limit=2, page=page))[1][
                "result"
            ]["call_results"]["results"]
        ]
    assert executions == [each.execution_id for each in listable_executions(world, world.run_tests[0].name)]
    assert calls == [each.call_execution_id for each in listable_calls(execution)]
    assert executions[0] == max(world.run_tests[0].executions, key=lambda each: each.created_at).execution_id


@pytest.mark.parametrize("limit", ["0", "-3", "many", ""])
async def test_limit_that_is_no_positive_integer_means_ten(limit, world, session):
    async with Sandbox(world) as sandbox:
        page = await listed(session, sandbox, limit=limit)
    assert (len(page["results"]), page["total_pages"], page["count"]) == (10, 2, 12)


@pytest.mark.parametrize("page", ["0", "-1", "3", "abc"])
async def test_page_that_does_not_exist_is_a_500(page, world, session):
    async with Sandbox(world) as sandbox:
        status, body = await get(session, sandbox, METRICS, run_test_name=world.run_tests[0].name, page=page)
    assert (status, body) == (500, SAMPLES["metrics_page_999"]["body"])


async def test_server_may_cap_the_limit(world, session):
    async with Sandbox(world, max_limit=4) as sandbox:
        page = await listed(session, sandbox, limit=1000)
    assert (len(page["results"]), page["total_pages"]) == (4, 3)


async def test_run_tests_link_to_their_neighbours(session):
    async with Sandbox(world_of(run_tests=5, executions=0)) as sandbox:
        _, page = await get(session, sandbox, RUN_TESTS, limit=2, page=2)
        async with session.get(page["next"]) as response:
            last = await response.json()
        async with session.get(page["previous"]) as response:
            first = await response.json()
    assert [len(each["results"]) for each in (first, page, last)] == [2, 2, 1]
    assert (first["previous"], last["next"]) == (None, None)


async def test_one_fractional_token_count_makes_every_page_that_holds_it_a_500(world, session):
    newest_first = listable_executions(world, world.run_tests[0].name)
    newest_first[4].calls[0].chat_metrics = {"total_tokens": 2.5}
    async with Sandbox(world) as sandbox:
        pages = [
            await get(session, sandbox, METRICS, run_test_name=world.run_tests[0].name, limit=4, page=page)
            for page in (1, 2, 3)
        ]
        own = await get(session, sandbox, METRICS, call_execution_id=newest_first[4].calls[0].call_execution_id)
    assert [status for status, _ in pages] == [200, 500, 200]
    assert own[1]["result"]["chat_metrics"] == {"total_tokens": 2.5}


@pytest.mark.parametrize(
    ("path", "query", "field", "text"),
    [
        (METRICS, {"run_test_name": "  "}, "run_test_name", "This field may not be blank."),
        (METRICS, {"execution_id": BIG_ID, "eval_name": "x"}, "eval_name", "Unknown field."),
        (RUNS, {"call_execution_id": "1"}, "call_execution_id", "Must be a valid UUID."),
    ],
)
async def test_wrong_parameter_is_named_in_a_400(path, query, field, text, world, session):
    async with Sandbox(world) as sandbox:
        status, body = await get(session, sandbox, path, **query)
    assert (status, body["attr"], body["details"], body["errors"]) == (400, field, {field: [text]}, {field: [text]})


async def test_unknown_path_is_an_html_404_even_without_keys(world):
    async with (
        Sandbox(world) as sandbox,
        aiohttp.ClientSession(sandbox.base_url) as stranger,
        stranger.get("/sdk/api/v2/simulation/metrics/") as response,
    ):
        assert (response.status, response.content_type) == (404, "text/html")


async def test_rate_limit_is_a_calendar_minute_in_which_refused_requests_count(world, session):
    now = 1_800_000_037.0
    async with Sandbox(world, rate_limit=5, clock=lambda: now) as sandbox:
        url = f"{sandbox.base_url}{METRICS}"
        seen = []
        for _ in range(7):
            async with session.get(url, params={"run_test_name": "Checkout flow"}) as response:
                seen.append((response.status, response.headers["X-RateLimit-Remaining"]))
        assert seen == [(200, str(left)) for left in (4, 3, 2, 1, 0)] + [(429, "0")] * 2
        assert (response.headers["X-RateLimit-Limit"], response.headers["X-RateLimit-Reset"]) == ("5", "1800000060")
        sample = SAMPLES["ratelimit_429"]
        async with session.get(url) as response:
            assert await response.json() == sample["body"]
            assert {name: response.headers[name] for name in sample["headers"]} == sample["headers"]
        now = 1_800_000_060.0
        assert (await get(session, sandbox, METRICS, run_test_name="Checkout flow"))[0] == 200
        now = 1_800_000_119.99
        statuses = [(await get(session, sandbox, METRICS, run_test_name="Checkout flow"))[0] for _ in range(5)]
        assert statuses == [200, 200, 200, 200, 429]


async def test_rate_limit_may_keep_its_headers_to_itself(world, session):
    async with (
        Sandbox(world, rate_limit=1, rate_headers=False) as sandbox,
        session.get(f"{sandbox.base_url}{METRICS}") as response,
    ):
        assert not [name for name in response.headers if name.startswith("X-RateLimit")]


async def test_world_may_change_between_two_pages(world, session):
    run_test = world.run_tests[0]

    def on_request(request):
        if request.query.get("page") == "2":
            add_execution(world, run_test, Random(5), END + timedelta(hours=1), 3)

    async with Sandbox(world, on_request=on_request) as sandbox:
        first = await listed(session, sandbox, limit=5)
        second = await listed(session, sandbox, limit=5, page=2)
    assert (first["count"], second["count"]) == (12, 13)
    assert second["results"][0] == first["results"][-1]


async def test_call_saved_between_two_pages_is_never_seen(world, session):
    execution = world.run_tests[0].executions[0]
    last = listable_calls(execution)[-1]

    def on_request(request):
        if request.query.get("page") == "2":
            touch_call(last, END + timedelta(hours=1))

    async with Sandbox(world, on_request=on_request) as sandbox:
        pages = [
            (await get(session, sandbox, RUNS, execution_id=execution.execution_id, limit=4, page=page))[1]["result"][
                "call_results"
            ]
            for page in (1, 2)
        ]
    seen = [row["call_execution_id"] for page in pages for row in page["results"]]
    assert (len(seen), len(set(seen)), {page["count"] for page in pages}) == (7, 6, {7})
    assert last.call_execution_id not in seen


async def test_what_is_added_renamed_or_deleted_is_found_as_it_is_now(world, session):
    run_test = world.run_tests[0]
    old, doomed = run_test.executions[:2]
    async with Sandbox(world) as sandbox:
        new = add_execution(world, run_test, Random(5), END, 3)
        delete_call(old.calls[0])
        delete_execution(doomed)
        rename_run_test(run_test, "Renamed")
        statuses = [
            (await get(session, sandbox, METRICS, **query))[0]
            for query in (
                {"execution_id": new.execution_id},
                {"call_execution_id": new.calls[0].call_execution_id},
                {"call_execution_id": old.calls[0].call_execution_id},
                {"execution_id": doomed.execution_id},
                {"call_execution_id": doomed.calls[0].call_execution_id},
                {"run_test_name": "Checkout flow"},
            )
        ]
        assert statuses == [200, 200, 404, 404, 404, 404]
        assert (await listed(session, sandbox))["count"] == 12
        _, metrics = await get(session, sandbox, METRICS, execution_id=old.execution_id)
        _, run = await get(session, sandbox, RUNS, execution_id=old.execution_id)
    assert metrics["result"]["metrics"]["calls"]["total"] == metrics["result"]["total_calls"] == 7
    assert run["result"]["call_results"]["count"] == 6


async def test_latency_does_not_queue_requests(world, session):
    loop = asyncio.get_running_loop()
    async with Sandbox(world, latency_seconds=0.1) as sandbox:
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(get(session, sandbox, METRICS, run_test_name="Checkout flow"))
        took = loop.time() - began
    assert 0.1 <= took < 0.9


async def test_stopping_does_not_wait_for_a_hanging_request(world, session):
    received = asyncio.Event()

    async def ask():
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(session, sandbox, METRICS)

    async with (
        Sandbox(
            world, fault=lambda _request, _nth: Fault(is_hanging=True), on_request=lambda _request: received.set()
        ) as sandbox,
        asyncio.timeout(5),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(ask())
        await received.wait()
        await sandbox.stop()
    assert [each.status for each in sandbox.requests] == [None]


@given(st.integers(1, 5), st.lists(st.floats(0, 300), max_size=30))
def test_window_never_lets_more_than_its_limit_through(limit, moments):
    window = FixedWindow(limit)
    allowed: dict[float, int] = {}
    for now in sorted(moments):
        verdict = window.take(now)
        allowed[now // 60] = allowed.get(now // 60, 0) + verdict.is_allowed
        assert verdict.resets_at - 60 <= now < verdict.resets_at
        assert 1 <= verdict.retry_after_seconds <= 60
        assert verdict.is_allowed or verdict.remaining == 0
    assert all(1 <= count <= limit for count in allowed.values())
