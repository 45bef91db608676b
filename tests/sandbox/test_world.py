"""The sandbox's world is right after any change."""

from datetime import timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from etl.sandbox.generate import add_execution, finish_execution, new_run_test
from etl.sandbox.world import (
    Profile,
    World,
    add_run_test,
    listable_calls,
    listable_executions,
    rerun_execution,
    touch_call,
)
from tests.worlds import END, EXECUTION_STATUSES, add_late_data, executions_of, small_world


def test_executions_are_listed_newest_first_and_calls_last_updated_first():
    world = small_world(names=["Shared", "Shared"])
    created = [each.created_at for each in listable_executions(world, "Shared")]
    assert created == sorted(created, reverse=True)
    execution = world.run_tests[0].executions[0]
    oldest = listable_calls(execution)[-1]
    touch_call(oldest, END)
    assert listable_calls(execution)[0] is oldest


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
            execution.is_deleted = True
        elif what == "delete call" and execution.calls:
            rng.choice(execution.calls).is_deleted = True
        elif what == "rerun":
            rerun_execution(execution, now)
        elif what == "late":
            add_late_data(execution, rng, now)
        else:
            run_test.name = rng.choice("abc")
    listed = [each for name in {each.name for each in world.run_tests} for each in listable_executions(world, name)]
    everything = [each for run_test in world.run_tests for each in run_test.executions]
    for execution in everything:
        assert (world.execution(execution.execution_id) is execution) == (execution in listed)
        calls = listable_calls(execution)
        for call in execution.calls:
            assert world.call(call.call_execution_id) == ((execution, call) if call in calls else None)
