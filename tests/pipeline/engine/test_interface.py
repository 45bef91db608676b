"""What every engine promises, tried on the one of this process. ``test_dask.py`` compares the other one with it."""

import math

import pytest

from etl.errors import KeyRefusedError
from etl.sandbox import Fault, Sandbox
from etl.transform.flatten import FlatBundle
from tests.pipeline.engine.crawls import crawl_of
from tests.worlds import a_sandbox

server = a_sandbox(run_tests=1, executions=2, calls=6, calls_spread=0)


async def test_crawl_that_fails_leaves_whole_executions_and_gives_what_else_has_arrived_once(server: Sandbox) -> None:
    answers = iter(range(100))
    server.fault = lambda request, _nth: (
        Fault(status=401) if "call_execution_id" in request.query and next(answers) >= 9 else None
    )
    whole: list[FlatBundle] = []
    async with crawl_of(server, whole) as crawl:
        with pytest.RaisesGroup(KeyRefusedError):
            await crawl.run()
        pieces = [*crawl.arrived(math.inf)]
        assert not [*crawl.arrived(math.inf)]
    assert [len(each.calls.values) for each in whole] == [6]
    assert [0 < len(each.calls.values) <= 3 for each in pieces] == [True]
