"""The sandbox's world: seeded, believable, and right after any change."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import correlation, mean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.sandbox.answers.metrics import execution_metrics
from etl.sandbox.generate import (
    add_execution,
    add_late_data,
    finish_execution,
    make_world,
    new_run_test,
    start_execution,
)
from etl.sandbox.world import (
    CALL_STATUSES,
    EXECUTION_STATUSES,
    TERMINAL_STATUSES,
    Profile,
    World,
    add_run_test,
    delete_call,
    delete_execution,
    executions_of,
    listable_calls,
    listable_executions,
    rename_run_test,
    rerun_execution,
    touch_call,
)

END = datetime(2026, 11, 1, 12, tzinfo=UTC)


def small_world(**options):
    return make_world(Random(4), end=END, **{"run_tests": 2, "executions": 6, "calls": 5, **options})


@pytest.fixture(scope="module")
def month():
    """A month with enough in it to see its rhythm."""
    return make_world(Random(11), end=END, executions=200, calls=12, days=56)


def completed_calls(run_test):
    return [call for each in run_test.executions for call in each.calls if call.status == "completed"]


def passes(calls):
    outputs = [each["output"] for call in calls for each in call.eval_outputs.values()]
    return outputs.count("Passed") / (outputs.count("Passed") + outputs.count("Failed"))


def test_same_seed_gives_the_same_world():
    assert small_world() == small_world()
    assert small_world() != make_world(Random(5), end=END, run_tests=2, executions=6, calls=5)


def test_world_has_the_size_that_was_asked_for():
    world = make_world(Random(1), end=END)
    assert [len(each.executions) for each in world.run_tests] == [20] * 3
    assert {len(each.calls) for each in executions_of(world)} == {30}


def test_calls_vary_when_asked():
    sizes = {len(each.calls) for each in executions_of(small_world(executions=20, calls_spread=3))}
    assert len(sizes) > 3
    assert sizes <= set(range(2, 9))


def test_names_are_free_and_may_be_shared():
    names = ["../etc", "Shared", "Shared", "a=b/c%2F", ""]
    world = small_world(names=names)
    assert [each.name for each in world.run_tests] == names
    assert len(listable_executions(world, "Shared")) == 12


def test_invented_names_never_repeat():
    assert len({each.name for each in small_world(run_tests=20, executions=0).run_tests}) == 20


def test_every_status_occurs():
    world = make_world(Random(1), end=END)
    assert {each.status for each in executions_of(world)} == set(EXECUTION_STATUSES)
    assert {call.status for each in executions_of(world) for call in each.calls} == set(CALL_STATUSES)


def test_finished_world_holds_only_terminal_executions_and_calls():
    for each in executions_of(make_world(Random(1), end=END, include_unfinished=False)):
        assert each.status in TERMINAL_STATUSES
        assert each.completed_at is not None
        assert {call.status for call in each.calls} <= TERMINAL_STATUSES


def test_times_are_in_order_and_nothing_is_later_than_the_end(month):
    for execution in executions_of(month):
        assert END - timedelta(days=57) < execution.created_at < execution.started_at
        assert (execution.completed_at or END) <= END
        for call in execution.calls:
            assert execution.started_at <= call.updated_at <= (execution.completed_at or END)
            if call.started_at and call.completed_at:
                assert execution.started_at <= call.started_at <= call.completed_at <= call.updated_at


def test_stored_counters_agree_with_the_calls_of_a_new_world(month):
    for execution in executions_of(month):
        statuses = Counter(call.status for call in execution.calls)
        assert execution.total_calls == statuses.total()
        assert (execution.completed_calls, execution.failed_calls) == (statuses["completed"], statuses["failed"])


def test_ids_are_unique(month):
    ids = [each.execution_id for each in executions_of(month)]
    ids += [call.call_execution_id for each in executions_of(month) for call in each.calls]
    assert len(set(ids)) == len(ids)


def test_executions_are_rarer_at_weekends(month):
    days = Counter(each.created_at.weekday() for each in executions_of(month))
    assert mean(days[day] for day in (5, 6)) < 0.6 * mean(days[day] for day in range(5))


def test_mondays_are_slow(month):
    calls = [call for call in completed_calls(month.run_tests[1]) if call.started_at]
    mondays = [call.avg_agent_latency_ms for call in calls if call.started_at.weekday() == 0]
    others = [call.avg_agent_latency_ms for call in calls if call.started_at.weekday() != 0]
    assert 1.1 < median(mondays) / median(others) < 1.4


def test_first_run_test_gets_slower_and_passes_less_from_one_day_on(month):
    regression_at = month.run_tests[0].profile.regression_at
    calls = [call for call in completed_calls(month.run_tests[0]) if call.completed_at]
    before = [call for call in calls if call.completed_at < regression_at]
    after = [call for call in calls if call.completed_at >= regression_at]
    jump = median(call.avg_agent_latency_ms for call in after) / median(call.avg_agent_latency_ms for call in before)
    assert 1.4 < jump < 1.8
    assert passes(before) - passes(after) > 0.15
    assert [each.profile.regression_at for each in month.run_tests[1:]] == [None, None]


def test_costs_follow_duration(month):
    calls = [call for call in completed_calls(month.run_tests[0]) if call.total_cost_cents is not None]
    assert correlation([call.duration_seconds for call in calls], [call.total_cost_cents for call in calls]) > 0.8


def test_voice_calls_measure_voice_and_chat_calls_measure_chat(month):
    voice, chat = completed_calls(month.run_tests[0]), completed_calls(month.run_tests[2])
    assert all(
        isinstance(call.avg_agent_latency_ms, int) and 100 < call.avg_agent_latency_ms < 10_000 for call in voice
    )
    assert all(call.user_wpm == round(call.user_wpm, 2) for call in voice)
    assert all(call.avg_agent_latency_ms is None and call.system_metrics is None for call in chat)
    assert all(call.chat_metrics["total_tokens"] > 0 for call in chat)


def test_open_ended_objects_are_present_absent_and_empty(month):
    calls = completed_calls(month.run_tests[0])
    assert {call.system_metrics is None for call in calls} == {True, False}
    assert {call.cost_breakdown is None for call in calls} == {True, False}
    assert {} in [call.cost_breakdown for call in calls]
    assert {} in [call.chat_metrics for call in calls]
    assert None in [call.chat_metrics for call in calls]


def test_quirks_bend_values_only_when_asked():
    def odd(world):
        calls = [call for each in executions_of(world) for call in each.calls]
        chats = [call.chat_metrics or {} for call in calls]
        texts = sum(isinstance(chat.get("total_tokens"), str) for chat in chats)
        return texts, sum(isinstance(call.duration_seconds, float) for call in calls)

    assert odd(small_world(executions=60)) == (0, 0)
    assert min(odd(small_world(executions=60, quirks=True))) > 0


def test_executions_are_listed_newest_first_and_calls_last_updated_first():
    world = small_world(names=["Shared", "Shared"])
    created = [each.created_at for each in listable_executions(world, "Shared")]
    assert created == sorted(created, reverse=True)
    execution = world.run_tests[0].executions[0]
    oldest = listable_calls(execution)[-1]
    touch_call(oldest, END)
    assert listable_calls(execution)[0] is oldest


def test_execution_runs_and_finishes():
    world = small_world(executions=0)
    execution = add_execution(world, world.run_tests[0], Random(2), END, 20, status="pending")
    assert {call.status for call in execution.calls} == {"pending"}
    start_execution(execution, Random(2), END + timedelta(minutes=5))
    assert (execution.status, execution.completed_at) == ("running", None)
    done = [call for call in execution.calls if call.status == "completed"]
    values = [call.duration_seconds for call in done]
    finish_execution(execution, Random(3), END + timedelta(minutes=20))
    assert (execution.status, execution.completed_at) == ("completed", END + timedelta(minutes=20))
    assert {call.status for call in execution.calls} <= TERMINAL_STATUSES
    assert [call.duration_seconds for call in done] == values
    assert {len(call.eval_outputs) for call in execution.calls if call.status == "completed"} == {3}


def test_rerun_keeps_the_ids_and_loses_the_values():
    execution = small_world(include_unfinished=False).run_tests[0].executions[0]
    ids = [call.call_execution_id for call in execution.calls]
    rerun_execution(execution, END)
    assert (execution.status, execution.completed_at, execution.completed_calls) == ("running", None, 0)
    assert [call.call_execution_id for call in execution.calls] == ids
    for call in execution.calls:
        assert (call.status, call.duration_seconds, call.chat_metrics, call.eval_outputs) == ("pending", None, None, {})
    finish_execution(execution, Random(1), END + timedelta(minutes=20))
    assert execution.completed_calls + execution.failed_calls > 0


def test_late_data_changes_a_call_but_not_what_its_execution_shows():
    kinds = set()
    for seed in range(20):
        execution = small_world().run_tests[0].executions[0]
        before = execution_metrics(execution)
        known = {call.call_execution_id: (call.total_cost_cents, call.eval_outputs) for call in execution.calls}
        call = add_late_data(execution, Random(seed), END)
        assert call is not None
        cost, evals = known[call.call_execution_id]
        kinds.add("cost" if call.total_cost_cents != cost else "evals" if call.eval_outputs != evals else "nothing")
        assert execution_metrics(execution) == before
        assert listable_calls(execution)[0] is call
    assert kinds == {"cost", "evals"}


def test_no_late_data_without_a_call():
    world = small_world(calls=0)
    assert add_late_data(world.run_tests[0].executions[0], Random(1), END) is None


def test_deleted_call_is_neither_listed_nor_found_but_counted():
    world = small_world()
    execution = world.run_tests[0].executions[0]
    before = execution_metrics(execution)
    delete_call(execution.calls[0])
    assert world.call(execution.calls[0].call_execution_id) is None
    assert len(listable_calls(execution)) == 4
    assert execution_metrics(execution) == before


def test_deleted_execution_takes_its_calls_along():
    world = small_world()
    execution = world.run_tests[0].executions[0]
    delete_execution(execution)
    assert world.execution(execution.execution_id) is None
    assert world.call(execution.calls[0].call_execution_id) is None
    assert execution not in listable_executions(world, world.run_tests[0].name)


def test_run_test_may_be_added_and_renamed():
    world, other = small_world(), small_world(names=["Other"])
    add_run_test(world, other.run_tests[0])
    call = other.run_tests[0].executions[0].calls[0]
    assert world.call(call.call_execution_id) == (other.run_tests[0].executions[0], call)
    rename_run_test(other.run_tests[0], "New name")
    assert (len(listable_executions(world, "New name")), listable_executions(world, "Other")) == (6, [])


@given(
    st.lists(st.sampled_from(["add", "delete", "delete call", "rerun", "late", "rename"]), max_size=12), st.integers()
)
def test_index_is_right_after_any_history(history, seed):
    rng = Random(seed)
    world = World(organization_id="o")
    for name in ("a", "b"):
        add_run_test(world, new_run_test(rng, name, END, Profile()))
    for step, what in enumerate(history):
        now = END + timedelta(hours=step)
        executions = list(executions_of(world))
        run_test = rng.choice(world.run_tests)
        if what == "add" or not executions:
            add_execution(world, run_test, rng, now, rng.randint(0, 3), status=rng.choice(EXECUTION_STATUSES))
            continue
        execution = rng.choice(executions)
        if what == "delete":
            delete_execution(execution)
        elif what == "delete call" and execution.calls:
            delete_call(rng.choice(execution.calls))
        elif what == "rerun":
            rerun_execution(execution, now)
        elif what == "late":
            add_late_data(execution, rng, now)
        else:
            rename_run_test(run_test, rng.choice("abc"))
    listed = [each for name in {each.name for each in world.run_tests} for each in listable_executions(world, name)]
    everything = [each for run_test in world.run_tests for each in run_test.executions]
    for execution in everything:
        assert (world.execution(execution.execution_id) is execution) == (execution in listed)
        calls = listable_calls(execution) if execution in listed else []
        for call in execution.calls:
            assert world.call(call.call_execution_id) == ((execution, call) if call in calls else None)
