"""Faults reach the client as they were described."""

import gzip
from random import Random

import aiohttp
import pytest

from etl.sandbox import Fault, Sandbox, SandboxRequest, random_faults
from etl.sandbox.server import MIXTURE
from tests.sandbox.requests import METRICS


async def faulty(session, world, fault, **timeout):
    """What one request for a call brings when this fault strikes."""
    call = world.run_tests[0].executions[0].calls[0]
    async with (
        Sandbox(world, fault=lambda _request, _nth: fault) as sandbox,
        session.get(
            f"{sandbox.base_url}{METRICS}",
            params={"call_execution_id": call.call_execution_id},
            timeout=aiohttp.ClientTimeout(**timeout),
        ) as response,
    ):
        return response.status, response.content_type, await response.read()


async def test_fault_replaces_status_body_and_headers(world, session):
    fault = Fault(status=502, body=b"<html>", headers={"content-type": "text/html"})
    assert await faulty(session, world, fault) == (502, "text/html", b"<html>")


async def test_fault_may_write_the_whole_answer_itself(world, session):
    def raw(status: int, body: bytes) -> bytes:
        return b"HTTP/1.1 %d Odd\r\nContent-Type: text/odd\r\nContent-Length: 4\r\n\r\n%s" % (status + 1, body[:4])

    assert await faulty(session, world, Fault(raw=raw, body=b"odd body")) == (201, "text/odd", b"odd ")


async def test_fault_may_send_a_compressed_bomb(world, session):
    bomb = Fault(body=gzip.compress(b"0" * 1_000_000), headers={"Content-Encoding": "gzip"})
    assert len((await faulty(session, world, bomb))[2]) == 1_000_000


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        *(
            (Fault(cut_after_bytes=size), (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError))
            for size in (0, 1, 40)
        ),
        (Fault(cut_after_bytes=40, is_closed=True), aiohttp.ClientPayloadError),
        (Fault(is_closed=True), aiohttp.ServerDisconnectedError),
        (Fault(is_reset=True), aiohttp.ClientConnectionError),
    ],
)
async def test_fault_may_cut_the_answer_short(fault, error, world, session):
    with pytest.raises(error):
        await faulty(session, world, fault)


async def test_fault_may_edit_the_right_body(world, session):
    right = await faulty(session, world, Fault())
    edited = await faulty(session, world, Fault(edit=lambda body: body[:-9]))
    assert edited == (200, "application/json", right[2][:-9])


async def test_fault_may_drip(world, session):
    body = b"dripping"
    assert (await faulty(session, world, Fault(body=body, drip_seconds=0.0001)))[2] == body
    with pytest.raises(TimeoutError):
        await faulty(session, world, Fault(body=body, drip_seconds=0.05), total=0.1)


@pytest.mark.parametrize("fault", [Fault(is_hanging=True), Fault(delay_seconds=600)])
async def test_fault_may_keep_the_client_waiting(fault, world, session):
    with pytest.raises(TimeoutError):
        await faulty(session, world, fault, total=0.05)


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
