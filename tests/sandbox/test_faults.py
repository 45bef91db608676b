"""Faults reach the client as they were described."""

from random import Random

from etl.sandbox import Fault, Sandbox, SandboxRequest, random_faults
from etl.sandbox.server import MIXTURE
from tests.sandbox.requests import METRICS


async def test_fault_is_told_how_often_the_target_was_asked_for(world, session):
    def fails_once(request, nth):
        return Fault(status=500) if nth == 1 and request.path == METRICS else None

    async with Sandbox(world, fault=fails_once) as sandbox:
        url = f"{sandbox.base_url}{METRICS}?run_test_name=Checkout%20flow&limit="
        statuses = []
        for limit in (1, 1, 2, 2, 1):
            async with session.get(f"{url}{limit}") as response:
                statuses.append(response.status)
    assert statuses == [500, 200, 500, 200, 200]
    assert [each.status for each in sandbox.requests] == statuses
    assert (sandbox.count(limit=1), sandbox.count("metrics"), sandbox.count("runs")) == (3, 5, 0)


async def test_random_faults_strike_about_their_share():
    spoil, request = random_faults(Random(3), 0.2), SandboxRequest("GET", METRICS, METRICS, {}, None, 0.0)
    struck = [fault for fault in (spoil(request, 1) for _ in range(2000)) if fault]
    assert 300 < len(struck) < 500
    assert set(map(id, struck)) == set(map(id, MIXTURE))
