"""A run that the source holds back has saved what had arrived, before anybody kills it."""

import asyncio
import json
from pathlib import Path

from etl.sandbox import Sandbox
from etl.sandbox.world import executions_of
from tests.datasets import assert_sound
from tests.e2e.command import environment, metrics_etl, start, write_settings
from tests.e2e.truth import assert_equals_world, rows_of
from tests.pipeline.test_held import CALLS, arrived_whole, held_for


async def test_what_arrived_before_a_hold_is_saved_while_it_lasts_and_outlives_a_kill(tmp_path: Path) -> None:
    write_settings(tmp_path, ["Checkout flow"], "[export]", "commit_interval_seconds = 0.5", "[api]", "concurrency = 1")
    async with held_for(3000, after=2 + 3 * (1 + CALLS)) as server:
        # Slow arrivals may be committed one by one before the hold; what counts is that none of them waits for its end.
        process = await start("run", cwd=tmp_path, env=environment(server))
        assert process.stderr
        is_held, committed = False, 0
        async with asyncio.timeout(30):
            while not is_held or committed < len(arrived_whole(server)):
                event = json.loads(await process.stderr.readline())
                is_held |= event["event"] == "held"
                committed += event["executions"] if event["event"] == "committed" else 0
        process.kill()
        assert await process.wait() == -9
        saved = {row["execution_id"] for row in rows_of(tmp_path, "executions")}
        whole = arrived_whole(server)
    assert len(whole) >= 2
    assert saved == whole
    assert_sound(tmp_path / "data")

    async with Sandbox(server.world) as free:
        result = await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(free))
        assert result.exit_code == 0, result
        assert len(free.requests) < sum(1 + len(execution.calls) for execution in executions_of(free.world))
    assert_equals_world(tmp_path, free.world)
