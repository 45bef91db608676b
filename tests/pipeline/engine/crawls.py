"""A crawl as an engine makes it, without an export around it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from etl.extract.client import Client
from etl.extract.plan import Planned
from etl.model.lifecycle import StoredCalls
from etl.pipeline.engine.interface import EngineCrawl
from etl.pipeline.engine.this_process import this_process
from etl.sandbox import Sandbox
from etl.transform.flatten import FlatBundle
from tests.bundles import execution, plan_of
from tests.support import settings_for
from tests.worlds import executions_of


@asynccontextmanager
async def crawl_of(
    server: Sandbox, bundles: list[FlatBundle], *, include_raw: bool = False
) -> AsyncIterator[EngineCrawl]:
    """A crawl over every execution of the source, one request at a time; what it hands over is added to the bundles."""

    async def take(bundle: FlatBundle) -> None:
        bundles.append(bundle)

    async def stored(_item: Planned) -> StoredCalls:
        return StoredCalls()

    listed = [execution(each.execution_id, total_calls=len(each.calls)) for each in executions_of(server.world)]
    settings = settings_for(server, Path("data"), api={"base_url": server.base_url, "concurrency": 1})
    async with Client(settings) as client, this_process(client, settings.api, include_raw=include_raw) as crawler:
        yield crawler(plan_of(listed, {}), take, stored)
