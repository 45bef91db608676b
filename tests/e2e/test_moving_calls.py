"""A call that is listed under two executions, or moves from one to another, stands once, and stops no run."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from etl.model import schema
from etl.model.records import METRICS, RUNS
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.sandbox import Call, Execution, Fault, Sandbox, SandboxRequest, rename_run_test
from etl.sandbox.answers.metrics import execution_page
from tests.datasets import fill_parts_early
from tests.e2e.faults import edited_calls
from tests.e2e.truth import assert_equals_world, rows_of
from tests.support import cap_pages, settings_for
from tests.worlds import settled_world

FIRST_NIGHT = datetime(2026, 11, 5, 2, tzinfo=UTC)
Export = Callable[..., Any]


@pytest.fixture(autouse=True)
def _a_part_for_each_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_parts_early(monkeypatch, rows=1)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=4, calls=12)) as running:
        yield running


@pytest.fixture
def export(server: Sandbox, tmp_path: Path) -> Export:
    """One night's export; every execution has settled before the first."""
    nights = iter(range(99))

    async def run(*, names: list[str] | None = None, options: dict[str, Any] | None = None, **sections: Any) -> Summary:
        night = FIRST_NIGHT + timedelta(days=next(nights))
        settings = settings_for(server, tmp_path / "data", run_tests=names, **sections)
        return await job.export(settings, clock=lambda: night, **(options or {}))

    return run


def places(folder: Path, call: Call) -> dict[str, set[str]]:
    """The executions under which each table has the call; no key stands twice."""
    found = {}
    for table, key in (("calls", ("call_execution_id",)), ("evals", ("call_execution_id", "eval_config_id"))):
        rows = rows_of(folder, table)
        keys = [tuple(row[name] for name in key) for row in rows]
        assert len(keys) == len(set(keys)), f"{table}: a key stands twice"
        found[table] = {row["execution_id"] for row in rows if row["call_execution_id"] == call.call_execution_id}
    return found


def once_in(execution: Execution) -> dict[str, set[str]]:
    return {"calls": {execution.execution_id}, "evals": {execution.execution_id}}


def move(server: Sandbox, call: Call, source: Execution, target: Execution) -> None:
    source.calls.remove(call)
    target.calls.append(call)
    server.world.index_execution(target)


def also_lists(
    server: Sandbox, liar: Execution, call: Call, owner: Execution
) -> Callable[[SandboxRequest, int], Fault | None]:
    """The list of one execution names a call of another one, too."""

    def edit(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        outputs = {key: dict(value) for key, value in call.eval_outputs.items()}
        return [*calls, {**calls[0], "call_execution_id": call.call_execution_id, "eval_outputs": outputs}]

    assert call in owner.calls
    return lambda request, _nth: (
        edited_calls(server.world, request, edit) if request.query.get("execution_id") == liar.execution_id else None
    )


def pair(server: Sandbox, where: str) -> tuple[Execution, Execution]:
    first, second = server.world.run_tests
    return first.executions[-1], (first if where == "same run test" else second).executions[-2]


WHERE = ["same run test", "another run test"]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("page_limit", [pytest.param(1024, marks=pytest.mark.slow), 4])
async def test_call_that_two_executions_list_stands_under_the_one_that_it_names_itself(
    server: Sandbox, export: Export, tmp_path: Path, where: str, page_limit: int, *, is_known: bool
) -> None:
    owner, liar = pair(server, where)
    call = owner.calls[3]
    settings: dict[str, Any] = {"api": {"page_limit": page_limit}, "export": {"scrub_requests": 10_000}}
    cap_pages(server, page_limit)
    if is_known:
        await export(**settings)
    server.fault = also_lists(server, liar, call, owner)

    for _ in range(2):
        odd = await export(**settings)
        assert odd.exit_code == 3
        assert places(tmp_path, call) == once_in(owner)
        [letter] = rows_of(tmp_path, "errors")
        assert (letter["subject_id"], letter["execution_id"]) == (call.call_execution_id, liar.execution_id)
        assert f"belongs to execution {owner.execution_id}" in letter["message"]
        states = {row["execution_id"]: row["export_state"] for row in rows_of(tmp_path, "executions")}
        assert {each for each, state in states.items() if state != "exported"} == {liar.execution_id}

    assert server.count(METRICS, call_execution_id=call.call_execution_id) <= 6, "it is not retried"
    server.fault = None
    healed = await export(**settings)
    assert (healed.exit_code, healed.problems) == (0, [])
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("names", ["all", "target alone"])
async def test_call_that_moved_stands_in_its_new_place_alone(
    server: Sandbox, export: Export, tmp_path: Path, where: str, names: str
) -> None:
    """Also where the run is not about the old place."""
    await export()
    source, target = pair(server, where)
    call = source.calls[5]
    move(server, call, source, target)

    moved = await export(names=None if names == "all" else [target.run_test.name])

    assert (moved.exit_code, moved.problems) == (0, [])
    assert places(tmp_path, call) == once_in(target)
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)
    versions = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "calls").rglob("*.parquet")}
    await export()  # what the call has left is final again
    assert (await export()).files == 0
    assert versions == {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "calls").rglob("*.parquet")}


async def test_call_that_a_killed_run_left_in_both_places_goes_in_a_quiet_night(
    server: Sandbox, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await export()
    source, target = pair(server, "another run test")
    listed = execution_page(server.world, source.run_test.name, limit="1024")
    unchanged = Fault(body=msgspec.json.encode({"status": True, "result": listed}))
    server.fault = lambda request, _nth: (
        unchanged if request.query.get("run_test_name") == source.run_test.name else None
    )
    move(server, source.calls[5], source, target)
    call = target.calls[-1]
    with monkeypatch.context() as killed:
        killed.setattr(job, "part_moved_calls", _do_nothing)
        await export(names=[target.run_test.name])
    ids = [row["call_execution_id"] for row in rows_of(tmp_path, "calls")]
    assert ids.count(call.call_execution_id) == 2

    healed = await export()

    assert healed.exit_code == 0
    assert [each.reasons for each in healed.run_tests] == [{"final": 4}, {"final": 3, "settling": 1}], "one has changed"
    assert places(tmp_path, call) == once_in(target)


async def test_call_that_a_killed_run_left_behind_in_a_run_test_that_moves_is_where_it_was_seen_last(
    server: Sandbox, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What moves is written anew, and of a call that stands twice the newest row stays."""
    await export()
    source, target = pair(server, "another run test")
    names = {source.run_test.name, "Renamed"}
    listed = execution_page(server.world, source.run_test.name, limit="1024")
    unchanged = Fault(body=msgspec.json.encode({"status": True, "result": listed}))
    server.fault = lambda request, _nth: unchanged if request.query.get("run_test_name") in names else None
    move(server, source.calls[5], source, target)
    call = target.calls[-1]
    with monkeypatch.context() as killed:
        killed.setattr(job, "part_moved_calls", _do_nothing)
        await export(names=[target.run_test.name])
    rename_run_test(source.run_test, "Renamed")

    moved = await export()

    assert [each.moved for each in moved.run_tests] == [4, 0]
    assert places(tmp_path, call) == once_in(target)


async def _do_nothing(*_: object) -> None:
    """What a run does at its end that was killed before it."""


@pytest.mark.parametrize("where", WHERE)
async def test_call_that_moves_while_the_run_reads_it_stands_where_it_was_seen_last(
    server: Sandbox, export: Export, tmp_path: Path, where: str
) -> None:
    """The old place was read before the move, the new one after it: each of them has the call's own word."""
    source, target = pair(server, where)
    call = source.calls[5]

    def move_once_read(request: SandboxRequest) -> None:
        is_target = request.query.get("execution_id") == target.execution_id
        if is_target and server.count(METRICS, call_execution_id=call.call_execution_id) and call in source.calls:
            move(server, call, source, target)

    server.on_request = move_once_read
    await export(api={"concurrency": 1})
    assert call in target.calls
    server.on_request = None

    assert places(tmp_path, call) == once_in(target)
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)


def names_another(call: Call, owner: Execution, other: str) -> Callable[[SandboxRequest, int], Fault | None]:
    """The call's metrics say that it belongs to this other execution."""

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        is_asked = request.path == METRICS and request.query.get("call_execution_id") == call.call_execution_id
        return Fault(edit=lambda body: body.replace(owner.execution_id.encode(), other.encode())) if is_asked else None

    return fault


def states(folder: Path) -> dict[str, str]:
    return {row["execution_id"]: row["export_state"] for row in rows_of(folder, "executions")}


@pytest.mark.parametrize("where", WHERE)
async def test_call_that_was_only_said_to_have_moved_is_back_in_the_next_night(
    server: Sandbox, export: Export, tmp_path: Path, where: str
) -> None:
    """Nothing but the night of the lie tells that the final execution it was taken from must be looked at."""
    owner, liar = pair(server, where)
    call = owner.calls[3]
    await export()
    liar.calls[0].duration_seconds = 1234  # the list of executions shows it
    also, named = also_lists(server, liar, call, owner), names_another(call, owner, liar.execution_id)
    server.fault = lambda request, nth: also(request, nth) or named(request, nth)
    lied = await export(names=[liar.run_test.name])
    assert (lied.exit_code, places(tmp_path, call)) == (0, once_in(liar))

    server.fault = None
    for _ in range(2):
        assert (await export()).exit_code == 0
    assert places(tmp_path, call) == once_in(owner)
    assert_equals_world(tmp_path, server.world)
    server.requests.clear()
    quiet = await export()
    assert (quiet.exit_code, quiet.requests, quiet.files) == (0, 2, 0), "it is final again"


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("night", ["narrowed", "list fails"])
async def test_call_that_moves_there_and_back_is_never_lost(
    server: Sandbox, export: Export, tmp_path: Path, where: str, night: str
) -> None:
    await export()
    source, target = pair(server, where)
    call = source.calls[5]
    move(server, call, source, target)
    if night == "list fails":
        server.fault = lambda request, _nth: (
            Fault(status=503) if request.query.get("execution_id") == source.execution_id else None
        )
    await export(names=[target.run_test.name] if night == "narrowed" else None, api={"max_tries": 1})
    assert places(tmp_path, call) == once_in(target)
    server.fault = None
    move(server, call, target, source)

    for _ in range(2):
        assert (await export()).exit_code == 0
    assert places(tmp_path, call) == once_in(source)
    assert_equals_world(tmp_path, server.world)


async def test_call_that_names_an_execution_which_does_not_have_it_is_kept_and_asked_for_again(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    source, _ = pair(server, WHERE[0])
    call = source.calls[3]
    await export()
    before = {table: rows_of(tmp_path, table) for table in ("calls", "evals")}

    def unlisted(request: SandboxRequest, nth: int) -> Fault | None:
        if request.path == RUNS and request.query.get("execution_id") == source.execution_id:
            return edited_calls(
                server.world,
                request,
                lambda calls: [each for each in calls if each["call_execution_id"] != call.call_execution_id],
            )
        return named(request, nth)

    named = names_another(call, source, str(uuid4()))
    server.fault = unlisted
    for options in ({"full_refresh": True}, {}):
        sick = await export(options=options)
        assert sick.exit_code == 3
        assert {table: rows_of(tmp_path, table) for table in before} == before
        [letter] = rows_of(tmp_path, "errors")
        assert (letter["endpoint"], letter["subject_id"]) == (RUNS, call.call_execution_id)
        assert "no longer lists it, and it names execution" in letter["message"]
        assert states(tmp_path)[source.execution_id] == "incomplete"
    assert (await export(options={"accept_deletions": True})).exit_code == 0
    assert places(tmp_path, call) == {"calls": set(), "evals": set()}

    server.fault = None
    assert (await export(options={"full_refresh": True})).exit_code == 0
    assert_equals_world(tmp_path, server.world)


@pytest.mark.parametrize(
    ("where", "rows", "seconds"),
    [
        (WHERE[0], 1, 0.01),
        (WHERE[0], 50_000, 60),
        (WHERE[1], 1, 60),
        (WHERE[1], 50_000, 0.01),
        *(  # each two of these meet above
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((WHERE[0], 1, 60), (WHERE[0], 50_000, 0.01), (WHERE[1], 1, 0.01), (WHERE[1], 50_000, 60))
        ),
    ],
)
async def test_call_that_moved_is_taken_from_an_execution_that_was_fetched_in_the_same_run(
    server: Sandbox,
    export: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    rows: int,
    seconds: float,
) -> None:
    """Whichever of the two is committed first: once both are, nothing is missing."""
    fill_parts_early(monkeypatch, rows=rows)
    source, target = pair(server, where)
    for one, other in ((source, target), (target, source)):
        await export()
        call = next(each for each in one.calls if each.eval_outputs)
        move(server, call, one, other)
        moved = await export(options={"full_refresh": True}, export={"commit_interval_seconds": seconds})

        assert (moved.exit_code, moved.problems) == (0, [])
        assert [each.dead_letters for each in moved.run_tests] == [0, 0]
        assert places(tmp_path, call) == once_in(other)
        assert "1 call moved to another execution" in moved.notices[0]
        assert states(tmp_path)[one.execution_id] == "settling"
        assert_equals_world(tmp_path, server.world)
    assert (await export()).exit_code == 0
    assert {*states(tmp_path).values()} == {"exported"}


@pytest.mark.parametrize("then", ["no list", "short list", "runs again"])
async def test_old_dead_letter_of_a_call_that_moved_takes_none_of_the_run_with_it(
    server: Sandbox, export: Export, tmp_path: Path, then: str
) -> None:
    """It goes once the call stands in its new place, in a night that had another one of the execution, or none."""
    source, target = pair(server, WHERE[1])
    await export()
    move(server, source.calls[5], source, target)
    server.fault = lambda request, _nth: (
        Fault(status=503) if request.query.get("execution_id") == target.execution_id else None
    )
    assert (await export(options={"full_refresh": True}, api={"max_tries": 1})).exit_code == 3
    if then == "runs again":
        source.status = "running"

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        if request.query.get("execution_id") != source.execution_id or then == "runs again":
            return None
        return (
            edited_calls(server.world, request, lambda calls: calls[:3]) if then == "short list" else Fault(status=503)
        )

    server.fault = fault
    sick = await export(api={"max_tries": 1})

    letters = [row["subject_id"] for row in rows_of(tmp_path, "errors")]
    assert letters == ([] if then == "runs again" else [source.execution_id])
    assert [each.dead_letters for each in sick.run_tests] == [len(letters), 0]
    assert (sick.exit_code, len(sick.problems)) == ((3, 1) if letters else (0, 0))


async def test_dead_letter_of_a_call_that_moved_and_fails_stands_once_for_each_execution(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    source, target = pair(server, WHERE[1])
    call = source.calls[5]
    server.fault = lambda request, _nth: (
        Fault(status=500) if request.query.get("call_execution_id") == call.call_execution_id else None
    )
    await export(api={"max_tries": 1})
    move(server, call, source, target)
    await export(api={"max_tries": 1}, options={"full_refresh": True})

    letters = [tuple(row[name] for name in schema.ERRORS.unique) for row in rows_of(tmp_path, "errors")]
    assert (METRICS, call.call_execution_id, source.execution_id) in letters
    assert (METRICS, call.call_execution_id, target.execution_id) in letters
    assert len(letters) == len(set(letters))


async def test_call_is_kept_where_it_was_while_its_new_execution_cannot_be_fetched(
    server: Sandbox, export: Export, tmp_path: Path
) -> None:
    source, target = pair(server, WHERE[1])
    await export()
    call = source.calls[5]
    move(server, call, source, target)
    server.fault = lambda request, _nth: (
        Fault(status=503) if request.query.get("execution_id") == target.execution_id else None
    )
    sick = await export(options={"full_refresh": True}, api={"max_tries": 1})
    assert (sick.exit_code, places(tmp_path, call)) == (3, once_in(source))

    server.fault = None
    assert (await export()).exit_code == 0
    assert places(tmp_path, call) == once_in(target)
    assert (await export()).exit_code == 0
    assert_equals_world(tmp_path, server.world)
