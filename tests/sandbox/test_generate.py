"""A made-up world is seeded and believable, and time passes in it."""

from datetime import UTC, datetime, timedelta
from random import Random

from etl.sandbox.generate import latest_friday
from etl.sandbox.sdk import execution_metrics
from etl.sandbox.world import listable_calls
from tests.worlds import CALL_STATUSES, END, EXECUTION_STATUSES, add_late_data, executions_of, small_world, world_of


def test_every_status_occurs():
    world = world_of()
    assert {each.status for each in executions_of(world)} == set(EXECUTION_STATUSES)
    assert {call.status for each in executions_of(world) for call in each.calls} == set(CALL_STATUSES)


def test_times_are_in_order_and_nothing_is_later_than_the_end(month):
    for execution in executions_of(month):
        assert END - timedelta(days=57) < execution.created_at < execution.started_at
        assert (execution.completed_at or END) <= END
        for call in execution.calls:
            assert execution.started_at <= call.updated_at <= (execution.completed_at or END)
            if call.started_at and call.completed_at:
                assert execution.started_at <= call.started_at <= call.completed_at <= call.updated_at


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


def test_each_hour_of_a_week_looks_back_from_the_same_moment() -> None:
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    before, after = datetime(2026, 11, 20, 15, tzinfo=UTC), datetime(2026, 11, 27, 15, tzinfo=UTC)
    hours = [monday + timedelta(hours=number) for number in range(7 * 24)]

    assert {hour: latest_friday(hour) for hour in hours} == {hour: after if hour >= after else before for hour in hours}
