"""Calls that a list no longer names: what is believed, what is held back, and what the user does about it."""

import random
import re
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl import sandbox
from etl.extract import calls as crawl_module
from etl.model.records import METRICS, RUNS
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Execution, Fault, Sandbox, SandboxRequest
from etl.sandbox.error_bodies import server_error
from tests.datasets import fill_parts_early
from tests.e2e.faults import edited_calls
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import cap_pages, settings_for
from tests.worlds import settled_world

FIRST_NIGHT = datetime(2026, 10, 30, 20, tzinfo=UTC)
Export = Callable[..., Any]


@pytest.fixture(autouse=True)
def _a_part_for_each_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_parts_early(monkeypatch, rows=1)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=1, executions=4, calls=20, days=3)) as running:
        yield running


@pytest.fixture
def export(server: Sandbox, tmp_path: Path) -> Export:
    """An export; the second is the one in which all executions become final."""
    nights = iter(range(99))

    async def run(*, settings: dict[str, Any] | None = None, **options: Any) -> Summary:
        night = FIRST_NIGHT + timedelta(hours=100 * next(nights))
        sections = {"export": {"settle_hours": 90}} | (settings or {})
        configured = settings_for(server, tmp_path / "data", **sections)
        return await job.export(configured, clock=lambda: night, **options)

    return run


def executions(server: Sandbox) -> list[Execution]:
    return server.world.run_tests[0].executions


def calls_in(folder: Path) -> list[str]:
    has_any = (folder / "data" / "calls").exists()
    return sorted(row["call_execution_id"] for row in rows_of(folder, "calls")) if has_any else []


def states_in(folder: Path) -> set[str]:
    return {row["export_state"] for row in rows_of(folder, "executions")}


def lists_only(server: Sandbox, number: int) -> Callable[[SandboxRequest, int], Fault | None]:
    """Each list of calls names this many of them, and counts no more."""
    return lambda request, _nth: edited_calls(server.world, request, lambda calls: calls[:number])


def leaves_out(server: Sandbox, ids: set[str]) -> Callable[[SandboxRequest, int], Fault | None]:
    return lambda request, _nth: edited_calls(
        server.world, request, lambda calls: [call for call in calls if call["call_execution_id"] not in ids]
    )


def add_calls(server: Sandbox, execution: Execution, number: int) -> set[str]:
    """They are like its first ones; returns their ids."""
    ids = [str(uuid.UUID(int=each)) for each in range(number)]
    like = zip(execution.calls[:number], ids, strict=True)
    execution.calls += [replace(call, call_execution_id=each, is_deleted=False) for call, each in like]
    server.world.index_execution(execution)
    return {*ids}


def refuse_lists_of_calls(request: SandboxRequest, _nth: int) -> Fault | None:
    """After which nothing else is asked for the calls, as it is after a 500."""
    return Fault(status=400) if request.path == RUNS else None


def lists_of_calls(server: Sandbox, since: int = 0) -> int:
    return sum(request.path == RUNS for request in server.requests[since:])


def run_again(executions: list[Execution]) -> None:
    """They keep their old ends."""
    for execution in executions:
        ended_at = execution.completed_at
        sandbox.rerun_execution(execution, FIRST_NIGHT)
        sandbox.finish_execution(execution, random.Random(execution.execution_id), FIRST_NIGHT)
        execution.completed_at = ended_at


@pytest.mark.parametrize("listed", [0, 12])
@pytest.mark.parametrize("page_limit", [pytest.param(1024, marks=pytest.mark.slow), 8])
async def test_calls_that_vanish_in_the_night_in_which_they_become_final_are_kept_and_fetched_again(
    server: Sandbox, export: Export, tmp_path: Path, listed: int, page_limit: int
) -> None:
    settings = {"api": {"page_limit": page_limit}}
    cap_pages(server, page_limit)
    await export(settings=settings)
    assert states_in(tmp_path) == {"settling"}
    before = rows_of(tmp_path, "calls") + rows_of(tmp_path, "evals")
    sent = len(server.requests)

    server.fault = lists_only(server, listed)
    sick = await export(settings=settings)

    assert sick.exit_code == 3
    assert [
        "4 executions with far fewer calls or evals listed than stored or counted" in problem
        and "--accept-deletions" in problem
        for problem in sick.problems
    ] == [True]
    assert rows_of(tmp_path, "calls") + rows_of(tmp_path, "evals") == before
    assert states_in(tmp_path) == {"incomplete"}
    [letter, *_] = rows_of(tmp_path, "errors")
    assert (letter["endpoint"], letter["subject_id"]) == (RUNS, letter["execution_id"])
    assert f"{20 - listed} of its 20 calls are missing from its list" in letter["message"]
    assert server.count(METRICS, call_execution_id=before[0]["call_execution_id"]) == 1, "no call is fetched"
    assert lists_of_calls(server, sent) <= 4 * 4

    server.fault = None
    healed = await export(settings=settings)
    assert (healed.exit_code, healed.problems) == (0, [])
    assert_equals_world(tmp_path, server.world)


async def test_list_that_is_not_believed_counts_once_it_is_told(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """The run ends before, here while the few calls are fetched that the list has."""
    refused = Fault(status=401, body=b'{"status": false}')
    few = lists_only(server, 3)
    server.fault = lambda request, nth: refused if "call_execution_id" in request.query else few(request, nth)
    ended = await export()

    assert (ended.exit_code, rows_of(tmp_path, "errors") if (tmp_path / "data" / "errors").exists() else []) == (4, [])
    assert [(each.dead_letters, each.doubted) for each in ended.run_tests] == [(0, 0)]
    assert not any("given up" in problem or "far fewer" in problem for problem in ended.problems), ended.problems


@pytest.mark.parametrize("options", [{"full_refresh": True}, {"settings": {"export": {"scrub_requests": 10_000}}}])
async def test_calls_of_final_executions_that_vanish_are_kept(
    export: Export, server: Sandbox, tmp_path: Path, options: dict[str, Any]
) -> None:
    for _ in range(2):
        await export()
    assert states_in(tmp_path) == {"exported"}
    before = calls_in(tmp_path)

    server.fault = lists_only(server, 3)
    sick = await export(**options)

    assert (sick.exit_code, calls_in(tmp_path)) == (3, before)
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize(
    ("nights", "options"),
    [(1, {}), (2, {"full_refresh": True}), (2, {"settings": {"export": {"scrub_requests": 10_000}}})],
    ids=["settling", "full refresh", "scrub"],
)
@pytest.mark.parametrize("page_limit", [1024, pytest.param(8, marks=pytest.mark.slow)])
async def test_evals_that_vanish_from_unchanged_executions_are_kept(
    export: Export, server: Sandbox, tmp_path: Path, nights: int, options: dict[str, Any], page_limit: int
) -> None:
    cap_pages(server, page_limit)
    for _ in range(nights):
        await export()
    before = rows_of(tmp_path, "evals")

    server.fault = lambda request, _nth: edited_calls(
        server.world, request, lambda calls: [call | {"eval_outputs": {}} for call in calls]
    )
    sick = await export(**options)

    assert (sick.exit_code, states_in(tmp_path)) == (3, {"incomplete"})
    assert "4 executions with far fewer calls or evals listed" in sick.problems[0]
    assert before
    assert rows_of(tmp_path, "evals") == before
    assert "evals are missing from its list" in rows_of(tmp_path, "errors")[0]["message"]
    believed = await export(accept_deletions=True)
    assert (believed.exit_code, rows_of(tmp_path, "evals")) == (0, [])
    assert believed.notices == [f"{len(before)} evals removed, which the source no longer lists"]
    server.fault = None
    healed = await export(full_refresh=True)
    assert healed.exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize(
    ("nights", "options", "is_rerun"),
    [
        (1, {}, False),
        (2, {"full_refresh": True}, False),
        (2, {"settings": {"export": {"scrub_requests": 10_000}}}, False),
        (2, {}, True),
    ],
    ids=["settling", "full refresh", "scrub", "rerun"],
)
async def test_few_evals_that_vanish_for_a_night_come_back(
    export: Export, server: Sandbox, tmp_path: Path, nights: int, options: dict[str, Any], *, is_rerun: bool
) -> None:
    for _ in range(nights):
        await export()
    if is_rerun:
        run_again(executions(server))
        await export()
    server.fault = lambda request, _nth: edited_calls(
        server.world,
        request,
        lambda calls: [call if number % 3 else call | {"eval_outputs": {}} for number, call in enumerate(calls)],
    )
    sick = await export(**options)
    server.fault = None
    await export()

    assert sick.exit_code == 0
    assert_equals_world(tmp_path, server.world)


def list_execution_with_another_field(request: SandboxRequest) -> Fault | None:
    """Every execution changes, as after an upgrade of the server, and none of its calls."""

    def edit(body: bytes) -> bytes:
        document = msgspec.json.decode(body)
        for row in document["result"]["results"]:
            row["version"] = "2.1"
        return msgspec.json.encode(document)

    return Fault(edit=edit) if request.path == METRICS and "run_test_name" in request.query else None


def list_executions_without_counts(request: SandboxRequest) -> Fault | None:
    def edit(body: bytes) -> bytes:
        page = msgspec.json.decode(body)
        for row in page["result"]["results"]:
            row |= {"total_calls": None, "metrics": {}}
        return msgspec.json.encode(page)

    return Fault(edit=edit) if "run_test_name" in request.query else None


def list_executions_as_evaluating(request: SandboxRequest) -> Fault | None:
    if request.path == METRICS and "run_test_name" in request.query:
        return Fault(edit=lambda body: body.replace(b'"status":"completed"', b'"status":"evaluating"'))
    return None


def fail_for_metrics(request: SandboxRequest) -> Fault | None:
    is_of_a_call = request.path == METRICS and "call_execution_id" in request.query
    return Fault(status=500) if is_of_a_call else list_execution_with_another_field(request)


LOST = {"executions lost": "executions", "calls lost": "calls"}


@pytest.mark.parametrize(
    ("what", "page_limit"),
    [
        ("changed", 1024),
        pytest.param("changed", 8, marks=pytest.mark.slow),
        ("refetched", 1024),
        ("waiting", 1024),
        ("metrics fail", 1024),
        pytest.param("executions lost", 1024, marks=pytest.mark.slow),
        ("calls lost", 1024),
    ],
)
@pytest.mark.parametrize("most_in_hand", [pytest.param(2_000, marks=pytest.mark.slow), 7], ids=["at once", "in parts"])
async def test_evals_that_vanish_from_calls_that_have_not_changed_are_kept(
    export: Export,
    server: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    page_limit: int,
    most_in_hand: int,
) -> None:
    """Whatever the dataset says of their execution, for as many nights as the source has no evals."""
    monkeypatch.setattr(crawl_module, "_MOST_IN_HAND", most_in_hand)
    cap_pages(server, page_limit)
    settings = {"export": {"settle_by": "refetch"}, "api": {"max_tries": 1}} if what == "refetched" else {}
    for _ in range(2):
        await export(settings=settings)
    before = rows_of(tmp_path, "evals")
    other: Callable[[SandboxRequest], Fault | None] = list_execution_with_another_field
    if what == "waiting":
        server.fault = lambda request, _nth: list_executions_as_evaluating(request)
        assert (await export()).exit_code == 0
        assert "waiting" in states_in(tmp_path)
    elif what in LOST:
        for path in (tmp_path / "data" / LOST[what]).rglob("*.parquet"):
            path.unlink()
    elif what == "metrics fail":
        other = fail_for_metrics

    server.fault = lambda request, _nth: (
        edited_calls(server.world, request, lambda calls: [call | {"eval_outputs": {}} for call in calls])
        or (other(request) if what not in ("waiting", *LOST) else None)
    )
    for _ in range(2):
        sick = await export(settings=settings)
        assert sick.exit_code == 3
        assert states_in(tmp_path) - {"exported"} == {"incomplete"}
        assert before
        assert rows_of(tmp_path, "evals") == before
    server.fault = None
    assert (await export(settings=settings)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("page_limit", [1024, 8])
async def test_evals_that_vanish_after_a_part_of_their_execution_was_saved_are_kept(
    export: Export, server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page_limit: int
) -> None:
    """The list is read again since a call is gone, and has no evals by then."""
    cap_pages(server, page_limit)
    await export()
    before = rows_of(tmp_path, "evals")
    execution = executions(server)[0]
    for call in execution.calls[:9]:
        call.duration_seconds = 7.0
    monkeypatch.setattr(crawl_module, "_MOST_IN_HAND", 3)
    sought = dict[str, None]()

    def lose_evals(request: SandboxRequest) -> None:
        call_id = request.query.get("call_execution_id", "")
        gone = [call for call in execution.calls if call.call_execution_id == call_id and request.path == METRICS]
        sought.update(dict.fromkeys(call.call_execution_id for call in gone))
        if gone and len(sought) == (9 if page_limit > 8 else 20):
            sandbox.delete_call(gone[0])
            server.fault = lambda request, _nth: edited_calls(
                server.world, request, lambda calls: [call | {"eval_outputs": {}} for call in calls]
            )

    server.on_request = lose_evals
    options = {"export": {"settle_hours": 1000}, "api": {"concurrency": 1}}
    for _ in range(2):
        assert (await export(settings=options)).exit_code == 3
        assert rows_of(tmp_path, "evals") == before
        held = next(row for row in rows_of(tmp_path, "executions") if row["execution_id"] == execution.execution_id)
        assert (held["listed_calls"], held["exported_calls"]) == (None, len(execution.calls))
        server.on_request = None
    assert len(sought) >= 9
    server.fault = None
    assert (await export(settings=options)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("settle_by", ["refetch", "detail"])
async def test_evals_that_a_rerun_took_away_are_believed_and_those_of_other_calls_too_when_they_are_few(
    export: Export, server: Sandbox, tmp_path: Path, settle_by: str
) -> None:
    await export()
    execution, *_ = executions(server)
    for number, call in enumerate(execution.calls[1:], start=1):
        call.duration_seconds = 600 + number
        call.eval_outputs = {}
    execution.calls[0].eval_outputs = dict([*execution.calls[0].eval_outputs.items()][1:])

    assert (await export(settings={"export": {"settle_hours": 90, "settle_by": settle_by}})).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_evals_that_a_rerun_took_away_are_believed_after_a_night_in_which_the_metrics_were_older(
    export: Export, server: Sandbox, tmp_path: Path
) -> None:
    """They had nothing to say then of what the list said already."""
    await export()
    execution, *_ = executions(server)
    old = {call.call_execution_id: call.duration_seconds for call in execution.calls}
    execution.completed_calls += 1
    for number, call in enumerate(execution.calls):
        call.duration_seconds, call.eval_outputs = 600 + number, {}

    def answer_as_before(request: SandboxRequest, _nth: int) -> Fault | None:
        duration = old.get(request.query.get("call_execution_id", ""))

        def edit(body: bytes) -> bytes:
            document = msgspec.json.decode(body)
            document["result"]["duration_seconds"] = duration
            return msgspec.json.encode(document)

        return Fault(edit=edit) if duration is not None and request.path == METRICS else None

    server.fault = answer_as_before
    assert (await export()).exit_code == 3
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize(("has_row", "is_poisoned"), [(False, False), (False, True), (True, True)])
async def test_call_that_failed_does_not_hold_back_a_rerun_that_took_evals_away(
    export: Export, server: Sandbox, tmp_path: Path, *, has_row: bool, is_poisoned: bool
) -> None:
    """Whether it has changed cannot be told; its evals are stored, since its list had them."""
    execution, *_ = executions(server)
    failing, *others = execution.calls
    fault = server.fault = lambda request, _nth: (
        Fault(status=500) if request.query.get("call_execution_id") == failing.call_execution_id else None
    )
    if has_row:
        server.fault = None
    assert (await export(settings={"api": {"max_tries": 1}})).exit_code == (0 if has_row else 3)
    for number, call in enumerate(execution.calls):
        call.duration_seconds = 600 + number
        call.eval_outputs = {} if number < 15 else call.eval_outputs
    server.fault = fault if is_poisoned else None
    again = await export(settings={"api": {"max_tries": 1}})

    assert again.exit_code == (3 if is_poisoned else 0)
    rows = {row["call_execution_id"]: row["duration_seconds"] for row in rows_of(tmp_path, "calls")}
    assert [rows[call.call_execution_id] for call in others] == [call.duration_seconds for call in others]
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("is_rerun", [False, True])
async def test_evals_that_were_made_under_other_ids_replace_the_old_ones(
    export: Export, server: Sandbox, tmp_path: Path, *, is_rerun: bool
) -> None:
    """As new evals of the run test; the calls ran again before, perhaps, in a night in which the list was older than that."""
    await export()
    old = {call.call_execution_id: call.eval_outputs for execution in executions(server) for call in execution.calls}
    for execution in executions(server):
        for call in execution.calls:
            call.duration_seconds = 611 if is_rerun else call.duration_seconds
            call.eval_outputs = {key[::-1]: output for key, output in call.eval_outputs.items()}
    if is_rerun:
        server.fault = lambda request, _nth: edited_calls(
            server.world,
            request,
            lambda calls: [call | {"eval_outputs": old[call["call_execution_id"]]} for call in calls],
        )
        assert (await export()).exit_code == 0
        server.fault = None
    assert [(await export()).exit_code for _ in range(2)] == [0, 0]
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("is_changed", [False, True])
async def test_evals_that_stay_away_cost_one_request_an_execution_each_night(
    export: Export, server: Sandbox, tmp_path: Path, is_changed: bool
) -> None:
    """Once its calls were fetched, where it had changed meanwhile; what changes later is fetched all the same."""
    settings = {"export": {"settle_hours": 900, "settle_by": "refetch"}}
    await export(settings=settings)
    for execution in executions(server):
        for call in execution.calls:
            call.eval_outputs = {}
    server.fault = lambda request, _nth: list_execution_with_another_field(request) if is_changed else None
    for night in range(3):
        sent = len(server.requests)
        assert (await export(settings=settings)).exit_code == 3
        assert len(server.requests) - sent == 1 + 4 + (4 * 20 if is_changed and night == 0 else 0)
    for number, call in enumerate(executions(server)[0].calls):
        call.duration_seconds = 600 + number

    assert (await export(settings=settings)).exit_code == 3
    assert states_in(tmp_path) == {"settling", "incomplete"}
    assert [row["duration_seconds"] for row in rows_of(tmp_path, "calls")].count(619) == 1


def fail_for_list_of_calls(request: SandboxRequest) -> Fault | None:
    return Fault(status=500) if request.path == RUNS else None


@pytest.mark.parametrize("settle_by", ["refetch", "detail"])
@pytest.mark.parametrize("fail", [fail_for_list_of_calls, fail_for_metrics])
async def test_rerun_that_took_evals_away_is_believed_the_night_after_its_requests_failed(
    export: Export,
    server: Sandbox,
    tmp_path: Path,
    fail: Callable[[SandboxRequest], Fault | None],
    settle_by: str,
) -> None:
    settings = {"export": {"settle_hours": 900, "settle_by": settle_by}, "api": {"max_tries": 1}}
    await export(settings=settings)
    for number, call in enumerate(executions(server)[0].calls):
        call.duration_seconds = 600 + number
        call.eval_outputs = {}
    server.fault = lambda request, _nth: fail(request)
    assert (await export(settings=settings)).exit_code == 3
    server.fault = None

    assert (await export(settings=settings)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_only_eval_of_an_execution_that_vanishes_is_kept(server: Sandbox, export: Export, tmp_path: Path) -> None:
    for execution in executions(server):
        for call in execution.calls[1:]:
            call.eval_outputs = {}
        call = execution.calls[0]
        call.eval_outputs = call.eval_outputs or dict(execution.calls[1].eval_outputs)
        call.eval_outputs = dict([*call.eval_outputs.items()][:1])
    await export()
    before = rows_of(tmp_path, "evals")
    server.fault = lambda request, _nth: edited_calls(
        server.world, request, lambda calls: [call | {"eval_outputs": {}} for call in calls]
    )
    assert (await export()).exit_code == 3
    assert before
    assert rows_of(tmp_path, "evals") == before
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("most_in_hand", [2_000, 7], ids=["at once", "in parts"])
@pytest.mark.parametrize("options", [{}, {"full_refresh": True}], ids=["settling", "full refresh"])
async def test_evals_that_each_entry_lacks_are_kept(
    export: Export,
    server: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    most_in_hand: int,
) -> None:
    """Where the list of calls fails, each call's own entry has the evals."""
    monkeypatch.setattr(crawl_module, "_MOST_IN_HAND", most_in_hand)
    await export()
    before = rows_of(tmp_path, "evals")

    server.fault = without_evals_one_by_one
    sick = await export(settings={"api": {"max_tries": 1}}, **options)

    assert (sick.exit_code, states_in(tmp_path)) == (3, {"incomplete"})
    assert before
    assert rows_of(tmp_path, "evals") == before
    assert "evals are missing from its list" in rows_of(tmp_path, "errors")[0]["message"]
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


def without_evals_one_by_one(request: SandboxRequest, _nth: int) -> Fault | None:
    """The list of calls fails unless no eval is asked for, and no entry has any."""
    if request.path != RUNS or "eval_name" in request.query:
        return None
    if "execution_id" in request.query:
        return Fault(status=500, body=msgspec.json.encode(server_error("Internal error.")))
    return Fault(edit=without_evals)


def without_evals(body: bytes) -> bytes:
    document = msgspec.json.decode(body)
    document["result"]["eval_outputs"] = {}
    return msgspec.json.encode(document)


@pytest.mark.parametrize("listed", [0, 12])
async def test_execution_that_says_it_has_calls_and_lists_few_is_not_final_on_a_first_export(
    server: Sandbox, export: Export, tmp_path: Path, listed: int
) -> None:
    """What is listed is exported; what is missing is asked for each night, with one request once nothing else is new."""
    server.fault = lists_only(server, listed)
    for _ in range(3):
        sent = len(server.requests)
        sick = await export()
        assert (sick.exit_code, len(calls_in(tmp_path)), states_in(tmp_path)) == (3, 4 * listed, {"incomplete"})
    assert len(server.requests) - sent == 1 + 4

    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_calls_that_were_deleted_on_purpose_are_believed_once_and_for_all(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """Also those that had gone before the first export: the source counts them for ever."""
    for call in executions(server)[0].calls[:12]:
        sandbox.delete_call(call)
    for _ in range(2):
        await export()
    for call in executions(server)[1].calls:
        sandbox.delete_call(call)
    assert (await export(full_refresh=True)).exit_code == 3

    accepted = await export(accept_deletions=True)

    assert (accepted.exit_code, accepted.problems) == (0, [])
    [removed] = accepted.notices
    assert re.fullmatch(r"20 calls and \d+ evals removed, which the source no longer lists", removed)
    assert_equals_world(tmp_path, server.world)
    for requests in (1 + 1 + 2, 1):
        sent = len(server.requests)
        assert (await export()).exit_code == 0
        assert len(server.requests) - sent == requests, "both once more: what was believed may have been one night's"
    assert states_in(tmp_path) == {"exported"}
    assert (await export(full_refresh=True)).exit_code == 0, "what was believed is what the next list is measured by"


async def test_deletions_that_were_accepted_stay_accepted_when_the_execution_is_listed_differently(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """But not those that come with it, nor calls that are counted now and were not then."""
    await export()
    for execution in executions(server)[:2]:
        for call in execution.calls[:5]:
            sandbox.delete_call(call)
    assert (await export(accept_deletions=True)).exit_code == 0

    server.fault = lambda request, _nth: list_execution_with_another_field(request)
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)

    before = calls_in(tmp_path)
    server.fault = lists_only(server, 12)
    sick = await export(full_refresh=True)
    assert (sick.exit_code, calls_in(tmp_path)) == (3, before)
    assert {letter["message"].split(" calls are")[0] for letter in rows_of(tmp_path, "errors")} == {
        "8 of its 20",
        "3 of its 15",
    }


async def test_deletions_that_were_accepted_stay_accepted_when_a_request_failed_since(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """But not where the list was doubted again."""
    await export()
    execution = executions(server)[0]
    for call in execution.calls[:5]:
        sandbox.delete_call(call)
    assert (await export(accept_deletions=True)).exit_code == 0

    changed = execution.calls[9]
    changed.duration_seconds, execution.completed_calls = 4711.0, execution.completed_calls - 1
    server.fault = lambda request, _nth: (
        Fault(status=400) if request.query.get("call_execution_id") == changed.call_execution_id else None
    )
    assert (await export()).exit_code == 3
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)

    execution.completed_calls -= 1
    server.fault = lists_only(server, 8)
    assert [(await export()).exit_code for _ in range(2)] == [3, 3]


@pytest.mark.parametrize(
    "event",
    [
        "runs again",
        "another call",
        "short list",
        "no counts",
        pytest.param("list fails", marks=pytest.mark.slow),
        pytest.param("runs again and its list fails", marks=pytest.mark.slow),
    ],
)
async def test_deletions_that_were_accepted_stay_accepted_whatever_happens_later(
    server: Sandbox, export: Export, tmp_path: Path, event: str
) -> None:
    """The source counts the deleted calls for ever."""
    await export()
    execution = executions(server)[0]
    for call in execution.calls[:5]:
        sandbox.delete_call(call)
    assert (await export(accept_deletions=True)).exit_code == 0

    if "runs again" in event:
        sandbox.rerun_execution(execution, FIRST_NIGHT)
        assert (await export()).exit_code == 0
        sandbox.finish_execution(execution, random.Random(7), FIRST_NIGHT)
    if event == "another call":
        execution.completed_calls += len(add_calls(server, execution, 1))
    if "list fails" in event:
        execution.calls[9].duration_seconds = 4711.0
        server.fault = refuse_lists_of_calls
        assert (await export(full_refresh=True)).exit_code == 3
    if event == "short list":
        execution.calls[9].duration_seconds, execution.completed_calls = 4711.0, execution.completed_calls - 1
        server.fault = lists_only(server, 4)
        assert (await export()).exit_code == 3
    if event == "no counts":
        server.fault = lambda request, _nth: list_executions_without_counts(request)
        assert (await export()).exit_code == 0
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)

    before = calls_in(tmp_path)
    server.fault = lists_only(server, 11)
    assert [(await export(full_refresh=True)).exit_code for _ in range(2)] == [3, 3]
    assert calls_in(tmp_path) == before


@pytest.mark.parametrize("event", ["runs again", "list fails", "is not believed", "is not believed and then fails"])
@pytest.mark.parametrize("calls", [20, pytest.param(0, marks=pytest.mark.slow)])
async def test_calls_that_come_while_no_list_is_believed_are_expected(
    server: Sandbox, export: Export, tmp_path: Path, event: str, calls: int
) -> None:
    """Whatever was believed to be deleted before that."""
    execution = executions(server)[0]
    for call in execution.calls[calls:]:
        sandbox.delete_call(call)
    assert (await export(accept_deletions=True)).exit_code == 0
    for call in execution.calls[:5]:
        sandbox.delete_call(call)
    assert (await export(accept_deletions=True)).exit_code == 0
    if event == "runs again":
        sandbox.rerun_execution(execution, FIRST_NIGHT)
    lag = leaves_out(server, add_calls(server, execution, 9))
    execution.total_calls += 9
    if "not believed" in event:
        server.fault = lag
        assert (await export()).exit_code == 3
    if "fails" in event:
        server.fault = refuse_lists_of_calls
        assert (await export()).exit_code == 3
    if event == "runs again":
        assert (await export()).exit_code == 0
        sandbox.finish_execution(execution, random.Random(7), FIRST_NIGHT)

    server.fault = lag
    assert [(await export()).exit_code for _ in range(2)] == [3, 3]
    assert "9 of its" in rows_of(tmp_path, "errors")[0]["message"]
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_list_that_was_never_believed_is_not_believed_after_one_that_failed(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """The dead letter then tells of the one that failed."""
    server.fault = lists_only(server, 12)
    assert (await export()).exit_code == 3
    server.fault = refuse_lists_of_calls
    assert (await export()).exit_code == 3
    server.fault = lists_only(server, 12)
    assert [(await export()).exit_code for _ in range(3)] == [3, 3, 3]
    server.fault = None
    assert [(await export()).exit_code for _ in range(2)] == [0, 0]
    assert_equals_world(tmp_path, server.world)


async def test_execution_that_was_never_exported_is_not_final_when_its_empty_list_is_accepted(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """The night in which nobody believed it was no look at it."""
    server.fault = lists_only(server, 0)
    assert (await export()).exit_code == 3
    assert (await export(accept_deletions=True)).exit_code == 0
    assert (calls_in(tmp_path), states_in(tmp_path)) == ([], {"settling"})

    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("deleted", [pytest.param(1, marks=pytest.mark.slow), 2])
async def test_few_deleted_calls_of_many_are_ordinary(
    server: Sandbox, export: Export, tmp_path: Path, deleted: int
) -> None:
    await export()
    for call in executions(server)[0].calls[:deleted]:
        sandbox.delete_call(call)

    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_few_calls_that_no_list_names_but_that_exist_are_kept(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """A tenth may go at once, when each is found to be gone."""
    await export()
    before = calls_in(tmp_path)

    server.fault = lists_only(server, 18)
    sick = await export()

    assert (sick.exit_code, calls_in(tmp_path), states_in(tmp_path)) == (3, before, {"incomplete"})
    assert all(
        "exists, but is missing from the list of its execution" in letter["message"]
        for letter in rows_of(tmp_path, "errors")
    )
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def test_calls_under_new_ids_do_not_replace_or_double_the_old_ones(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    await export()
    before = calls_in(tmp_path)
    for execution in executions(server):
        for number, call in enumerate(execution.calls):
            call.call_execution_id = f"{call.call_execution_id[:-4]}{number:04}"
        server.world.index_execution(execution)

    assert ((await export()).exit_code, calls_in(tmp_path)) == (3, before)
    assert (await export(accept_deletions=True)).exit_code == 0
    assert_equals_world(tmp_path, server.world)


async def leave_out_and_heal(server: Sandbox, export: Export, ids: set[str]) -> None:
    """Two nights whose lists leave these calls out, although they exist, and two good ones."""
    server.fault = leaves_out(server, ids)
    assert [(await export()).exit_code for _ in range(2)] == [3, 3]
    server.fault = None
    assert [(await export()).exit_code for _ in range(2)] == [0, 0]


async def test_ids_that_no_call_has_are_forgotten_with_the_next_list(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """Of calls that could never be fetched, nothing but evals is stored."""
    server.fault = lambda request, _nth: edited_calls(
        server.world,
        request,
        lambda calls: [call | {"call_execution_id": call["call_execution_id"][::-1]} for call in calls],
    )
    assert (await export()).exit_code == 3
    assert rows_of(tmp_path, "evals")
    server.fault = None
    assert [(await export()).exit_code for _ in range(2)] == [0, 0]
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize(
    "failure",
    [
        Fault(status=500),
        Fault(status=200, body=b"<html>sign in</html>"),
        pytest.param(Fault(status=404, body=b"<html>no route</html>"), marks=pytest.mark.slow),
        pytest.param(Fault(status=400, body=b"<html>refused</html>"), marks=pytest.mark.slow),
        pytest.param(Fault(status=200, body=b'{"status": false}'), marks=pytest.mark.slow),
    ],
    ids=lambda failure: f"{failure.status} {failure.body}",
)
@pytest.mark.parametrize(
    ("few", "has_evals"),
    [(1, True), (2, False), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, False), (2, True)))],
)
async def test_call_that_failed_and_is_not_listed_is_asked_for(
    server: Sandbox, export: Export, tmp_path: Path, failure: Fault, few: int, *, has_evals: bool
) -> None:
    """It is there, although no row of it ever was: nothing is final as long as the list leaves it out."""
    failing = [call for execution in executions(server) for call in execution.calls[:few]]
    for call in failing if not has_evals else ():
        call.eval_outputs = {}
    ids = {call.call_execution_id for call in failing}
    server.fault = lambda request, _nth: failure if request.query.get("call_execution_id") in ids else None
    assert (await export(settings={"api": {"max_tries": 1}})).exit_code == 3

    await leave_out_and_heal(server, export, ids)
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("between", ["no list", "empty list", "other calls", "evaluating"])
async def test_call_that_failed_is_not_forgotten_in_a_night_that_tells_nothing_of_it(
    server: Sandbox, export: Export, tmp_path: Path, between: str
) -> None:
    failing = [execution.calls[0] for execution in executions(server)]
    for call in failing:
        call.eval_outputs = {}
    ids = {call.call_execution_id for call in failing}
    settings = {"api": {"max_tries": 1}}
    server.fault = lambda request, _nth: Fault(status=500) if request.query.get("call_execution_id") in ids else None
    assert (await export(settings=settings)).exit_code == 3

    def tell_nothing(request: SandboxRequest, _nth: int) -> Fault | None:
        if between == "evaluating":
            return list_executions_as_evaluating(request)
        if between == "no list":
            return Fault(status=502) if request.path == RUNS else None
        return edited_calls(server.world, request, lambda calls: calls[1:3] if between == "other calls" else [])

    server.fault = tell_nothing
    assert (await export(settings=settings)).exit_code == (0 if between == "evaluating" else 3)
    await leave_out_and_heal(server, export, ids)
    assert rows_of(tmp_path, "errors") == []
    assert_equals_world(tmp_path, server.world)


async def test_call_whose_entry_failed_and_is_not_listed_is_asked_for(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    """As where one of its evals makes the list an error."""
    ids = {execution.calls[0].call_execution_id for execution in executions(server)}

    def fail(request: SandboxRequest, _nth: int) -> Fault | None:
        is_list = request.path == RUNS and "execution_id" in request.query and "eval_name" not in request.query
        return Fault(status=500) if is_list or request.query.get("call_execution_id") in ids else None

    server.fault = fail
    assert (await export(settings={"api": {"max_tries": 1}})).exit_code == 3

    await leave_out_and_heal(server, export, ids)
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("new", [1, 2])
async def test_calls_that_only_the_detail_names_are_asked_for(
    server: Sandbox, export: Export, tmp_path: Path, new: int
) -> None:
    """A list that is older than the detail, however many nights it stays so."""
    assert [(await export()).exit_code for _ in range(2)] == [0, 0]
    execution = executions(server)[0]
    ids = add_calls(server, execution, new)
    execution.completed_calls += new

    await leave_out_and_heal(server, export, ids)
    assert_equals_world(tmp_path, server.world)


async def test_call_that_failed_and_was_deleted_is_forgotten(server: Sandbox, export: Export, tmp_path: Path) -> None:
    failing = executions(server)[0].calls[3]
    server.fault = lambda request, _nth: (
        Fault(status=500) if request.query.get("call_execution_id") == failing.call_execution_id else None
    )
    assert (await export(settings={"api": {"max_tries": 1}})).exit_code == 3

    server.fault = None
    sandbox.delete_call(failing)
    assert [(await export()).exit_code for _ in range(2)] == [0, 0]
    assert_equals_world(tmp_path, server.world)


async def test_calls_whose_file_was_lost_are_still_expected(server: Sandbox, export: Export, tmp_path: Path) -> None:
    """Else a file that is removed, and a list that is empty for one night, would make empty executions final."""
    await export()
    for path in (tmp_path / "data" / "calls").rglob("*.parquet"):
        path.unlink()

    server.fault = lists_only(server, 0)
    for _ in range(2):
        assert (await export()).exit_code == 3
        assert states_in(tmp_path) == {"incomplete"}
    server.fault = None
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)
