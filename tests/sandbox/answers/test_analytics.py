"""Analytics by name are those of one execution."""

from etl.sandbox.answers.analytics import latest_analytics
from tests.worlds import END, settled_world


def test_analytics_by_name_shows_the_execution_that_completed_last():
    world = settled_world(2, run_tests=1, executions=6, calls=3)
    oldest = world.run_tests[0].executions[0]
    oldest.completed_at = END
    assert latest_analytics(world, world.run_tests[0].name)["execution_id"] == oldest.execution_id
