"""The engine of this process makes rows of what it fetches as soon as that arrives."""

import pytest

from etl.model import schema
from etl.sandbox import Sandbox
from etl.transform.flatten import FlatBundle
from tests.pipeline.engine.crawls import crawl_of
from tests.worlds import a_sandbox

server = a_sandbox(run_tests=1, executions=2, calls=3, calls_spread=0)


@pytest.mark.parametrize("include_raw", [False, True])
async def test_bundles_are_rows_which_hold_their_payloads_only_on_request(
    server: Sandbox, *, include_raw: bool
) -> None:
    bundles: list[FlatBundle] = []
    async with crawl_of(server, bundles, include_raw=include_raw) as crawl:
        await crawl.run()
    raw = schema.CALLS.names.index("raw")
    assert [[row[raw] is not None for row in each.calls.values] for each in bundles] == [[include_raw] * 3] * 2
