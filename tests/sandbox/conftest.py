"""A small world, and a session whose requests hold the keys."""

import aiohttp
import pytest

from etl.sandbox import World
from tests.sandbox.requests import KEYS
from tests.worlds import world_of


@pytest.fixture
def world() -> World:
    return world_of(run_tests=2, executions=12, calls=7)


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(headers=KEYS) as session:
        yield session


@pytest.fixture(scope="module")
def month():
    """A month with enough in it to see its rhythm."""
    return world_of(11, executions=200, calls=12, days=56)
