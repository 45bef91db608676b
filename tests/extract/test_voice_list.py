"""Voice calls come whole from two lists, which one call confirms; whatever is wrong with these, the rows are right."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from etl.model.findings import Kind
from etl.model.records import DETAIL, METRICS, RUNS, VOICE_CALLS
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, SandboxRequest, World
from etl.sandbox.simulate import PHONE_NUMBER
from tests.e2e.truth import assert_equals_world, rows_of
from tests.forms import VOICE_LISTS, formed, in_rows, of_call, renames
from tests.support import settings_for
from tests.worlds import add_mixed_execution, settled_world

ENDED = datetime(2026, 10, 30, 15, tzinfo=UTC)
LATER, DAY = ENDED + timedelta(days=4), timedelta(days=1)
EXECUTIONS, CALLS = 4, 15


async def export(server: Sandbox, folder: Path, now: datetime = LATER, **sections: Any) -> Summary:
    server.requests.clear()
    return await job.export(settings_for(server, folder / "data", **sections), clock=lambda: now)


def asked(server: Sandbox) -> Counter[str]:
    """How many requests of each kind."""
    kinds = {RUNS: "runs", VOICE_CALLS: "voice"}
    return Counter(
        "detail"
        if request.path.startswith(DETAIL)
        else kinds.get(request.path) or ("call" if "call_execution_id" in request.query else "other")
        for request in server.requests
    )


def voice_world(**options: Any) -> World:
    return settled_world(**{"run_tests": 1, "days": 1, "executions": EXECUTIONS, "calls": CALLS, **options})


def told(summary: Summary) -> list[str]:
    return [each.text for each in summary.findings if each.kind is Kind.ONE_BY_ONE]


async def test_voice_calls_cost_three_requests_an_execution_and_two_while_they_settle(tmp_path: Path) -> None:
    async with Sandbox(voice_world()) as server:
        first = await export(server, tmp_path, ENDED + timedelta(hours=2))
        sent = asked(server)
        again = await export(server, tmp_path, ENDED + timedelta(hours=4))
        compared = asked(server)
    assert (first.exit_code, again.exit_code, told(first)) == (0, 0, [])
    assert sent == {"other": 3, "detail": EXECUTIONS, "voice": EXECUTIONS, "call": EXECUTIONS}
    assert compared == {"other": 1, "detail": EXECUTIONS, "voice": EXECUTIONS}
    assert Counter(row["metrics_from"] for row in rows_of(tmp_path, "calls")) == {
        "lists": EXECUTIONS * (CALLS - 1),
        "metrics": EXECUTIONS,
    }
    assert_equals_world(tmp_path, server.world)
    assert PHONE_NUMBER not in json.dumps(rows_of(tmp_path, "calls"), default=str)


@pytest.mark.parametrize("wrong", VOICE_LISTS)
async def test_without_a_list_of_voice_calls_rows_are_the_same_at_one_request_more(tmp_path: Path, wrong: str) -> None:
    fault = VOICE_LISTS[wrong]
    async with Sandbox(voice_world(calls=6)) as server:
        server.fault = lambda request, _nth: fault if request.path == VOICE_CALLS else None
        summary = await export(server, tmp_path, api={"concurrency": 1})
    sent = asked(server)
    assert (summary.exit_code, len(told(summary))) == (0, 1)
    assert sent["voice"] == (1 if wrong in ("absent", "not allowed", "refused") else 3), "the run stops asking"
    assert sent["detail"] == EXECUTIONS
    is_read = wrong == "a lie"  # it is found by a call, once the list is read
    assert sent["runs"] == EXECUTIONS - (sent["voice"] if is_read else 0)
    assert sent["call"] == EXECUTIONS * 6
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("bad", [1, 2, 3])
async def test_call_whose_own_metrics_cannot_be_had_is_whole_from_lists_if_another_confirms_these(
    tmp_path: Path, bad: int
) -> None:
    asked_first: list[str] = []

    def fail(request: SandboxRequest, _nth: int) -> Fault | None:
        if call_id := request.query.get("call_execution_id"):
            asked_first.extend([call_id] if call_id not in asked_first else [])
        return Fault(status=500) if call_id in asked_first[:bad] else None

    async with Sandbox(voice_world(executions=1)) as server:
        server.fault = fail
        summary = await export(server, tmp_path, api={"max_tries": 1})
    if bad == 3:
        assert (summary.exit_code, len(asked_first)) == (3, CALLS)
        return
    assert (summary.exit_code, len(asked_first)) == (0, bad + 1)
    assert_equals_world(tmp_path, server.world)


async def test_a_new_field_of_calls_own_metrics_is_no_reason_to_ask_for_each(tmp_path: Path) -> None:
    async with Sandbox(voice_world()) as server:
        edit = Fault(edit=lambda body: formed(body, lambda call: call["latency"].update(ttfb_ms=120)))
        server.fault = lambda request, _nth: edit if of_call(request) else None
        summary = await export(server, tmp_path)
    assert (summary.exit_code, told(summary), asked(server)["call"]) == (0, [], EXECUTIONS)


async def test_what_a_stage_costs_is_not_null_where_only_the_list_has_it(tmp_path: Path) -> None:
    async with Sandbox(voice_world()) as server:
        edit = Fault(edit=lambda body: formed(body, lambda call: call["cost"].update(llm_cost_cents=None)))
        server.fault = lambda request, _nth: edit if of_call(request) else None
        summary = await export(server, tmp_path)
    assert (summary.exit_code, told(summary), asked(server)["call"]) == (0, [], EXECUTIONS)
    assert_equals_world(tmp_path, server.world)


async def test_chats_are_not_asked_for_as_voice_calls(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=3, days=1, executions=2, calls=4)) as server:
        name = server.world.run_tests[2].name
        assert (await export(server, tmp_path, run_tests=[name])).exit_code == 0
    assert asked(server)["voice"] == 0
    assert asked(server)["call"] == 8


@pytest.mark.parametrize("says_kind", [True, False])
async def test_calls_of_which_some_are_chats_are_fetched_one_by_one(tmp_path: Path, *, says_kind: bool) -> None:
    """A detail that does not say which calls are chats has more calls than the list of voice calls."""
    world = voice_world(executions=1)
    add_mixed_execution(world, world.run_tests[0], Random(1), ENDED - DAY, 6, chats=2)
    nameless = Fault(edit=lambda body: formed(body, in_rows(renames("simulation_call_type", "kind"))))
    fault = None if says_kind else lambda request, _: nameless if request.path.startswith(DETAIL) else None
    async with Sandbox(world, fault=fault) as server:
        summary = await export(server, tmp_path)
        sent = asked(server)
        again = await export(server, tmp_path, LATER + DAY, export={"sweep_days": 1})
    assert (summary.exit_code, again.exit_code) == (0, 0)
    assert (sent["voice"], sent["call"]) == (2 - says_kind, 1 + 6)
    assert [text.endswith("its list of voice calls has 4 calls, but its detail has 6") for text in told(summary)] == (
        [] if says_kind else [True]
    )
    assert asked(server)["call"] == 0
    assert_equals_world(tmp_path, world)


async def test_evals_that_the_usual_list_cannot_give_come_with_the_voice_calls(tmp_path: Path) -> None:
    world = voice_world(executions=1)
    for call in world.run_tests[0].executions[0].calls:
        for output in call.eval_outputs.values():
            output |= {"output": 0.5, "output_type": "numeric"}
    async with Sandbox(world) as server:
        assert (await export(server, tmp_path)).exit_code == 0
    assert asked(server)["runs"] == 0
    assert_equals_world(tmp_path, world)


@pytest.mark.parametrize("name", ["stt_cost_cents", "llm_cost_cents", "tts_cost_cents", "eval_outputs"])
async def test_what_comes_late_of_a_voice_call_is_seen_while_it_settles(tmp_path: Path, name: str) -> None:
    """Costs of stages, and the mere status of an eval, too."""
    world = voice_world(executions=1)
    call = next(call for call in world.run_tests[0].executions[0].calls if call.eval_outputs)
    async with Sandbox(world) as server:
        await export(server, tmp_path, ENDED + timedelta(hours=2))
        if name == "eval_outputs":
            for output in call.eval_outputs.values():
                output["status"] = "rechecked"
        else:
            setattr(call, name, 4_711)
        await export(server, tmp_path, ENDED + timedelta(hours=4))
    assert asked(server) == {"other": 1, "detail": 1, "voice": 1} | ({} if name == "eval_outputs" else {"call": 1})
    assert_equals_world(tmp_path, world)


async def test_first_rows_of_voice_calls_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where fetching all calls would take long, rows of lists come first; those of voice calls are final then."""
    monkeypatch.setattr("etl.pipeline.shared_steps.MANY_REQUESTS", 10)
    world = settled_world(run_tests=3, days=1, executions=2, calls=4)
    voice = {each.execution_id for test in world.run_tests[:2] for each in test.executions}
    early: list[dict[str, Any]] = []

    def look(request: SandboxRequest) -> None:
        if not early and request.path == METRICS and sent["call"] == len(voice):
            early.extend(rows_of(tmp_path, "calls"))
        sent["call"] += "call_execution_id" in request.query

    sent = Counter[str]()
    async with Sandbox(world) as server:
        planned = await job.plan(settings_for(server, tmp_path / "data"), clock=lambda: LATER)
        server.on_request = look
        summary = await export(server, tmp_path)
        quiet = await export(server, tmp_path)
    assert (summary.exit_code, quiet.requests) == (0, 3)
    assert {row["execution_id"]: row["metrics_from"] for row in early if row["execution_id"] not in voice} != {}
    assert {row["metrics_from"] for row in early if row["execution_id"] in voice} == {"lists", "metrics"}
    assert {row["metrics_from"] for row in early if row["execution_id"] not in voice} == {"detail"}
    assert summary.requests_by_purpose == planned.requests_by_purpose
    assert [dict(each.reasons) for each in summary.run_tests[:2]] == [{"new": 2}, {"new": 2}]
    assert_equals_world(tmp_path, world)


async def test_single_call_is_fetched_by_itself_also_where_lists_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etl.pipeline.shared_steps.MANY_REQUESTS", 1)
    async with Sandbox(voice_world(calls=1)) as server:
        assert (await export(server, tmp_path)).exit_code == 0
    assert {row["metrics_from"] for row in rows_of(tmp_path, "calls")} == {"metrics"}
    assert {row["export_state"] for row in rows_of(tmp_path, "executions")} == {"exported"}
    assert asked(server) == {"other": 3, "detail": EXECUTIONS, "voice": EXECUTIONS, "call": EXECUTIONS}


async def test_payloads_are_kept_of_each_call_by_itself(tmp_path: Path) -> None:
    async with Sandbox(voice_world(executions=1, calls=4)) as server:
        await export(server, tmp_path, export={"include_raw": True})
    assert all(row["raw"] for row in rows_of(tmp_path, "calls"))


async def test_pages_grow_while_they_are_fast(tmp_path: Path) -> None:
    async with Sandbox(voice_world(executions=2, calls=100, calls_spread=0)) as server:
        assert (await export(server, tmp_path, api={"concurrency": 1})).exit_code == 0
    pages = [(each.query["page"], each.query["limit"]) for each in server.requests if each.path == VOICE_CALLS]
    assert pages == [("1", "32"), ("2", "32"), ("3", "32"), ("4", "32"), ("1", "64"), ("2", "64")]
