"""Lists that do not fit ``page_limit`` are read in one larger page, which no order and no tie can tear apart."""

from pathlib import Path

from etl.model.records import METRICS, RUNS
from etl.pipeline import job
from etl.sandbox import Sandbox
from tests.e2e.truth import assert_equals_world
from tests.support import settings_for
from tests.worlds import settled_world


async def test_long_list_of_executions_costs_two_requests_a_night(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=40, calls=1)) as server:
        settings = settings_for(server, tmp_path / "data", api={"page_limit": 8})
        for list_requests, night in ((2, "all is new"), (2, "nothing is new")):
            before = server.count(METRICS, run_test_name=server.world.run_tests[0].name)
            summary = await job.export(settings)
            assert (summary.exit_code, summary.problems) == (0, [])
            assert summary.requests == summary.necessary_requests
            assert server.count(METRICS, run_test_name=server.world.run_tests[0].name) - before == list_requests, night
        assert server.count(RUNS) == 40
        assert_equals_world(tmp_path, server.world)
