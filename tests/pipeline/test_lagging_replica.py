"""A replica that lags: lists show something whose id is not known yet. One finding, which goes away by itself."""

import random
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from etl.model.findings import Kind
from etl.model.records import DETAIL, METRICS
from etl.sandbox import Fault, SandboxRequest
from etl.sandbox.dispatch import not_found
from etl.sandbox.generate import finish_execution
from etl.sandbox.world import SimulatedExecution, rerun_execution
from tests.e2e.truth import assert_equals_world
from tests.pipeline.nights import NIGHT, Nights, kinds

NOT_FOUND = Fault(status=404, body=msgspec.json.encode(not_found("Call execution")))


def lag(nights: Nights, execution: SimulatedExecution, *, has_list: bool) -> None:
    """Requests about the execution, but for its list of calls, reach a server that knows neither it nor its calls."""
    ids = {execution.execution_id, *(call.call_execution_id for call in execution.calls)}

    def answer(request: SandboxRequest, _nth: int) -> Fault | None:
        is_about_it = ids & {*request.query.values(), request.path.removeprefix(DETAIL).strip("/")}
        return NOT_FOUND if is_about_it and (request.path == METRICS or not has_list) else None

    nights.server.fault = answer


@pytest.mark.parametrize("has_list", [True, False])
@pytest.mark.parametrize("is_stored", [True, False])
async def test_replica_that_lags_is_one_finding_until_it_no_longer_does(
    nights: Nights, tmp_path: Path, *, has_list: bool, is_stored: bool
) -> None:
    execution = nights.world.run_tests[0].executions[1]
    execution.is_deleted = not is_stored
    await nights.export()
    execution.is_deleted = False
    rerun_execution(execution, NIGHT)
    finish_execution(execution, random.Random(1), NIGHT + timedelta(hours=1))
    lag(nights, execution, has_list=has_list)

    lagging = [await nights.export() for _ in range(2)]
    assert [each.exit_code for each in lagging] == [3, 3]
    assert [kinds(each) for each in lagging] == [[Kind.DEAD_LETTER if has_list else Kind.NOT_FETCHED]] * 2
    assert lagging[0].problems[0].endswith("a replica of the API probably lags behind")
    assert [nights.marked(table) for table in ("executions", "calls", "evals")] == [0, 0, 0]
    assert len(nights.rows("errors")) == has_list

    nights.server.fault = None
    healed = await nights.export()
    assert (healed.exit_code, healed.problems) == (0, [])
    assert_equals_world(tmp_path, nights.world)
