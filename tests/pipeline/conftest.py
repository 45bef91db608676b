"""What happens from night to night."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from etl.sandbox import Sandbox
from tests.pipeline.nights import Nights
from tests.worlds import settled_world


@pytest.fixture
async def nights(tmp_path: Path) -> AsyncIterator[Nights]:
    """A first run test of ten executions with three calls each, and another of four."""
    world = settled_world(run_tests=2, executions=10, calls=3, calls_spread=0)
    del world.run_tests[1].executions[:-4]
    async with Sandbox(world) as server:
        yield Nights(server, tmp_path)
