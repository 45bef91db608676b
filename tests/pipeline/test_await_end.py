"""Waiting for the end of an execution: soon after it, with few requests, within its limit. Its time is made up."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples_of
from hypothesis import strategies as st

from etl.errors import ConfigurationError, SourceUnavailableError, TimeLimitError
from etl.extract import client
from etl.pipeline.await_end import await_end
from etl.sandbox import Fault, Sandbox, SandboxRequest
from etl.settings import Settings
from tests.machine.in_process import BASE_URL, JumpingLoop, transport_of
from tests.support import API_KEY, SECRET_KEY, examples
from tests.worlds import settled_world

LIMIT_SECONDS = 1800


def a_source(*, ends_at: float = 0, run_test: int = 0) -> tuple[Sandbox, str]:
    """Three run tests; the newest execution of one of them ends at that second."""
    sandbox = Sandbox(settled_world(run_tests=3, executions=3, calls=1))
    execution = max(sandbox.world.run_tests[run_test].executions, key=lambda each: each.created_at)

    def on_request(request: SandboxRequest) -> None:
        execution.status = "failed" if request.received_at >= ends_at else "running"

    sandbox.on_request = on_request
    return sandbox, execution.execution_id


def awaited(sandbox: Sandbox, execution_id: str, run_tests: Any = "all") -> tuple[str, float]:
    """The run test, and when it ended."""
    keys = {"api_key": API_KEY, "secret_key": SECRET_KEY}
    settings = Settings.model_validate({"run_tests": run_tests, "api": {"base_url": BASE_URL}} | keys)

    async def work() -> tuple[str, float]:
        name = await await_end(settings, execution_id, seconds=LIMIT_SECONDS)
        return name, asyncio.get_running_loop().time()

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=JumpingLoop) as runner:
        patch.setattr(client, "Transport", transport_of(sandbox))
        return runner.run(work())


@examples_of(max_examples=examples(40))
@given(st.integers(0, LIMIT_SECONDS - 61), st.integers(0, 2))
def test_end_is_noticed_within_a_minute_and_few_requests_look_for_it(ends_at: int, run_test: int) -> None:
    sandbox, execution_id = a_source(ends_at=ends_at, run_test=run_test)
    name, noticed_at = awaited(sandbox, execution_id)
    assert name == sandbox.world.run_tests[run_test].name
    assert ends_at <= noticed_at <= ends_at + 60
    assert len(sandbox.requests) == sandbox.count(execution_id=execution_id) <= 8 + ends_at / 60


def test_run_test_is_named_by_a_server_that_is_busy_for_a_while() -> None:
    sandbox, execution_id = a_source(run_test=1)
    sandbox.fault = lambda request, nth: Fault(status=503) if "analytics" in request.path and nth <= 3 else None
    assert awaited(sandbox, execution_id)[0] == sandbox.world.run_tests[1].name


def test_execution_that_cannot_be_waited_for_is_told_in_a_line() -> None:
    endless, execution_id = a_source(ends_at=LIMIT_SECONDS + 1, run_test=2)
    others = [*(each.name for each in endless.world.run_tests[:2]), "Nobody"]
    ended, down = a_source(run_test=2)[0], Sandbox(endless.world, fault=lambda _request, _nth: Fault(status=502))
    for source, wanted, names, error, message in (
        (endless, execution_id, "all", TimeLimitError, r"had not ended after 0:30:00\. Raise --timeout"),
        (endless, "latest", "all", ConfigurationError, "the API has no execution 'latest'. Check the id"),
        (endless, "00000000-0000-4000-8000-000000000000", "all", ConfigurationError, "the API has no execution"),
        (ended, execution_id, others, ConfigurationError, f"run test {ended.world.run_tests[2].name!r}. Add that"),
        (down, execution_id, "all", SourceUnavailableError, "cannot wait for the execution"),
    ):
        with pytest.raises(error, match=message):
            awaited(source, wanted, names)
