"""Law 9: an alarm goes away when its cause has gone and its next step is done.

What ``verify`` finds is in its tests, a load that failed and a night that was lost are end to end.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest

from etl.model.findings import Kind, Severity
from etl.model.keys import default_key
from etl.model.records import METRICS, RUN_TESTS, VOICE_CALLS
from etl.sandbox import Fault, SandboxRequest
from etl.sandbox.generate import add_execution
from tests.pipeline.nights import NIGHT, Nights, kinds, short_list
from tests.support import cap_pages

OF_VERIFY = {
    *(Kind.DAMAGED, Kind.MISPLACED, Kind.SCHEMA, Kind.UNREADABLE),
    *(Kind.NOT_READ, Kind.FOREIGN_FILE, Kind.LOADED_WRONG),
}
Cause = Callable[[Nights], dict[str, Any] | None]
"""Brings the alarm about; what it returns are options of the run that is to tell it."""
CAUSES: dict[Kind, Cause] = {}
STEPS: dict[Kind, dict[str, Any]] = {
    Kind.NEW_STATUS_ENDED: {"export": {"calls": "all"}},
    Kind.RUN_TESTS_UNKNOWN: {"names": "all"},
}
"""Options of the next step, where it is more than to run again."""


def cause(kind: Kind) -> Callable[[Cause], Cause]:
    def add(function: Cause) -> Cause:
        CAUSES[kind] = function
        return function

    return add


def fail(nights: Nights, concerns: Callable[[SandboxRequest], bool], status: int = 500) -> dict[str, Any]:
    nights.server.fault = lambda request, _nth: Fault(status=status) if concerns(request) else None
    return {"api": {"max_tries": 1}}


@cause(Kind.NO_SUCH_RUN_TEST)
def a_wrong_name(nights: Nights) -> dict[str, Any]:
    return {"names": [each.name for each in nights.world.run_tests] + ["Chekout"]}


@cause(Kind.LIST_FAILED)
def a_list_that_fails(nights: Nights) -> dict[str, Any]:
    name = nights.world.run_tests[0].name
    return fail(nights, lambda request: request.query.get("run_test_name") == name, 503)


@cause(Kind.LIST_UNPROVED)
def a_list_that_loses_a_row_whenever_it_is_read(nights: Nights) -> None:
    first, rng = nights.world.run_tests[0], random.Random(1)
    for _ in range(40):
        add_execution(nights.world, first, rng, NIGHT, 1, status="completed")
    cap_pages(nights.server, 10)

    def delete(request: SandboxRequest) -> None:
        living = [each for each in first.executions if not each.is_deleted]
        if request.query.get("run_test_name") == first.name and len(living) > 11:
            living[-1].is_deleted = True

    nights.server.on_request = delete


@cause(Kind.LIST_WRONG)
def a_list_that_is_cut_short(nights: Nights) -> None:
    nights.server.fault = short_list(2)


@cause(Kind.LOOK_UP_FAILED)
def an_execution_that_cannot_be_looked_up(nights: Nights) -> dict[str, Any]:
    nights.world.run_tests[0].executions[0].is_deleted = True
    return fail(nights, lambda request: request.path == METRICS and "execution_id" in request.query)


@cause(Kind.ROW_UNREADABLE)
def a_row_that_makes_its_page_fail(nights: Nights) -> None:
    nights.world.run_tests[0].executions[0].calls[0].chat_metrics = {"total_tokens": 12.5}


@cause(Kind.RUN_TESTS_UNKNOWN)
def a_list_of_run_tests_that_is_cut_short(nights: Nights) -> dict[str, Any]:
    hidden = nights.world.run_tests[0].name

    def cut(request: SandboxRequest, _nth: int) -> Fault | None:
        if request.path == RUN_TESTS:
            return Fault(edit=lambda body: body.replace(hidden.encode(), b"Another one"))
        return Fault(status=500) if request.query.get("run_test_name") == hidden else None

    nights.server.fault = cut
    return {"names": "all", "api": {"max_tries": 1}}


@cause(Kind.NOT_FETCHED)
def a_run_that_is_out_of_time(nights: Nights) -> dict[str, Any]:
    nights.server.fault = lambda request, _nth: Fault(is_hanging=True) if "call_execution_id" in request.query else None
    add_execution(nights.world, nights.world.run_tests[0], random.Random(1), NIGHT, 2, status="completed")
    return {"export": {"max_runtime_minutes": 0.01}}


@cause(Kind.DEAD_LETTER)
def a_call_that_fails(nights: Nights) -> dict[str, Any]:
    add_execution(nights.world, nights.world.run_tests[0], random.Random(1), NIGHT, 2, status="completed")
    return fail(nights, lambda request: "call_execution_id" in request.query)


@cause(Kind.NEW_STATUS_ENDED)
def a_status_of_another_version(nights: Nights) -> dict[str, Any]:
    nights.world.run_tests[0].executions[0].status = "archived"
    return {"times": 3}


@cause(Kind.ANSWERS_CHANGED)
def a_field_that_was_renamed(nights: Nights) -> None:
    for seed in (1, 2):
        run_test = nights.world.run_tests[0]
        add_execution(nights.world, run_test, random.Random(seed), NIGHT, 40, status="completed")
    renamed = Fault(edit=lambda body: body.replace(b'"stt_cost_cents"', b'"stt_cents"'))
    nights.server.fault = lambda request, _nth: (
        renamed if "call_execution_id" in request.query or request.path == VOICE_CALLS else None
    )


@cause(Kind.QUARANTINED)
def a_damaged_file(nights: Nights) -> None:
    next((nights.folder / "data" / "calls").rglob("*.parquet")).write_bytes(b"PAR1")


@cause(Kind.LOST_ROWS)
def a_lost_file_of_a_run_test_that_the_run_is_not_about(nights: Nights) -> dict[str, Any]:
    first, second = nights.world.run_tests
    next((nights.folder / "data" / "calls" / f"run_test={default_key(first.name)}").rglob("*.parquet")).unlink()
    return {"only": [second.name]}


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind in CAUSES])
async def test_an_alarm_goes_away_with_its_cause_and_its_next_step(nights: Nights, kind: Kind) -> None:
    await nights.export(names="all" if kind is Kind.RUN_TESTS_UNKNOWN else None)
    options = CAUSES[kind](nights) or {}
    for _ in range(options.pop("times", 1)):
        told = await nights.export(**options)
    assert (told.exit_code, kind in kinds(told)) == (3, True)

    nights.server.fault = nights.server.on_request = None
    for call in (call for each in nights.world.run_tests for run in each.executions for call in run.calls):
        call.chat_metrics = None if call.chat_metrics == {"total_tokens": 12.5} else call.chat_metrics
    after = await nights.export(**STEPS.get(kind, {}))

    assert (after.exit_code, kind in kinds(after)) == (0, False)


def test_each_alarm_is_tried() -> None:
    alarms = {kind for kind in Kind if kind.severity is not Severity.NOTICE}
    assert alarms == CAUSES.keys() | OF_VERIFY | {Kind.NOT_LOADED, Kind.RUN_LOST}
