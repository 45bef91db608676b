"""What ends a command early: one line, the documented exit code, and nothing lost."""

import asyncio
import signal
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from etl.sandbox import Fault, Sandbox
from tests.e2e.command import Ended, ended, environment, metrics_etl, names, start, without_uvloop, write_settings
from tests.e2e.faults import hold_back
from tests.worlds import a_sandbox

server = a_sandbox(run_tests=2, executions=3, calls=5)


def assert_refused(result: Ended, exit_code: int, *words: str) -> None:
    """One line on stderr that holds the words, nothing on stdout."""
    assert result.exit_code == exit_code, result
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


async def test_bad_settings_exit_2_with_file_key_and_mend(tmp_path: Path) -> None:
    write_settings(tmp_path, ["Any"], "[api]", 'secret_key = "canary"')

    result = await metrics_etl("run", cwd=tmp_path, env=environment())

    assert_refused(result, 2, "config/metrics-etl.toml", "[api] secret_key", "FI_SECRET_KEY_FILE")
    assert "canary" not in result.stderr
    assert not (tmp_path / "data" / "runs").exists()


@pytest.mark.parametrize(
    ("number", "exit_code", "is_fast"),
    [
        pytest.param(signal.SIGTERM, 143, True, id="SIGTERM-uvloop"),
        pytest.param(signal.SIGINT, 130, False, id="SIGINT-asyncio"),
        pytest.param(signal.SIGTERM, 143, False, id="SIGTERM-asyncio", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, True, id="SIGINT-uvloop", marks=pytest.mark.slow),
    ],
)
async def test_signal_ends_the_run_and_keeps_what_had_arrived(
    server: Sandbox, tmp_path: Path, number: signal.Signals, exit_code: int, *, is_fast: bool
) -> None:
    """Every call of the last execution hangs; the others are whole when the signal comes."""
    last = server.world.run_tests[1].executions[0]
    waiting = hold_back(server, last)
    write_settings(tmp_path, names(server), "[export]", 'metrics = "calls"')
    env = environment(server, **({} if is_fast else without_uvloop(tmp_path / "no-uvloop")))
    process = await start("run", "--json", cwd=tmp_path, env=env)
    await waiting.wait()
    # The last answer is on its way when the signal goes out: whichever comes first, whole executions are kept.
    process.send_signal(number)
    result = await ended(process)

    assert result.exit_code == exit_code
    assert result.document["outcome"] == "interrupted"
    executions = ds.dataset(tmp_path / "data" / "executions").to_table().to_pylist()
    calls = ds.dataset(tmp_path / "data" / "calls").to_table().to_pylist()
    assert len(executions) >= 4
    assert len(calls) == 5 * len(executions)
    told = {run_test["name"]: run_test for run_test in result.document["run_tests"]}
    assert sum(run_test["missed"] for run_test in told.values()) == 6 - len(executions)
    assert not told[server.world.run_tests[1].name]["is_complete"]

    server.fault = None
    assert (await metrics_etl("run", "--json", cwd=tmp_path, env=environment(server))).exit_code == 0
    assert ds.dataset(tmp_path / "data" / "calls").count_rows() == 30


async def test_usage_errors_exit_2(tmp_path: Path) -> None:
    for arguments in (["nonsense"], ["run", "--nonsense"], ["schema", "nonsense"], ["sandbox", "--port", "70000"]):
        result = await metrics_etl(*arguments, cwd=tmp_path, env=environment())
        assert result.exit_code == 2, arguments


async def test_taken_port_is_said_in_one_line(server: Sandbox, tmp_path: Path) -> None:
    port = server.base_url.rpartition(":")[2]
    assert_refused(await metrics_etl("sandbox", "--port", port, cwd=tmp_path, env=environment()), 2, f"--port {port}")


async def test_second_signal_ends_the_process_at_once(server: Sandbox, tmp_path: Path) -> None:
    """As a crash would: the lock goes with the process, and the next run exports everything."""
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    server.fault = lambda _request, _nth: Fault(is_hanging=True)
    write_settings(tmp_path, names(server))
    process = await start("run", "--quiet", cwd=tmp_path, env=environment(server))
    await asked.wait()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)

    assert (await ended(process)).exit_code in (130, 143)
    server.fault = None
    assert (await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))).exit_code == 0


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("run", "adbc_driver_postgresql", "postgresql"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("report", "altair", "report"), ("load", "adbc_driver_postgresql", "postgresql"))
        ),
    ],
)
async def test_missing_package_is_told_with_its_extra_before_anything_is_asked(
    server: Sandbox, tmp_path: Path, command: str, module: str, extra: str
) -> None:
    warehouse = ["[warehouse]", 'url = "postgresql://127.0.0.1/metrics"'] if extra == "postgresql" else []
    write_settings(tmp_path, names(server), *warehouse)
    (tmp_path / f"{module}.py").write_text(f'raise ModuleNotFoundError("no", name="{module}")')

    result = await metrics_etl(*command.split(), cwd=tmp_path, env=environment(server, PYTHONPATH=str(tmp_path)))

    assert_refused(result, 2, f'needs the extra "{extra}", because {module} is not installed. ')
    assert server.requests == []
