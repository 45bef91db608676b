"""Every kind of fault, at every endpoint, at the first, the middle and the last request to it.

``make test`` runs each kind, endpoint and position at least once; ``make test-all`` the whole product.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import etl
from etl.extract import quota as quota_module
from etl.model import schema
from etl.model.findings import Kind
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox, SandboxRequest, World
from etl.sandbox.world import listable_executions
from etl.settings import Settings
from tests.datasets import fill_parts_early
from tests.e2e import faults, truth
from tests.e2e.faults import KINDS, Cure, Endpoint, Strike, endpoint_of
from tests.support import settings_for
from tests.worlds import settled_world

POSITIONS: dict[str, Callable[[int], int]] = {
    "first": lambda _count: 1,
    "middle": lambda count: (count + 1) // 2,
    "last": lambda count: count,
}
CONCURRENCY, MAX_TRIES = 2, 2
RUN_TEST = "Checkout flow"
FIRST_NIGHT = datetime(2026, 10, 30, 15, tzinfo=UTC)
LATER = FIRST_NIGHT + timedelta(days=4)
FIRST_EXPORT = [endpoint for endpoint in Endpoint if endpoint not in (Endpoint.DETAIL, Endpoint.EXECUTION)]
FIRST_QUICK = [(kind, FIRST_EXPORT[number % 3], list(POSITIONS)[number // 3 % 3]) for number, kind in enumerate(KINDS)]
QUICK = {*FIRST_QUICK} | {
    (kind, endpoint, list(POSITIONS)[number % 3])
    for number, kind in enumerate(list(KINDS)[::12])
    for endpoint in (Endpoint.DETAIL, Endpoint.EXECUTION)
}


def cases(*cures: Cure, endpoints: Iterable[Endpoint] = FIRST_EXPORT, quick: Collection[Any] = QUICK) -> list[Any]:
    return [
        pytest.param(*case, id=f"{case[0]}-{case[1].name}-{case[2]}", marks=() if case in quick else pytest.mark.slow)
        for case in product(KINDS, endpoints, POSITIONS)
        if KINDS[case[0]].cure in cures
    ]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_module, "_NO_HINT_SECONDS", 0.02)


@pytest.fixture(autouse=True)
def _several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_parts_early(monkeypatch, rows=12)


class Source(Sandbox):
    """Two run tests, six and two executions of three calls each."""

    def __init__(self, *, days: int = 30, **options: Any) -> None:
        super().__init__(settled_world(run_tests=2, days=days, executions=6, calls=3), max_limit=4, **options)
        first, second = self.world.run_tests
        assert first.name == RUN_TEST
        del second.executions[2:]


def settings(source: Source, folder: Path, kind: faults.Kind | None = None) -> Settings:
    timeouts = {"connect_timeout_seconds": 0.3, "read_timeout_seconds": 0.3} if kind and kind.is_slow else {}
    return settings_for(
        source,
        folder / "data",
        api={
            "page_limit": 8,  # pages are cut, so no larger one is tried
            "concurrency": CONCURRENCY,
            "max_tries": MAX_TRIES,
            "max_response_mb": 1,
            "requests_per_minute": 100_000,  # told, so that nothing is learned from one refusal
            **timeouts,
        },
        export={"metrics": "calls"},
    )


@pytest.fixture(scope="module")
def counts() -> Counter[Endpoint]:
    """How many requests to each endpoint an export without faults takes."""

    async def export() -> Counter[Endpoint]:
        with tempfile.TemporaryDirectory() as folder:
            async with Source() as source:
                assert (await etl.export(settings(source, Path(folder)))).exit_code == 0
            return Counter(each for request in source.requests if (each := endpoint_of(request)))

    found = asyncio.run(export())
    assert min(found[endpoint] for endpoint in FIRST_EXPORT) >= 3, found
    return found


@pytest.mark.parametrize(("name", "endpoint", "position"), cases(Cure.ASK_AGAIN, quick=FIRST_QUICK[::2]))
async def test_fault_that_strikes_once_leaves_no_trace(
    name: str, endpoint: Endpoint, position: str, tmp_path: Path, counts: Counter[Endpoint]
) -> None:
    kind = KINDS[name]
    async with Source() as source:
        source.fault = Strike(kind.fault, endpoint, POSITIONS[position](counts[endpoint]))
        summary = await etl.export(settings(source, tmp_path, kind))

    assert (summary.exit_code, summary.problems) == (0, [])
    truth.assert_equals_world(tmp_path, source.world)
    sent = sum(endpoint_of(request) is not None for request in source.requests) - counts.total()
    assert 1 <= sent <= 3, "the request again, and perhaps the first page, for how many there are"


def rows_in(folder: Path, table: str) -> list[truth.Row]:
    return truth.rows_of(folder, table) if (folder / "data" / table).exists() else []


async def assert_heals(source: Source, folder: Path) -> None:
    """Once nothing goes wrong any more, the next run exports everything."""
    source.fault = None
    healed = await etl.export(settings(source, folder))
    assert (healed.exit_code, healed.problems, rows_in(folder, "errors")) == (0, [], [])
    truth.assert_equals_world(folder, source.world)


def assert_holds_all_but(folder: Path, world: World, may_lack: Callable[[truth.Row], bool]) -> None:
    """Every row of the world but these, which may be there or not; each that is there is right."""
    for table, of_world in {
        "executions": truth.execution_rows(world),
        "calls": truth.call_rows(world),
        "evals": truth.eval_rows(world),
    }.items():
        found = {tuple(row[name] for name in schema.TABLES[table].key) for row in rows_in(folder, table)}
        expected = {key: row for key, row in of_world.items() if key in found or not may_lack(row)}
        if expected or found:
            truth.assert_holds(folder, table, expected)


def is_lost_by(strike: Strike) -> Callable[[truth.Row], bool]:
    """Whether a row cannot be had while the fault stays."""
    assert strike.struck
    query = strike.struck.query
    match strike.endpoint:
        case Endpoint.CALL:
            return lambda row: row.get("call_execution_id") == query["call_execution_id"]
        case Endpoint.CALLS:
            return lambda row: "call_execution_id" in row and row["execution_id"] == query["execution_id"]
        case Endpoint.EXECUTIONS:
            return lambda row: bool(row["run_test_name"] == query["run_test_name"])
        case Endpoint.EXECUTION | Endpoint.DETAIL:
            return lambda _row: False


@pytest.mark.parametrize(
    ("name", "endpoint", "position"), cases(Cure.ASK_AGAIN, quick=FIRST_QUICK[1::2]) + cases(Cure.GIVE_UP)
)
async def test_fault_that_stays_costs_what_it_strikes_and_heals_when_it_ends(
    name: str, endpoint: Endpoint, position: str, tmp_path: Path, counts: Counter[Endpoint]
) -> None:
    kind = KINDS[name]
    async with Source() as source:
        source.fault = strike = Strike(kind.fault, endpoint, POSITIONS[position](counts[endpoint]), for_ever=True)
        sick = await etl.export(settings(source, tmp_path, kind))
        assert_holds_all_but(tmp_path, source.world, is_lost_by(strike))
        given_up = [row["subject_id"] for row in rows_in(tmp_path, "errors")]
        asked = strike.times
        await assert_heals(source, tmp_path)

    assert strike.struck
    # A page that stays 500 is read around in smaller ones: here nothing is lost, unless it was of one row already.
    is_read_around = name.startswith("500") and endpoint in (Endpoint.EXECUTIONS, Endpoint.CALLS)
    assert sick.exit_code == 3 or (is_read_around and not sick.problems)
    if endpoint is Endpoint.CALL:
        assert given_up == [strike.struck.query["call_execution_id"]]
        # A refusal among answers is confirmed.
        # One that the rate limit refuses with a time to come back is sent again five times within a try.
        most = MAX_TRIES * 6 if "429" in name else MAX_TRIES
        assert asked in ((1, 2) if kind.cure is Cure.GIVE_UP else (MAX_TRIES, most))
    if endpoint is Endpoint.CALLS and not is_read_around:
        assert given_up == [strike.struck.query["execution_id"]]


@pytest.mark.parametrize(("name", "endpoint", "position"), cases(Cure.STOP))
async def test_refused_key_ends_the_run_at_once_and_keeps_what_had_arrived(
    name: str, endpoint: Endpoint, position: str, tmp_path: Path, counts: Counter[Endpoint]
) -> None:
    async with Source() as source:
        nth = POSITIONS[position](counts[endpoint])
        source.fault = strike = Strike(KINDS[name].fault, endpoint, nth, for_ever=True)
        refused = await etl.export(settings(source, tmp_path))
        statuses = [request.status for request in source.requests]
        at = next(index for index, status in enumerate(statuses) if status in (401, 403))
        assert_holds_all_but(tmp_path, source.world, lambda _row: True)
        kept = {row["call_execution_id"] for row in rows_in(tmp_path, "calls")}
        answered = {request.query.get("call_execution_id") for request in source.requests[: max(0, at - CONCURRENCY)]}
        await assert_heals(source, tmp_path)

    assert strike.struck
    assert refused.exit_code == 4
    assert len(statuses) - at <= 8 * CONCURRENCY, "those that were under way, or sent before the refusal was repeated"
    for execution in (each for run_test in source.world.run_tests for each in run_test.executions):
        calls = {call.call_execution_id for call in execution.calls}
        assert not calls <= answered or calls <= kept


@pytest.mark.parametrize(("name", "endpoint", "position"), cases(Cure.COME_BACK))
async def test_hold_of_hours_ends_the_run_at_once_and_keeps_what_had_arrived(
    name: str, endpoint: Endpoint, position: str, tmp_path: Path, counts: Counter[Endpoint]
) -> None:
    async with Source() as source:
        source.fault = Strike(KINDS[name].fault, endpoint, POSITIONS[position](counts[endpoint]))
        ended = await etl.export(settings(source, tmp_path))
        at = next(index for index, request in enumerate(source.requests) if request.status in (429, 503))
        after = len(source.requests) - at
        assert_holds_all_but(tmp_path, source.world, lambda _row: True)
        rows = sum(len(rows_in(tmp_path, table)) for table in ("executions", "calls", "evals"))
        await assert_heals(source, tmp_path)

    assert ended.exit_code == (3 if rows else 5)
    assert "the API allows no request until " in ended.problems[0]
    assert after <= 2 * CONCURRENCY, "those that were under way"


@pytest.mark.parametrize(("name", "endpoint", "position"), cases(Cure.UNDERSTAND))
async def test_what_http_allows_costs_nothing(
    name: str, endpoint: Endpoint, position: str, tmp_path: Path, counts: Counter[Endpoint]
) -> None:
    """From one request to the endpoint on, every answer of it is so."""
    left = POSITIONS[position](counts[endpoint])

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        nonlocal left
        left -= endpoint_of(request) is endpoint
        return KINDS[name].fault if left <= 0 and endpoint_of(request) is endpoint else None

    async with Source(fault=fault) as source:
        summary = await etl.export(settings(source, tmp_path))

    assert left <= 0
    assert (summary.exit_code, summary.problems) == (0, [])
    truth.assert_equals_world(tmp_path, source.world)
    assert sum(endpoint_of(request) is not None for request in source.requests) == counts.total()


@pytest.mark.parametrize(("name", "endpoint", "position"), cases(Cure.BELIEVE))
async def test_odd_answer_is_believed(
    name: str, endpoint: Endpoint, position: str, tmp_path: Path, counts: Counter[Endpoint]
) -> None:
    """What is listed and yet not found may be deleted, or a replica lags: the truth is not known."""
    async with Source() as source:
        nth = POSITIONS[position](counts[endpoint])
        source.fault = strike = Strike(KINDS[name].fault, endpoint, nth, for_ever=True)
        odd = await etl.export(settings(source, tmp_path))
        assert_holds_all_but(tmp_path, source.world, is_lost_by(strike) if name == "404 JSON" else lambda _row: False)
        await assert_heals(source, tmp_path)

    assert odd.exit_code == (3 if name == "404 JSON" else 0)


@pytest.mark.parametrize(("name", "endpoint", "position"), cases(*Cure, endpoints=[Endpoint.EXECUTION]))
async def test_execution_is_marked_only_when_its_look_up_can_be_had(
    name: str, endpoint: Endpoint, position: str, tmp_path: Path
) -> None:
    kind, gone = KINDS[name], 3
    async with Source() as source:
        await etl.export(settings(source, tmp_path))
        for execution in listable_executions(source.world, RUN_TEST)[:gone]:
            execution.is_deleted = True
        source.fault = strike = Strike(kind.fault, endpoint, POSITIONS[position](gone), for_ever=True)
        sick = await etl.export(settings(source, tmp_path, kind))
        unmarked = len(truth.rows_of(tmp_path, "executions")) - len(truth.execution_rows(source.world))
        await assert_heals(source, tmp_path)

    assert strike.struck
    assert bool(unmarked) == bool(sick.exit_code)
    assert unmarked == 1 or kind.cure not in (Cure.ASK_AGAIN, Cure.GIVE_UP)


@pytest.mark.parametrize(("name", "endpoint", "position"), cases(*Cure, endpoints=[Endpoint.DETAIL]))
async def test_settling_execution_whose_detail_fails_is_fetched_whole(
    name: str, endpoint: Endpoint, position: str, tmp_path: Path
) -> None:
    """Whatever the fault: the run goes on, late data is found days later, and a dead letter says what is missing.

    The detail is tried twice at most, and in smaller pages where it is a 500. If the first one is unknown to the
    server, there are none, and no other is requested.
    """
    kind = KINDS[name]
    async with Source(days=1) as source:
        executions = [each for run_test in source.world.run_tests for each in run_test.executions]
        await job.export(settings(source, tmp_path), clock=lambda: FIRST_NIGHT)
        for execution in executions:
            execution.calls[1].total_cost_cents = 4321
        source.fault = strike = Strike(kind.fault, endpoint, POSITIONS[position](len(executions)), for_ever=True)
        source.requests.clear()
        settled = await job.export(settings(source, tmp_path, kind), clock=lambda: LATER)
        asked, seen = Counter(map(endpoint_of, source.requests)), strike.seen
        source.fault = None
        quiet = await job.export(settings(source, tmp_path), clock=lambda: LATER + timedelta(days=1))
        await job.export(settings(source, tmp_path), clock=lambda: LATER + timedelta(days=3))

    assert strike.struck
    assert (quiet.exit_code, quiet.problems) == (0, [])
    # A detail has no status that could be false, and is not asked for fields that no column knows.
    is_halved = kind.fault.status == 500
    is_read = kind.cure is Cure.UNDERSTAND or name in ("status false", "NaN") or is_halved
    assert [each.kind for each in settled.findings] == [Kind.DEAD_LETTER] * (not is_read)
    assert asked[Endpoint.CALL] == len(executions) + 2 * (not is_read)
    most = 3 if is_halved else not is_read
    assert 0 <= asked[Endpoint.DETAIL] - len(executions) <= most or "429" in name
    assert seen == asked[Endpoint.DETAIL]
    assert {row["export_state"] for row in truth.rows_of(tmp_path, "executions")} == {"exported"}
    truth.assert_equals_world(tmp_path, source.world)
