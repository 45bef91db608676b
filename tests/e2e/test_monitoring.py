"""What monitoring reads after a run: last_run.json, and the Prometheus textfile."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from etl.sandbox import Fault, Sandbox, listable_executions
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.support import API_KEY, SECRET_KEY
from tests.worlds import settled_world

METRICS = ("run", "--metrics-file", "metrics.prom")


@pytest.fixture
async def server():
    world = settled_world(run_tests=2, executions=2, calls=3)
    async with Sandbox(world, api_key=API_KEY, secret_key=SECRET_KEY) as sandbox:
        yield sandbox


@pytest.fixture
def folder(tmp_path: Path, server: Sandbox) -> Path:
    first, second = server.world.run_tests
    write_settings(tmp_path, [{"name": first.name, "key": "first"}, {"name": second.name, "key": "second"}])
    return tmp_path


def samples(folder: Path) -> dict[tuple[str, ...], float]:
    """Values by name and labels but ``dataset``, which all of them have."""
    found = {}
    for family in text_string_to_metric_families((folder / "metrics.prom").read_text()):
        for sample in family.samples:
            assert sample.labels.pop("dataset") == "data"
            found[sample.name.removeprefix("metrics_etl_"), *sample.labels.values()] = sample.value
    return found


def last_run(folder: Path) -> Any:
    return json.loads((folder / "data" / "_state" / "last_run.json").read_text())


def poison(server: Sandbox) -> Any:
    """A call of the first run test whose metrics fail for ever."""
    execution = listable_executions(server.world, server.world.run_tests[0].name)[0]
    broken = execution.calls[0].call_execution_id

    def fault(request: Any, _number: int) -> Fault | None:
        return Fault(status=500) if request.query.get("call_execution_id") == broken else None

    return fault


async def test_complete_run_is_told(server: Sandbox, folder: Path) -> None:
    assert (await metrics_etl(*METRICS, "--quiet", cwd=folder, env=environment(server))).exit_code == 0

    told, document = samples(folder), last_run(folder)
    assert told["run_exit_code",] == 0
    assert told["run_rows", "calls"] == 12
    assert told["executions", "new", "first"] == 2
    assert told["complete", "first"] == told["complete", "second"] == 1
    assert told["dead_letters", "first"] == 0
    finished_at = datetime.fromisoformat(document["finished_at"]).timestamp()
    assert told["run_finished_timestamp_seconds",] == pytest.approx(finished_at, abs=0.01)
    assert told["last_complete_timestamp_seconds", "first"] == pytest.approx(finished_at, abs=0.01)
    assert document["last_complete_at"] == dict.fromkeys(["first", "second"], document["finished_at"])


async def test_time_of_the_last_complete_run_survives_those_that_are_not(server: Sandbox, folder: Path) -> None:
    await metrics_etl("run", cwd=folder, env=environment(server))
    before = last_run(folder)["last_complete_at"]

    refused = await metrics_etl(*METRICS, cwd=folder, env=environment(server, FI_API_KEY="wrong-key"))

    assert refused.exit_code == 4
    assert samples(folder)["run_exit_code",] == 4
    assert samples(folder)["complete", "first"] == 0
    assert last_run(folder)["last_complete_at"] == before


async def test_run_of_one_run_test_leaves_the_time_of_the_others(server: Sandbox, folder: Path) -> None:
    await metrics_etl("run", cwd=folder, env=environment(server))
    before = last_run(folder)["last_complete_at"]

    await metrics_etl("run", "--run-test", "first", cwd=folder, env=environment(server))

    after = last_run(folder)["last_complete_at"]
    assert after["second"] == before["second"]
    assert after["first"] > before["first"]


async def test_run_test_that_is_configured_no_more_is_told_no_more(server: Sandbox, folder: Path) -> None:
    await metrics_etl("run", cwd=folder, env=environment(server))
    write_settings(folder, [{"name": server.world.run_tests[0].name, "key": "first"}])

    await metrics_etl(*METRICS, cwd=folder, env=environment(server))

    assert list(last_run(folder)["last_complete_at"]) == ["first"]
    assert ("last_complete_timestamp_seconds", "second") not in samples(folder)


async def test_what_is_missing_is_told_by_run_test(server: Sandbox, folder: Path) -> None:
    server.fault = poison(server)
    result = await metrics_etl(*METRICS, cwd=folder, env=environment(server, METRICS_ETL_API__MAX_TRIES="1"))

    assert result.exit_code == 3
    told = samples(folder)
    assert (told["dead_letters", "first"], told["complete", "first"]) == (1, 0)
    assert (told["dead_letters", "second"], told["complete", "second"]) == (0, 1)
    assert told["run_problems",] == 1
    assert list(last_run(folder)["last_complete_at"]) == ["second"]


async def test_rate_limit_is_told_when_it_is_known(server: Sandbox, folder: Path) -> None:
    limited = environment(server, METRICS_ETL_API__REQUESTS_PER_MINUTE="500")
    await metrics_etl(*METRICS, cwd=folder, env=limited)
    assert samples(folder)["rate_limit_requests_per_minute",] == 500
    assert last_run(folder)["requests_per_minute"] == 500


@pytest.mark.parametrize("damage", [b"", b"{", b'{"last_complete_at": 3}', b"\xff"])
async def test_damaged_last_run_is_replaced(server: Sandbox, folder: Path, damage: bytes) -> None:
    await metrics_etl("run", cwd=folder, env=environment(server))
    (folder / "data" / "_state" / "last_run.json").write_bytes(damage)

    assert (await metrics_etl("run", cwd=folder, env=environment(server))).exit_code == 0
    assert set(last_run(folder)["last_complete_at"]) == {"first", "second"}


@pytest.mark.parametrize(
    ("path", "words"),
    [("nowhere/metrics.prom", "the folder does not exist: create it"), ("metrics.txt", "end with .prom")],
)
async def test_place_that_cannot_be_written_is_refused_before_the_run(
    server: Sandbox, folder: Path, path: str, words: str
) -> None:
    result = await metrics_etl("run", "--metrics-file", path, cwd=folder, env=environment(server))
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (folder / "data").exists()


async def test_file_that_cannot_be_replaced_is_said_after_the_run(server: Sandbox, folder: Path) -> None:
    (folder / "metrics.prom").mkdir()
    result = await metrics_etl(*METRICS, cwd=folder, env=environment(server))
    assert result.exit_code == 6
    assert "error: --metrics-file metrics.prom: cannot be written: Is a directory" in result.stderr
    assert "outcome    complete" in result.stdout
    assert last_run(folder)["outcome"] == "complete"


async def test_missing_library_is_named(server: Sandbox, folder: Path) -> None:
    (folder / "without").mkdir()
    (folder / "without" / "prometheus_client.py").write_text('raise ImportError("not installed")')
    result = await metrics_etl(*METRICS, cwd=folder, env=environment(server, PYTHONPATH=str(folder / "without")))
    assert result.exit_code == 2
    assert "pip install 'simulation-metrics-etl[prometheus]'" in result.stderr
