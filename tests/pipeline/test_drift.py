"""The API changes its answers: an alarm while values of a run test are not in their columns, and no other."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.model.findings import Kind
from etl.pipeline import shared_steps
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, SandboxRequest, World
from etl.sandbox.dispatch import HTML_404
from etl.sandbox.fields import COST, LATENCY
from etl.sandbox.generate import add_execution, new_run_test
from etl.sandbox.world import CONVERSATION, SimulatedCall, SimulatedRunTest, add_run_test
from etl.transform.rows import MAKERS
from tests.e2e.truth import assert_equals_world
from tests.forms import (
    FILLED,
    LOST,
    OF_SOME_CALLS,
    STT,
    Concerns,
    Edit,
    formed,
    in_evals,
    in_rows,
    moves,
    of_call,
    of_calls,
    of_detail,
    of_most_calls,
    renames,
    sets,
)
from tests.pipeline.nights import Nights
from tests.support import cap_pages
from tests.worlds import settled_world

CALLS = 24


QUICK = ("a cost", OF_SOME_CALLS, "a unit", "evals", "a score", "times", "averages")
ASIDE = (Kind.FROM_DETAILS, Kind.ONE_BY_ONE)
"""Notices of another form of answers that lose nothing."""


def begin(nights: Nights, calls: int = CALLS, *, age: timedelta = timedelta(0)) -> list[SimulatedCall]:
    """An execution that ends before the next night, with one call more, which failed."""
    run_test = nights.world.run_tests[0]
    rng, ended_at = random.Random(len(run_test.executions)), nights.now + timedelta(hours=20) - age
    execution = add_execution(nights.world, run_test, rng, ended_at, calls + 1, status="completed")
    first, *others = sorted(execution.calls, key=lambda call: call.call_execution_id)
    failed(first)
    return [complete(run_test, call) for call in others]


def complete(run_test: SimulatedRunTest, call: SimulatedCall) -> SimulatedCall:
    """With all values that are often missing."""
    call.status = "completed"
    call.chat_metrics = None
    call.avg_agent_latency_ms, call.llm_cost_cents, call.stt_cost_cents, call.total_cost_cents = 900, 2, 3, 12
    call.response_time_ms, call.overall_score, call.user_wpm = 1300, 7, 120
    call.eval_outputs = {
        each.config_id: {"name": each.name, "output": "Passed", "output_type": "Pass/Fail", "reason": "r"}
        for each in run_test.eval_configs
        if each.output_type == "Pass/Fail"
    }
    return call


def failed(call: SimulatedCall) -> None:
    call.status, call.eval_outputs = "failed", {}
    for name in ("duration_seconds", *LATENCY, *COST, *CONVERSATION, "system_metrics", "chat_metrics"):
        setattr(call, name, None)


@pytest.fixture
def empty(nights: Nights) -> Nights:
    """A run test of chats without executions: no list shows what stages of these cost."""
    del nights.world.run_tests[1:]
    of_chats(nights.world).run_tests[0].executions.clear()
    return nights


def of_chats(world: World) -> World:
    world.run_tests[0].profile = replace(world.run_tests[0].profile, is_chat=True)
    return world


@pytest.fixture(scope="module")
def settled_once(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """A run test of one execution a night, of which two are final."""

    async def tell() -> Nights:
        async with Sandbox(of_chats(settled_world(run_tests=1, executions=0))) as server:
            told = Nights(server, tmp_path_factory.mktemp("settled"))
            for _ in range(4):
                begin(told)
                assert (await told.export()).problems == []
            return told

    return asyncio.run(tell())


@pytest.fixture
async def settled(settled_once: Nights, tmp_path: Path) -> AsyncIterator[Nights]:
    """A copy of it."""
    shutil.copytree(settled_once.folder / "data", tmp_path / "data")
    async with Sandbox(deepcopy(settled_once.world)) as server:
        nights = Nights(server, tmp_path)
        nights.now = settled_once.now
        yield nights


def answer(nights: Nights, *changes: tuple[Concerns, Edit]) -> None:
    """From now on these answers are other ones."""

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        edits = [edit for concerns, edit in changes if concerns(request)]
        return Fault(edit=lambda body: formed(body, *edits)) if edits else None

    nights.server.fault = fault


def way(concerns: Concerns) -> dict[str, str]:
    """How calls are fetched: if some are answered otherwise, one by one, since lists show them whole."""
    return {"metrics": "calls"} if concerns is of_most_calls else {}


def of_one(call: SimulatedCall) -> Concerns:
    return lambda request: of_call(request) and request.query["call_execution_id"] == call.call_execution_id


def told(summary: Summary, kind: Kind = Kind.ANSWERS_CHANGED) -> str:
    return next((str(each) for each in summary.findings if each.kind is kind), "")


@pytest.mark.parametrize(
    ("concerns", "edit", "words"),
    [pytest.param(*LOST[name], id=name, marks=() if name in QUICK else pytest.mark.slow) for name in LOST],
)
async def test_values_that_the_api_has_otherwise_are_an_alarm_until_they_are_back_and_fetched_again(
    settled: Nights, concerns: Concerns, edit: Edit, words: str
) -> None:
    """From the second night on: one execution may be odd for its own reasons."""
    answer(settled, (concerns, edit))
    begin(settled)
    await settled.export(export=way(concerns))
    begin(settled)
    second = await settled.export(export=way(concerns))
    assert words in told(second), second.findings
    assert second.run_tests[0].name in told(second)
    later = [await settled.export(export=way(concerns)) for _ in range(2)]
    assert {each.exit_code for each in (second, *later)} == {3}, [each.problems for each in later]
    assert len(settled.server.requests) <= 1 + 3, "the list of executions, and one probe"

    settled.server.fault = None
    after = [await settled.export(export=way(concerns)) for _ in range(2)]
    assert [each.exit_code for each in after] == [0, 0], [each.problems for each in after]
    assert_equals_world(settled.folder, settled.world)
    assert {row["overall_score"] for row in settled.rows("calls") if row["status"] == "completed"} == {7}
    await settled.export(export=way(concerns))
    assert len(settled.server.requests) == 1


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if number % 3 else ())
        for number, name in enumerate(LOST)
        if name not in ("a score", "a verdict")
    ],
)
async def test_old_executions_of_a_first_export_are_an_alarm_too_and_not_final(empty: Nights, name: str) -> None:
    """Not where only earlier rows could show that this source ever had the values."""
    for days in (40, 41):
        begin(empty, age=timedelta(days=days))
    concerns, edit, words = LOST[name]
    answer(empty, (concerns, edit))
    summary = await empty.export(export=way(concerns))
    assert summary.exit_code == 3
    assert words in told(summary)
    assert {row["export_state"] for row in empty.rows("executions")} == {"settling"}
    await empty.export(export=way(concerns))
    empty.server.fault = None
    assert (await empty.export(export=way(concerns))).exit_code == 0
    assert_equals_world(empty.folder, empty.world)


@pytest.mark.parametrize("metrics", ["exact", "listed first"])
@pytest.mark.parametrize(("concerns", "edit"), FILLED.values(), ids=FILLED)
async def test_what_the_detail_shows_is_never_null_and_no_alarm(
    empty: Nights, monkeypatch: pytest.MonkeyPatch, concerns: Concerns, edit: Edit, metrics: str
) -> None:
    """Whether it was read in this run or came first, from lists."""
    if metrics == "listed first":
        monkeypatch.setattr(shared_steps, "PATIENCE_SECONDS", 0.0)
    for days in (40, 41):
        for call in begin(empty, age=timedelta(days=days)):
            call.system_metrics = {"bot_wpm": 150}
    answer(empty, (concerns, edit))
    summary = await empty.export(api={"requests_per_minute": 10_000})
    assert (summary.exit_code, told(summary)) == (0, ""), summary.problems
    assert "comes from the executions' details alone" in told(summary, Kind.FROM_DETAILS)
    assert_equals_world(empty.folder, empty.world)
    calls = [row for row in empty.rows("calls") if row["status"] == "completed"]
    assert {row["metrics_from"] for row in calls} == {"both"}
    assert {row["export_state"] for row in empty.rows("executions")} == {"exported"}


def of_a_chat(call: SimulatedCall) -> None:
    failed(call)
    call.status, call.total_cost_cents, call.duration_seconds = "completed", 3, 60
    call.chat_metrics = {"total_tokens": 9, "input_tokens": 4, "output_tokens": 5, "turn_count": 2}


def of_a_chat_now(call: Any) -> None:
    """Without a block that does not apply, and with a field that is new."""
    del call["conversation"]
    call["channel"] = "web"


def with_few_costs(call: SimulatedCall) -> None:
    call.stt_cost_cents = 3 if call.call_execution_id < "4" else None


QUIET: dict[str, tuple[Callable[[SimulatedCall], object], Concerns, Edit, int]] = {
    "failed calls": (failed, of_call, sets(), CALLS),
    "few costs": (with_few_costs, of_call, sets(), CALLS),
    "no evals": (lambda call: setattr(call, "eval_outputs", {}), of_call, sets(), CALLS),
    "a chat beside a new field": (of_a_chat, of_call, of_a_chat_now, CALLS),
    "a new field beside nulls": (
        lambda call: setattr(call, "response_time_ms", None),
        of_call,
        lambda call: call["latency"].update(queue_ms=5),
        CALLS,
    ),
    "a cost of 0 in the detail": (
        lambda call: setattr(call, "total_cost_cents", 0),
        of_call,
        lambda call: call["cost"].update(total_cost_cents=None),
        CALLS,
    ),
    "a failed eval": (failed, of_calls, in_evals(sets(output=None, error="error", timestamp="t", status="failed")), 1),
    "a skipped eval": (
        failed,
        of_calls,
        in_evals(lambda output: output.update(skipped=True) or output.pop("output")),
        1,
    ),
    "a score that is null": (lambda call: setattr(call, "overall_score", None), of_call, sets(), CALLS),
}


@pytest.mark.parametrize(("change", "concerns", "edit", "calls"), QUIET.values(), ids=QUIET)
async def test_other_calls_than_before_are_no_alarm(
    settled: Nights, change: Callable[[SimulatedCall], object], concerns: Concerns, edit: Edit, calls: int
) -> None:
    answer(settled, (concerns, edit))
    found = []
    for _ in range(3):
        for call in begin(settled, calls):
            if change is not failed or calls > 1:
                change(call)
        found.append((await settled.export()).findings)
    assert [each for findings in found for each in findings if each.kind not in ASIDE] == []
    if calls > 1:
        assert_equals_world(settled.folder, settled.world)
    states = [row["export_state"] for row in settled.rows("executions")]
    assert states.count("settling") == 1


@pytest.mark.parametrize("calls", [1, CALLS])
async def test_one_execution_that_is_odd_is_no_alarm_and_final_once_another_is_not(settled: Nights, calls: int) -> None:
    odd = {call.call_execution_id for call in begin(settled, calls)}
    answer(settled, (lambda request: request.query.get("call_execution_id") in odd, STT))
    first = await settled.export()
    assert (first.exit_code, "calls.cost_stt_cost_cents" in told(first, Kind.ANSWERS_ODD)) == (0, True)
    for _ in range(3):
        begin(settled)
        assert [each for each in (await settled.export()).findings if each.kind not in ASIDE] == []
    states = [row["export_state"] for row in settled.rows("executions")]
    assert states.count("settling") == 1


async def test_one_execution_a_week_is_enough_for_an_alarm_and_costs_little_between(empty: Nights) -> None:
    """Though each has one call, and is the only one that is not final; of the second one, no list shows the evals."""
    answer(empty, (of_call, STT))
    begin(empty, 1)
    assert [(await empty.export()).exit_code for _ in range(7)] == [0] * 7
    assert len(empty.server.requests) == 1 + 3
    next(iter(begin(empty, 1)[0].eval_outputs.values())).update(output=0.5, output_type="numeric")
    assert [(await empty.export()).exit_code for _ in range(4)] == [3] * 4
    empty.server.fault = None
    assert [(await empty.export()).exit_code for _ in range(2)] == [0, 0]
    assert_equals_world(empty.folder, empty.world)


async def test_a_run_that_forgets_what_the_last_one_said_costs_more_and_says_the_same(settled: Nights) -> None:
    answer(settled, (of_call, STT))
    for _ in range(4):
        begin(settled)
        before = await settled.export()
    (settled.folder / "data" / "_state" / "last_run.json").unlink()
    after = await settled.export()
    assert after.exit_code == 3
    assert told(after).partition(": calls.")[2] == told(before).partition(": calls.")[2]
    assert "48 calls of 2 executions" in told(before)
    assert "96 calls of 4 executions" in told(after)


async def test_a_run_of_another_run_test_forgets_no_alarm(settled: Nights) -> None:
    profile = settled.world.run_tests[0].profile
    add_run_test(settled.world, new_run_test(random.Random(1), "Other", settled.now, profile))
    answer(settled, (of_call, STT))
    begin(settled, 2)
    await settled.export()
    begin(settled, 2)
    codes = [(await settled.export(only=only)).exit_code for only in ([], ["Other"], [], [])]
    assert (codes, sum(map(of_call, settled.server.requests))) == ([3, 0, 3, 3], 1), "one probe"


async def test_a_run_test_that_takes_the_name_of_another_ends_no_alarm(settled: Nights) -> None:
    first = settled.world.run_tests[0]
    other = new_run_test(random.Random(1), "Other", settled.now, first.profile)
    add_run_test(settled.world, other)
    add_execution(settled.world, other, random.Random(99), settled.now, 0, status="completed")
    answer(settled, (of_call, STT))
    for _ in range(2):
        begin(settled, 2)
        await settled.export()
    other.name = first.name
    assert [(await settled.export(names="all")).exit_code for _ in range(2)] == [3, 3]


@pytest.mark.parametrize(
    "edit",
    [
        lambda call: call.update(eval_outputs=[*call["eval_outputs"].values()]),
        lambda call: call.update(eval_outputs={"results": call["eval_outputs"]}),
        lambda call: call.update(evals=call["eval_outputs"], eval_outputs=None),
    ],
    ids=["a list", "one deeper", "under another name"],
)
async def test_evals_that_only_the_detail_shows_are_missing_and_not_marked(settled: Nights, edit: Edit) -> None:
    for call in begin(settled):
        output = next(iter(call.eval_outputs.values()))
        call.eval_outputs = call.eval_outputs | {"of a deleted configuration": output}
    assert (await settled.export()).exit_code == 0
    answer(settled, (of_calls, in_rows(edit)))
    for _ in range(2):
        assert ((await settled.export(export={"sweep_days": 1})).exit_code, settled.marked("evals")) == (3, 0)
    settled.server.fault = None
    assert (await settled.export()).exit_code == 0
    assert_equals_world(settled.folder, settled.world)


@pytest.mark.parametrize("is_paged", [False, True])
@pytest.mark.parametrize("of_voice", [False, True])
async def test_evals_that_only_the_detail_shows_are_missing_whatever_else_comes(
    settled: Nights, *, of_voice: bool, is_paged: bool
) -> None:
    """Their calls change, one call judges for all, and the list takes many pages."""
    run_test = settled.world.run_tests[0]
    run_test.profile = replace(run_test.profile, is_chat=not of_voice)
    calls = begin(settled)
    await settled.export()
    for call in calls:
        call.total_cost_cents = 4321
    cap_pages(settled.server, 7 if is_paged else None)
    some = {call.call_execution_id for call in calls[:5]}
    hide = in_rows(
        lambda call: {call.get("id"), call.get("call_execution_id")} & some and call.update(eval_outputs=None)
    )
    answer(settled, (of_calls, hide))
    for _ in range(2):
        summary = await settled.export()
        assert (summary.exit_code, settled.marked("evals"), len(summary.problems)) == (3, 0, 1)
        assert "5 requests failed: the list of calls is missing evals of call " in told(summary, Kind.DEAD_LETTER)
    settled.server.fault = None
    assert (await settled.export()).exit_code == 0
    assert_equals_world(settled.folder, settled.world)


async def test_details_that_cannot_be_had_do_not_end_an_alarm(settled: Nights) -> None:
    answer(settled, (of_call, STT))
    for _ in range(4):
        begin(settled)
        before = await settled.export()
    changed = Fault(edit=lambda body: formed(body, STT))
    settled.server.fault = lambda request, _nth: (
        Fault(status=500) if of_detail(request) else changed if of_call(request) else None
    )
    after = await settled.export()
    assert (after.exit_code, told(after)) == (3, told(before))
    assert not any(map(of_call, settled.server.requests))


@pytest.mark.parametrize("nights_before", [0, 3])
async def test_404_for_all_details_is_unknown_in_a_first_export_and_where_there_were_some(
    empty: Nights, nights_before: int
) -> None:
    begin(empty, age=timedelta(days=40))
    for _ in range(nights_before):
        await empty.export()
    begin(empty)
    empty.server.fault = lambda request, _nth: Fault(status=404, body=HTML_404) if of_detail(request) else None
    assert [(await empty.export()).exit_code for _ in range(nights_before or 1)] == [3] * (nights_before or 1)
    empty.server.fault = None
    assert [(await empty.export()).exit_code for _ in range(2)] == [0, 0]
    assert_equals_world(empty.folder, empty.world)
    assert {row["overall_score"] for row in empty.rows("calls") if row["status"] == "completed"} == {7}


async def test_a_detail_that_changes_with_the_metrics_costs_no_more(settled: Nights) -> None:
    renamed = in_rows(renames("avg_agent_latency_ms", "agent_latency_ms"))
    answer(settled, (of_call, moves("latency", "avg_agent_latency_ms", "agent_latency_ms")), (of_detail, renamed))
    for _ in range(2):
        begin(settled)
        last = await settled.export()
    assert "calls.latency_avg_agent_latency_ms is null (extra has latency.agent_latency_ms)" in told(last)
    await settled.export()
    sent = [each.target for each in settled.server.requests if of_detail(each) or of_call(each)]
    assert len(sent) == 2, "a detail, and one call"
    settled.server.fault = None
    assert [(await settled.export()).exit_code for _ in range(2)] == [0, 0]
    assert_equals_world(settled.folder, settled.world)


async def test_a_version_that_knows_the_new_name_fetches_what_the_old_one_did_not_understand(
    settled: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(settled, (of_call, STT))
    for _ in range(2):
        begin(settled)
        last = await settled.export()
    assert last.exit_code == 3
    costs = MAKERS["calls"]._tree.objects["cost"].leaves
    monkeypatch.setitem(costs, "stt_cents", costs["stt_cost_cents"])
    assert [(await settled.export()).exit_code for _ in range(3)] == [0, 0, 0]
    assert_equals_world(settled.folder, settled.world)


async def test_an_execution_that_was_taken_back_does_not_take_what_the_detail_showed_before(empty: Nights) -> None:
    """The call waits again by the time that its own metrics are fetched."""
    (call,) = begin(empty, 1, age=timedelta(days=40))
    answer(
        empty, (of_one(call), lambda body: (body.update(status="pending"), body["cost"].update(total_cost_cents=None)))
    )
    await empty.export()
    (row,) = [row for row in empty.rows("calls") if row["call_execution_id"] == call.call_execution_id]
    assert (row["status"], row["cost_total_cost_cents"], row["metrics_from"]) == ("pending", None, "metrics")
