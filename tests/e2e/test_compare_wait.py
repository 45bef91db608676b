"""``metrics-etl compare --wait``: one command that waits for an execution, exports its run test, and judges it."""

import asyncio
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from etl.sandbox import Execution, Fault, Sandbox, SandboxRequest, add_execution, finish_execution
from tests.e2e.command import Ended, environment, metrics_etl, write_settings
from tests.worlds import settled_world

LOOSE = ("--max-regression", "latency_p50=900%")
LIMIT = ("--max-regression", "latency_p50=10%")


def a_source(*, days: float = 1) -> tuple[Sandbox, Execution]:
    """Two run tests; one got worse, and so many days after that an execution began that ends while it is looked at."""
    world, rng = settled_world(run_tests=2, executions=0), Random(1)
    run_test = world.run_tests[0]
    regression_at = run_test.profile.regression_at
    assert regression_at is not None
    for day in range(-9, 0, 2):
        add_execution(world, run_test, rng, regression_at + timedelta(days=day), 40)
    began_at = regression_at + timedelta(days=days)
    execution = add_execution(world, run_test, rng, began_at, 40, status="running")

    def on_request(request: SandboxRequest) -> None:
        if execution.status == "running" and sandbox.count(**request.query) == 1:
            finish_execution(execution, rng, began_at + timedelta(hours=1))

    sandbox = Sandbox(world, on_request=on_request)
    return sandbox, execution


async def gate(folder: Path, server: Sandbox, execution_id: str, *arguments: str, **variables: str) -> Ended:
    env = environment(server, METRICS_ETL_API__MAX_TRIES="1", COLUMNS="300", **variables)
    days = ("--baseline", "2026-10-01..2026-10-31")
    return await metrics_etl("compare", "--wait", execution_id, *days, *arguments, cwd=folder, env=env)


@contextmanager
def locked(dataset: Path) -> Iterator[None]:
    (dataset / "_state").mkdir(parents=True, exist_ok=True)
    with (dataset / "_state" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def test_gate_waits_exports_and_judges_as_the_three_commands_would(tmp_path: Path) -> None:
    server, execution = a_source()
    async with server:
        write_settings(tmp_path, "all")
        judged = await gate(tmp_path, server, execution.execution_id, *LIMIT, "--json")
    document, id_ = judged.document, execution.execution_id
    assert judged.exit_code == document["exit_code"] == 10
    assert document["candidate"]["executions"] == [id_]
    others = [each.execution_id for each in execution.run_test.executions if each is not execution]
    assert document["baseline"]["executions"] == others[::-1]
    assert "regression beyond the limit: latency_p50; worse without a limit: latency_" in document["conclusion"]
    assert f"waiting for execution {id_}: running" in judged.stderr
    assert '"event": "run_finished"' in judged.stderr
    assert "outcome    complete (exit 0)" in judged.stderr
    assert len([*(tmp_path / "data" / "executions").iterdir()]) == 1, "no other run test is exported"

    sides = ("--baseline", "2026-10-01..2026-10-31", "--candidate", id_)
    bare = environment(FI_API_KEY=None, FI_SECRET_KEY=None)
    again = await metrics_etl("compare", *sides, *LIMIT, "--json", cwd=tmp_path, env=bare)
    assert again == Ended(10, judged.stdout, "")


async def test_what_the_export_could_not_get_is_no_pass_and_no_excuse(tmp_path: Path) -> None:
    for days, limit, exit_code in ((-0.5, LOOSE, 3), (-0.5, (), 3), (1, LIMIT, 10)):
        server, execution = a_source(days=days)
        broken = execution.calls[0].call_execution_id
        server.fault = lambda request, _, id_=broken: Fault(status=500) if id_ in request.target else None
        folder = tmp_path / f"{len(limit)}{days}"
        folder.mkdir()
        async with server:
            write_settings(folder, ["Checkout flow", "Support triage"])
            judged = await gate(folder, server, execution.execution_id, *limit, "--json")
        assert (judged.exit_code, judged.document["exit_code"]) == (exit_code, exit_code)
        assert [each["kind"] for each in judged.document["findings"]] == ["dead_letter"]
        assert judged.document["candidate"]["executions"] == [execution.execution_id]


async def test_gate_waits_for_another_export_and_no_longer_than_it_may(tmp_path: Path) -> None:
    server, execution = a_source()
    async with server:
        write_settings(tmp_path, ["Checkout flow"])
        with locked(tmp_path / "data"):
            held = await gate(tmp_path, server, execution.execution_id, "--timeout", "2s")
            waiting = asyncio.ensure_future(gate(tmp_path, server, execution.execution_id, "--format", "markdown"))
            await asyncio.sleep(1)
        judged = await waiting
    assert (held.exit_code, held.stdout) == (75, "")
    assert held.stderr.splitlines()[-1].startswith("error: another export holds ")
    assert (judged.exit_code, judged.stdout.startswith("### `Checkout flow`: compared, without limits; worse")) == (
        0,
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "keys", "exit_code", "message"),
    [
        (("--timeout", "1s"), {}, 3, "had not ended after 0:00:01 (--timeout)"),
        (("--run-test", "Support triage"), {}, 2, "no configured run test lists execution"),
        ((), {"FI_API_KEY": "another"}, 4, "the API refused the key"),
        (("--candidate", "last"), {}, 2, "give either --candidate or --wait"),
        (("--timeout", "soon"), {}, 2, "'soon' is not a length of time: use one such as 90s, 30m or 2h"),
    ],
)
async def test_gate_that_cannot_judge_says_why_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], keys: dict[str, str], exit_code: int, message: str
) -> None:
    server, execution = a_source()
    if exit_code == 3:
        server.on_request = None
    async with server:
        write_settings(tmp_path, ["Checkout flow", "Support triage"])
        refused = await gate(tmp_path, server, execution.execution_id, *arguments, **keys)
    assert (refused.exit_code, refused.stdout) == (exit_code, "")
    assert message in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "data").exists()
