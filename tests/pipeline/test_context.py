"""How long a run will still take, in made-up time, and an engine whose package is missing."""

import sys
from pathlib import Path
from typing import Any

import pytest

from etl.errors import ConfigurationError
from etl.model.records import RUNS
from etl.pipeline import job
from etl.pipeline.context import dask_module
from etl.sandbox import Fault, Sandbox
from tests.progress import progress, spend
from tests.support import settings_for
from tests.worlds import settled_world


def test_without_dask_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "etl.pipeline.engine.dask", raising=False)
    said = r'^\[engine\] kind = "dask" needs the extra "dask", because distributed is not installed\. '
    with pytest.raises(ConfigurationError, match=said):
        dask_module()


def test_limit_tells_the_time_left_though_the_first_window_is_spent_in_a_second() -> None:
    """The pace of a burst would promise that 900 requests take 9 seconds."""
    limited = progress(done=100, planned=1000, limit=100)
    spend(limited.quota, 100, 1.0)
    assert limited.seconds_left(1.0) == 8 * 60


def test_pace_counts_where_the_server_is_slower_than_the_limit() -> None:
    assert progress(done=10, planned=110, limit=1000).seconds_left(60.0) == 600.0


async def test_each_execution_that_is_still_to_come_counts_a_request_or_more_whatever_the_others_took(
    tmp_path: Path,
) -> None:
    """Where their evals cannot be listed, each call takes a request that nobody could plan."""
    world = settled_world(run_tests=1, executions=20, calls=4)
    for execution in world.run_tests[0].executions[:12]:
        execution.status = "running"
    events: list[dict[str, Any]] = []
    options: Any = {
        "api": {"concurrency": 1, "max_tries": 1},
        "export": {"commit_interval_seconds": 1e-6, "metrics": "calls"},
    }
    async with Sandbox(world) as server:
        server.fault = lambda request, _: (
            Fault(status=500) if request.path == RUNS and "execution_id" in request.query else None
        )
        settings = settings_for(server, tmp_path / "data", **options)
        await job.export(settings, notify=lambda event, **fields: events.append({"event": event} | fields))
        [planned] = (each for each in events if each["event"] == "planned")
        assert server.count() > planned["requests"] + 30
    assert planned["executions"] == 8
    saved, left = -12, list[tuple[int, int]]()
    for committed in (each for each in events if each["event"] == "committed"):
        saved += committed["executions"]
        left.append((8 - max(0, saved), committed["requests_left"]))
    assert saved == 8
    assert all(executions <= requests for executions, requests in left), left
    assert left[-1] == (0, 0)
