"""A source that cannot be reached, or goes away: the run ends soon, says why, and the next one completes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import etl
from etl.extract import client as client_module
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox, SandboxRequest, World
from tests.certificates import certificate
from tests.e2e import truth
from tests.e2e.faults import Endpoint, endpoint_of
from tests.support import settings_for
from tests.worlds import settled_world

MAX_TRIES = 2
OUTAGE = Fault(status=502, body=b"<html>Bad Gateway</html>", headers={"Content-Type": "text/html"})


async def export(source: Sandbox, folder: Path, **api: Any) -> Summary:
    api = {"max_tries": MAX_TRIES, **api}
    return await etl.export(settings_for(source, folder / "data", api=api, export={"metrics": "calls"}))


def two_executions() -> World:
    return settled_world(run_tests=1, executions=2, calls=2)


# Not there from the start


@pytest.mark.parametrize(("name", "is_named"), [("IP:127.0.0.1", False), ("DNS:api.example.com", True)])
async def test_certificate_that_is_not_trusted_or_of_another_host_is_refused_before_a_key_is_sent(
    tmp_path: Path, name: str, *, is_named: bool
) -> None:
    ca_file, tls = certificate(tmp_path, name)
    async with Sandbox(two_executions(), tls=tls) as source:
        summary = await export(source, tmp_path, **({"ca_file": ca_file} if is_named else {}))

    assert (summary.exit_code, source.requests, summary.requests) == (5, [], 1)
    assert "TLS failed at 127.0.0.1" in summary.problems[0]
    assert is_named or "[api] ca_file" in summary.problems[0]


# Gone in the middle


def is_for_a_call(request: SandboxRequest) -> bool:
    return endpoint_of(request) is Endpoint.CALL


async def export_with_outage(
    folder: Path, is_struck: Callable[[SandboxRequest], bool], *, after_calls: int, concurrency: int
) -> tuple[Summary, int]:
    """Export 40 executions of 10 calls. From some call on, struck requests fail. The summary, and how many failed."""
    calls, failed = 0, 0

    def fault(request: SandboxRequest, _nth: int) -> Fault | None:
        nonlocal calls, failed
        calls += is_for_a_call(request)
        if calls <= after_calls or not is_struck(request):
            return None
        failed += 1
        return OUTAGE

    async with Sandbox(settled_world(run_tests=1, executions=40, calls=10)) as source:
        source.fault = fault
        summary = await export(source, folder, concurrency=concurrency)
        source.fault = None
        healed = await export(source, folder)

    assert (healed.exit_code, healed.problems) == (0, [])
    truth.assert_equals_world(folder, source.world)
    return summary, failed


def most_requests(given_up: int, concurrency: int) -> int:
    """Those given up, the last probe, and what the workers, two for each slot, have under way before and during it."""
    return (given_up + 1 + 2 * 2 * concurrency) * MAX_TRIES


@pytest.mark.parametrize(
    ("is_struck", "after_calls", "concurrency", "limit"),
    [
        pytest.param(lambda _: True, 55, 8, 2 * client_module._GIVEN_UP_LIMIT, id="source"),
        pytest.param(is_for_a_call, 55, 1, 2 * client_module._GIVEN_UP_LIMIT, id="endpoint"),
        pytest.param(is_for_a_call, 0, 8, client_module._NEVER_ANSWERED_LIMIT, id="endpoint that never answered"),
    ],
)
async def test_source_or_endpoint_that_goes_away_ends_the_run_soon(
    is_struck: Callable[[SandboxRequest], bool], after_calls: int, concurrency: int, limit: int, tmp_path: Path
) -> None:
    summary, failed = await export_with_outage(tmp_path, is_struck, after_calls=after_calls, concurrency=concurrency)

    assert summary.exit_code == 3
    assert "fails every request to" in summary.problems[0]
    assert failed <= most_requests(limit, concurrency), "calls and lists of calls"
