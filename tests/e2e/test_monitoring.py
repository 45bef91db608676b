"""``run --metrics-file`` and ``last_run.json``, by the command.

What they tell is tested in ``tests/pipeline/test_metrics_file.py``.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from etl.extract.endpoints import Purpose
from etl.sandbox import Sandbox
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.metric_samples import samples
from tests.worlds import a_sandbox

METRICS = ("run", "--metrics-file", "metrics.prom")
server = a_sandbox(run_tests=2, executions=2, calls=3)


@pytest.fixture
def folder(tmp_path: Path, server: Sandbox) -> Path:
    first, second = server.world.run_tests
    write_settings(tmp_path, [{"name": first.name, "key": "first"}, {"name": second.name, "key": "second"}])
    return tmp_path


def last_run(folder: Path) -> Any:
    return json.loads((folder / "data" / "_state" / "last_run.json").read_text())


async def test_complete_run_is_told(server: Sandbox, folder: Path) -> None:
    limited = environment(server, METRICS_ETL_API__REQUESTS_PER_MINUTE="5000")
    assert (await metrics_etl(*METRICS, "--quiet", cwd=folder, env=limited)).exit_code == 0

    told, document = samples(folder), last_run(folder)
    assert told["run_exit_code",] == 0
    assert told["run_rows", "calls"] == 12
    assert told["executions", "new", "first"] == 2
    assert told["complete", "first"] == told["complete", "second"] == 1
    assert told["dead_letters", "first"] == 0
    assert told["rate_limit_requests_per_minute",] == document["requests_per_minute"] == 5000
    sent = {labels[0]: value for (name, *labels), value in told.items() if name == "run_requests"}
    assert sent == document["requests_by_purpose"] == dict.fromkeys(Purpose, 0) | {"list": 2 + 3, "first_fetch": 12}
    finished_at = datetime.fromisoformat(document["finished_at"]).timestamp()
    assert told["run_finished_timestamp_seconds",] == pytest.approx(finished_at, abs=0.01)
    assert told["last_complete_timestamp_seconds", "first"] == pytest.approx(finished_at, abs=0.01)
    assert document["last_complete_at"] == dict.fromkeys(["first", "second"], document["finished_at"])


@pytest.mark.parametrize(
    ("path", "words"),
    [("nowhere/metrics.prom", "the folder does not exist: create it"), ("metrics.txt", "only files named *.prom")],
)
async def test_place_that_cannot_be_written_is_refused_before_the_run(
    server: Sandbox, folder: Path, path: str, words: str
) -> None:
    result = await metrics_etl("run", "--metrics-file", path, cwd=folder, env=environment(server))
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (folder / "data" / "runs").exists()


async def test_refused_key_is_told_and_file_that_cannot_be_replaced_is_said_after_the_run(
    server: Sandbox, folder: Path
) -> None:
    refused = await metrics_etl(*METRICS, cwd=folder, env=environment(server, FI_API_KEY="wrong-key"))
    assert (refused.exit_code, samples(folder)["run_exit_code",], samples(folder)["complete", "first"]) == (4, 4, 0)
    (folder / "metrics.prom").unlink()
    (folder / "metrics.prom").mkdir()
    result = await metrics_etl(*METRICS, cwd=folder, env=environment(server))
    assert result.exit_code == 6
    assert "error: --metrics-file metrics.prom: cannot be written: Is a directory" in result.stderr
    assert "outcome    complete" in result.stdout
    assert last_run(folder)["outcome"] == "complete"


async def test_in_a_json_log_that_too_is_an_event(server: Sandbox, folder: Path) -> None:
    (folder / "metrics.prom").mkdir()
    result = await metrics_etl(*METRICS, cwd=folder, env=environment(server, METRICS_ETL_LOG__FORMAT="json"))
    last = [json.loads(line) for line in result.stderr.splitlines()][-1]
    assert result.exit_code == last["exit_code"] == 6
    assert (last["event"], last["level"]) == ("metrics_file_failed", "error")
    assert last["error"] == "--metrics-file metrics.prom: cannot be written: Is a directory"
