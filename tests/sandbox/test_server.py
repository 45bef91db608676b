"""The rate limit and the end of the server. Its answers: ``test_dispatch.py``; its faults: ``test_faults.py``."""

import asyncio

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.sandbox import Fault, Sandbox
from etl.sandbox.server import FixedWindow
from tests.sandbox.requests import METRICS, get
from tests.sandbox.samples import SAMPLES


async def test_rate_limit_is_a_calendar_minute_in_which_refused_requests_count(world, session):
    now = 1_800_000_037.0
    async with Sandbox(world, rate_limit=5, clock=lambda: now) as sandbox:
        url = f"{sandbox.base_url}{METRICS}"
        seen = []
        for _ in range(7):
            async with session.get(url, params={"run_test_name": "Checkout flow"}) as response:
                seen.append((response.status, response.headers["X-RateLimit-Remaining"]))
        assert seen == [(200, str(left)) for left in (4, 3, 2, 1, 0)] + [(429, "0")] * 2
        assert (response.headers["X-RateLimit-Limit"], response.headers["X-RateLimit-Reset"]) == ("5", "1800000060")
        sample = SAMPLES["ratelimit_429"]
        async with session.get(url) as response:
            assert await response.json() == sample["body"]
            assert {name: response.headers[name] for name in sample["headers"]} == sample["headers"]
        now = 1_800_000_060.0
        assert (await get(session, sandbox, METRICS, run_test_name="Checkout flow"))[0] == 200
        now = 1_800_000_119.99
        statuses = [(await get(session, sandbox, METRICS, run_test_name="Checkout flow"))[0] for _ in range(5)]
        assert statuses == [200, 200, 200, 200, 429]


async def test_stopping_does_not_wait_for_a_hanging_request(world, session):
    received = asyncio.Event()

    async def ask():
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(session, sandbox, METRICS)

    async with (
        Sandbox(
            world, fault=lambda _request, _nth: Fault(is_hanging=True), on_request=lambda _request: received.set()
        ) as sandbox,
        asyncio.timeout(5),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(ask())
        await received.wait()
        await sandbox.__aexit__()
    assert [each.status for each in sandbox.requests] == [None]


@given(st.integers(1, 5), st.lists(st.floats(0, 300), max_size=30))
def test_window_never_lets_more_than_its_limit_through(limit, moments):
    window = FixedWindow(limit)
    allowed: dict[float, int] = {}
    for now in sorted(moments):
        allowed[now // 60] = allowed.get(now // 60, 0) + window.take(now)
        assert window.resets_at - 60 <= now < window.resets_at
    assert all(1 <= count <= limit for count in allowed.values())
