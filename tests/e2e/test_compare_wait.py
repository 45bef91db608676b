"""``metrics-etl compare --wait``: one command that waits for an execution, exports its run test, and judges it."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from etl.files.open import open_files
from etl.sandbox import Fault, Sandbox, SandboxRequest
from etl.sandbox.generate import add_execution, finish_execution
from etl.sandbox.world import SimulatedExecution
from tests.e2e.command import Ended, environment, metrics_etl, write_settings
from tests.support import API_KEY
from tests.worlds import settled_world

DAYS = ("--baseline", "2026-10-01..2026-10-31")
LIMIT = ("--max-regression", "latency_mean=10%")


def a_source(*, days: float = 1) -> tuple[Sandbox, SimulatedExecution]:
    """Two run tests; one got worse, and so many days after that an execution began that ends while it is looked at."""
    world = settled_world(run_tests=2, executions=0)
    rng = Random(1)
    run_test = world.run_tests[0]
    regression_at = run_test.profile.regression_at
    assert regression_at is not None
    for day in range(-18, -8):
        add_execution(world, run_test, rng, regression_at + timedelta(days=day), 40)
    began_at = regression_at + timedelta(days=days)
    execution = add_execution(world, run_test, rng, began_at, 40, status="running")

    def on_request(request: SandboxRequest) -> None:
        if execution.status == "running" and sandbox.count(**request.query) == 1:
            finish_execution(execution, rng, began_at + timedelta(hours=1))

    sandbox = Sandbox(world, on_request=on_request)
    return sandbox, execution


async def gate(
    folder: Path, server: Sandbox, execution: SimulatedExecution, *arguments: str, **variables: str
) -> Ended:
    write_settings(folder, ["Checkout flow", "Support triage"])
    variables = {"METRICS_ETL_API__MAX_TRIES": "1", "METRICS_ETL_EXPORT__METRICS": "calls", **variables}
    env = environment(server, COLUMNS="300", **variables)
    return await metrics_etl("compare", "--wait", execution.execution_id, *DAYS, *arguments, cwd=folder, env=env)


async def test_gate_waits_exports_and_judges_as_three_commands_would(tmp_path: Path) -> None:
    server, execution = a_source()
    async with server:
        judged = await gate(tmp_path, server, execution, *LIMIT, "--json")
    document = judged.document
    assert judged.exit_code == document["exit_code"] == 10
    everything = document["candidate"]["executions"] + document["baseline"]["executions"]
    assert everything == [each.execution_id for each in reversed(execution.run_test.executions)]
    assert "regression beyond the limit: latency_mean; worse, but without a limit: latency_" in document["conclusion"]
    assert f"waiting for execution {execution.execution_id} to end\n" in judged.stderr
    assert "outcome    complete (exit 0)" in judged.stderr
    assert len([*(tmp_path / "data" / "executions").iterdir()]) == 1, "no other run test is exported"

    bare = environment(FI_API_KEY=None, FI_SECRET_KEY=None)
    sides = (*DAYS, "--candidate", execution.execution_id)
    again = await metrics_etl("compare", *sides, *LIMIT, "--json", cwd=tmp_path, env=bare)
    assert again == Ended(10, judged.stdout, "")


async def test_what_the_export_could_not_get_is_no_pass_and_no_excuse(tmp_path: Path) -> None:
    for days, exit_code in ((-0.5, 3), (1, 10)):
        server, execution = a_source(days=days)
        broken = execution.calls[0].call_execution_id
        server.fault = lambda request, _, broken=broken: Fault(status=500) if broken in request.target else None
        (tmp_path / str(days)).mkdir()
        async with server:
            judged = await gate(tmp_path / str(days), server, execution, *LIMIT, "--json")
        assert (judged.exit_code, judged.document["exit_code"]) == (exit_code, exit_code)
        assert [each["kind"] for each in judged.document["findings"]] == ["dead_letter"]


async def test_gate_waits_for_another_export_and_no_longer_than_it_may(tmp_path: Path) -> None:
    server, execution = a_source()
    files = open_files(str(tmp_path / "data"))
    files.prepare()
    async with server:
        with files.lock(datetime.now(UTC)):
            held = await gate(tmp_path, server, execution, "--timeout", "2s")
            waiting = asyncio.ensure_future(gate(tmp_path, server, execution, "--format", "markdown"))
            await asyncio.sleep(1)
        judged = await waiting
    assert (held.exit_code, held.stdout) == (75, "")
    assert held.stderr.splitlines()[-1].startswith("error: another export holds ")
    assert judged.stdout.startswith("### `Checkout flow`: compared without limits; worse, but without a limit: ")


async def test_gate_that_cannot_judge_says_why_in_a_line(tmp_path: Path) -> None:
    server, execution = a_source()
    server.on_request = None
    async with server:
        for arguments, key, exit_code, message in (
            (("--timeout", "1s"), API_KEY, 3, "had not ended after 0:00:01. Raise --timeout"),
            ((), "another", 4, "the API refused the key"),
            (("--candidate", "last"), API_KEY, 2, "give either --candidate or --wait"),
            (("--timeout", "soon"), API_KEY, 2, "'soon' is not a duration such as 90s, 30m or 2h"),
        ):
            refused = await gate(tmp_path, server, execution, *arguments, FI_API_KEY=key)
            assert (refused.exit_code, refused.stdout) == (exit_code, "")
            assert message in refused.stderr.splitlines()[-1]
