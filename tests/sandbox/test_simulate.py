"""The detail and the voice calls of an execution, as the sandbox gives them, against recorded answers."""

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest

from etl.sandbox import Sandbox
from etl.sandbox.dispatch import VOICE_CALLS
from etl.sandbox.generate import add_execution
from etl.sandbox.world import EvalConfig, World
from tests.sandbox.samples import without_sums
from tests.sandbox.test_dispatch import call_with_answer, execution_with_answer
from tests.worlds import END, add_mixed_execution, world_of

SAMPLES = {path.stem: json.loads(path.read_bytes()) for path in Path(__file__).parents[1].glob("samples/detail/*.json")}
PATH = "/simulate/test-executions"


def recorded_execution(case: str) -> tuple[World, str]:
    """A world with the execution of a recorded detail, made of the other recorded answers about its calls."""
    world = world_of(executions=0)
    runs = (SAMPLES.get(f"runs_{case}") or SAMPLES[f"{case}_runs"])["body"]["result"]
    own = [sample["body"]["result"] for name, sample in SAMPLES.items() if name.startswith(f"{case}_metrics_")]
    by_id = {each["call_execution_id"]: each for each in own}
    calls = []
    for order, listed in enumerate(runs["call_results"]["results"]):
        calls.append(call_with_answer(by_id[listed["call_execution_id"]], listed))
        calls[-1].updated_at = END - timedelta(seconds=order)
    run_test = world.run_tests[0]
    run_test.profile = replace(run_test.profile, is_chat=case == "detail_chat")
    configs = {key: each["name"] for call in calls for key, each in call.eval_outputs.items()}
    run_test.eval_configs = [EvalConfig(key, name, "score", key, name) for key, name in configs.items()]
    run_test.executions.append(execution_with_answer(run_test, runs, calls))
    return World(world.organization_id, [run_test]), runs["execution_id"]


async def answered(session: Any, sandbox: Sandbox, target: str) -> tuple[int, Any]:
    async with session.get(f"{sandbox.base_url}{target}", allow_redirects=False) as response:
        return response.status, await response.json() if "json" in response.content_type else await response.text()


@pytest.mark.parametrize("case", ["detail_voice", "detail_chat"])
async def test_detail_has_the_recorded_calls(case, session):
    recorded = SAMPLES[case]["body"]
    world, execution_id = recorded_execution(case)
    async with Sandbox(world) as sandbox:
        status, body = await answered(session, sandbox, f"{PATH}/{execution_id}/?limit=100&page=1")
    assert status == 200
    assert body.keys() == recorded.keys()
    assert (body["count"], body["total_pages"], body["next"]) == (recorded["count"], 1, None)
    # What no other answer tells of a call cannot be rebuilt, nor can what the provider's object holds beside the
    # metrics.
    unknown = {"timestamp", "start_time", "overall_score", "ended_reason", "call_summary", "customer_latency_metrics"}
    unknown |= {"agent_definition_used_id", "agent_definition_used_name", "provider", "phone_number"}
    for given, call in zip(body["results"], recorded["results"], strict=True):
        assert {name: call[name] for name in given.keys() - unknown} == {
            name: given[name] for name in given.keys() - unknown
        }
        measured = (call["customer_latency_metrics"] or {}).get("systemMetrics")
        assert (given["customer_latency_metrics"] or {}).get("systemMetrics") == measured


@pytest.mark.parametrize(
    "case", ["detail_limit_0", "detail_page_0", "detail_unknown_param", "detail_not_found", "detail_no_trailing_slash"]
)
async def test_refusals_of_the_detail_are_the_recorded_ones(case, session):
    sample = SAMPLES[case]
    world, execution_id = recorded_execution("detail_voice")
    parts = urlsplit(sample["request"]["target"])
    assert execution_id in parts.path or case == "detail_not_found"
    async with Sandbox(world) as sandbox:
        status, body = await answered(session, sandbox, sample["request"]["target"])
    assert (status, body) == (sample["status"], sample.get("body", sample.get("body_text", "")))


async def test_page_past_the_end_of_the_detail_is_empty(session):
    world, execution_id = recorded_execution("detail_voice")
    async with Sandbox(world) as sandbox:
        status, body = await answered(session, sandbox, f"{PATH}/{execution_id}/?limit=2&page=999")
    recorded = SAMPLES["detail_page_999"]["body"]
    names = ("count", "next", "previous", "total_pages", "current_page", "results")
    assert (status, {name: body[name] for name in names}) == (200, {name: recorded[name] for name in names})


async def test_voice_calls_are_the_recorded_ones(session):
    recorded = SAMPLES["voice_list"]["body"]
    world, execution_id = recorded_execution("voice_list")
    async with Sandbox(world) as sandbox:
        target = SAMPLES["voice_list"]["request"]["target"]
        status, body = await answered(session, sandbox, target)
        assert execution_id in target
        calls = [call.call_execution_id for call in world.run_tests[0].executions[0].calls]
        beyond = await answered(session, sandbox, SAMPLES["voice_list_page_beyond"]["request"]["target"])
    assert (status, {**body, "results": []}) == (200, {**recorded, "results": []})
    assert [each["id"] for each in body["results"]] == calls
    assert beyond == (404, SAMPLES["voice_list_page_beyond"]["body"])
    # No answer from which the world was rebuilt tells these.
    unknown = {"started_at", "completed_at", "ended_reason", "call_summary", "overall_score", "customer_cost_cents"}
    unknown |= {"phone_number", "transcripts", "provider_call_data", "recording_url"}
    for given, call in zip(body["results"], recorded["results"], strict=True):
        assert {name: call[name] for name in given.keys() - unknown} == {
            name: given[name] for name in given.keys() - unknown
        }


@pytest.mark.parametrize("case", ["", "_empty", "_limit_0", "_page_beyond", "_unknown"])
async def test_executions_of_a_run_test_are_listed_as_recorded_and_one_without_a_version_has_the_newest(case, session):
    sample = SAMPLES[f"executions_of_a_run_test{case}"]
    world = world_of(run_tests=1, executions=0)
    (run_test,) = world.run_tests
    run_test.run_test_id = "" if case == "_unknown" else sample["request"]["target"].split("/")[3]
    run_test.description, recorded = "Ägent V", sample["body"].get("results", [])
    for number in range(sample["body"].get("count", 1)):
        made = add_execution(world, run_test, Random(1), END - timedelta(hours=number), 0)
        made.agent_version = None
        if number < len(recorded):
            made.execution_id, made.status = recorded[number]["id"], recorded[number]["status"].lower()
    async with Sandbox(world) as sandbox:
        status, body = await answered(session, sandbox, sample["request"]["target"])
        assert status == sample["status"]
        assert {**body, "results": 0, "next": 0} == {**sample["body"], "results": 0, "next": 0}
        told = ("id", "status", "error_reason", "agent_version", "agent_definition", "agent_type", "source_type")
        rows = [{name: each[name] for name in told} for each in body.get("results", [])]
        assert rows == [{name: each[name] for name in told} for each in recorded]
        for each in run_test.executions[1:2]:
            each.agent_version = "v7"
            _, body = await answered(session, sandbox, sample["request"]["target"])
            assert {each["agent_version"] for each in body.get("results", [])} <= {"v7"}


async def test_execution_has_voice_calls_and_chats(session):
    """Its detail has both, and says which are which; the list of voice calls has no chats."""
    world = world_of(executions=0)
    execution = add_mixed_execution(world, world.run_tests[0], Random(1), END, 20, chats=8)
    async with Sandbox(world) as sandbox:
        _, detail = await answered(session, sandbox, f"{PATH}/{execution.execution_id}/?limit=100")
        _, voice = await answered(
            session, sandbox, f"{VOICE_CALLS}?test_execution_id={execution.execution_id}&limit=100"
        )
    kinds = {each["id"]: each["simulation_call_type"] for each in detail["results"]}
    assert Counter(kinds.values()) == {"voice": 12, "text": 8}
    assert {each["id"] for each in voice["results"]} == {key for key, kind in kinds.items() if kind == "voice"}
    chats = [each for each in detail["results"] if each["simulation_call_type"] == "text" and each["turn_count"]]
    assert chats
    assert {(each["user_wpm"], each["phone_number"]) for each in chats} == {(None, None)}
    assert all(each["total_tokens"] for each in chats)


@pytest.mark.parametrize("case", ["bad_uuid", "limit_0", "unknown_param", "unknown_execution", "of_a_chat"])
async def test_other_answers_about_voice_calls_are_the_recorded_ones(case, session):
    sample = SAMPLES[f"voice_list_{case}"]
    world, _ = recorded_execution("voice_list" if case != "of_a_chat" else "detail_chat")
    async with Sandbox(world) as sandbox:
        assert await answered(session, sandbox, sample["request"]["target"]) == (sample["status"], sample["body"])


def world_with_odd_evals(case: str) -> World:
    """The execution of a recorded list that the server cannot give, made of the recorded entries of its calls."""
    world = world_of(executions=0)
    run_test = world.run_tests[0]
    entries = [
        each["body"]["result"] for name, each in SAMPLES.items() if re.fullmatch(rf"runs_{case}_call(_\d)?", name)
    ]
    head = SAMPLES["runs_numeric_eval_name_none"]["body"]["result"]
    calls = [call_with_answer({**METRICS_OF_NONE, **entry}, entry) for entry in entries]
    outputs = SAMPLES["runs_numeric_call_0"]["body"]["result"]["eval_outputs"]
    run_test.eval_configs = [
        EvalConfig(key, each["name"], each["output_type"], key, each["name"]) for key, each in outputs.items()
    ]
    run_test.executions.append(
        execution_with_answer(run_test, {**head, "execution_id": entries[0]["execution_id"]}, calls)
    )
    return World(world.organization_id, [run_test])


METRICS_OF_NONE: dict[str, Any] = {"conversation": {}, "chat_metrics": None}


@pytest.mark.parametrize(
    "case",
    [
        "runs_numeric_500",
        "runs_numeric_eval_name_none",
        "runs_numeric_eval_name_other",
        "runs_numeric_call_0",
        "runs_numeric_analytics_500",
        "runs_numeric_analytics_eval_name_none",
        "runs_evals_list_500",
        "runs_evals_list_call",
        "runs_evals_list_eval_name_none_500",
    ],
)
async def test_evals_that_cannot_be_summed_up_are_answered_as_recorded(case, session):
    sample = SAMPLES[case]
    world = world_with_odd_evals("numeric" if "numeric" in case else "evals_list")
    async with Sandbox(world) as sandbox:
        status, body = await answered(session, sandbox, sample["request"]["target"])
    recorded = sample["body"]["result"]
    assert status == sample["status"]
    if status == 500 or "call" in case:
        assert body == sample["body"]
        return
    if "analytics" in case:
        given = body["result"]
        assert given.keys() == recorded.keys()
        names = (world.run_tests[0].name, without_sums(recorded)["eval_results"])
        assert (given["run_test_name"], given["eval_results"]) == names
        return
    listed = {each["call_execution_id"]: each for each in recorded["call_results"]["results"]}
    assert {each["call_execution_id"]: each for each in body["result"]["call_results"]["results"]} == listed
    assert bool(body["result"]["eval_results"]) == bool(recorded["eval_results"])
