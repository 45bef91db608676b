"""What monitoring reads after a run, and what it makes of a night: the textfile, and how fresh the dataset is."""

import asyncio
import json
import re
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.pipeline import job
from etl.pipeline.metrics_file import write_metrics_file
from etl.pipeline.summary import Summary
from etl.sandbox import Fault, Sandbox
from etl.settings import Settings
from tests.metric_samples import samples
from tests.support import settings_for
from tests.worlds import a_sandbox

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring.md"
EPOCH, DAY, HOUR = datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=1), timedelta(hours=1)
server = a_sandbox(run_tests=2, executions=2, calls=3)


def configured(server: Sandbox, folder: Path, *, run_tests: Any = None, **sections: Any) -> Settings:
    """Two run tests with the keys first and second, unless others are given."""
    names = [each.name for each in server.world.run_tests]
    keyed = [{"name": name, "key": key} for name, key in zip(names, ("first", "second"), strict=True)]
    return settings_for(server, folder / "data", run_tests=run_tests or keyed, **sections)


async def export(settings: Settings, folder: Path, *, ago: timedelta = timedelta(0)) -> Summary:
    summary = await job.export(settings, clock=lambda: datetime.now(UTC) - ago)
    write_metrics_file(summary, folder / "metrics.prom")
    return summary


def last_run(folder: Path) -> Any:
    return json.loads((folder / "data" / "_state" / "last_run.json").read_text())


async def test_what_is_missing_is_told_by_run_test_and_the_time_of_the_last_complete_run_stays(
    server: Sandbox, tmp_path: Path
) -> None:
    settings = configured(server, tmp_path, api={"base_url": server.base_url, "max_tries": 1})
    await export(settings, tmp_path, ago=DAY)
    before = last_run(tmp_path)["last_complete_at"]
    execution = server.world.run_tests[0].executions[0]
    execution.completed_calls += 1
    broken = execution.calls[0]
    broken.duration_seconds = 77.0
    server.fault = lambda request, _nth: (
        Fault(status=500) if broken.call_execution_id in request.query.get("call_execution_id", "") else None
    )

    assert (await export(settings, tmp_path)).exit_code == 3

    told, document = samples(tmp_path), last_run(tmp_path)
    assert (told["dead_letters", "first"], told["complete", "first"]) == (1, 0)
    assert (told["dead_letters", "second"], told["complete", "second"]) == (0, 1)
    assert told["run_problems",] == 1
    assert document["incomplete"] == ["first"]
    assert document["last_complete_at"] == before | {"second": document["finished_at"]}


async def test_summary_that_cannot_be_saved_leaves_every_series(server: Sandbox, tmp_path: Path) -> None:
    settings = configured(server, tmp_path)
    await export(settings, tmp_path)
    before = last_run(tmp_path)["complete_at"]
    (month,) = (tmp_path / "data" / "runs").iterdir()
    shutil.rmtree(month)
    month.write_text("in the way")

    assert (await export(settings, tmp_path)).exit_code == 6
    told = samples(tmp_path)
    assert (told["complete", "first"], told["complete", "second"]) == (0, 0)
    assert told["dataset_complete_timestamp_seconds",] == pytest.approx(datetime.fromisoformat(before).timestamp())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
@pytest.mark.parametrize(
    "night",
    [
        *("complete", "failed", "never began"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("killed", "narrowed", "mistyped", "not loaded")),
    ],
)
async def test_documented_alert_fires_before_seven_unless_the_night_was_complete(
    server: Sandbox, tmp_path: Path, night: str
) -> None:
    """The textfile of real runs, as Prometheus scrapes it each hour. The clock of ``promtool`` begins at 0."""
    first_night, second_night = timedelta(days=10, hours=2), timedelta(days=11, hours=2)
    database = tmp_path / "metrics.duckdb"
    warehouse = {"warehouse": {"url": f"duckdb://{database}"}} if night == "not loaded" else {}
    scraped: dict[str, dict[int, float]] = {}
    first = {"name": server.world.run_tests[0].name, "key": "first"}
    run_tests = [first, "Chekout flow"] if night == "mistyped" else None

    async def export_at(at: timedelta, only: Sequence[str] = ()) -> None:
        settings = configured(server, tmp_path, run_tests=run_tests, **warehouse).only(only)
        write_metrics_file(await job.export(settings, clock=lambda: EPOCH + at), tmp_path / "metrics.prom")

    def scrape(since: timedelta) -> None:
        hours = range(int(since / HOUR), int(second_night / HOUR) + 6)
        for line in (tmp_path / "metrics.prom").read_text().splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                scraped.setdefault(series, {}).update(dict.fromkeys(hours, float(value)))

    if night != "never began":
        await export_at(first_night)
        scrape(first_night)
    if night == "not loaded":
        database.write_bytes(b"something else")
    if night == "failed":
        server.fault = lambda _request, _nth: Fault(status=401)
    if night not in ("killed", "never began"):
        await export_at(second_night, ["first"] if night == "narrowed" else [])
        scrape(second_night)

    (fragment,) = re.findall(r"```yaml\n(- alert: .*?)```", MONITORING.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "rules.yml").write_text("groups:\n- name: docs\n  rules:\n" + textwrap.indent(fragment, "  "))
    alert, expression = re.findall(r"(?:alert|expr): (.*(?:\n    .*)*)", fragment)
    values = [
        {"series": series, "values": " ".join(str(found.get(hour, "_")) for hour in range(11 * 24 + 8))}
        for series, found in scraped.items()
    ]
    seven = f"{11 * 24 + 7}h"
    total = "sum without (purpose) (metrics_etl_run_requests)"
    sent = {} if night == "never began" else {f'{{dataset="{tmp_path / "data"}"}}': last_run(tmp_path)["requests"]}

    def expects(expression: str, samples: dict[str, float]) -> dict[str, Any]:
        found = [{"labels": labels, "value": value} for labels, value in samples.items()]
        return {"expr": expression, "eval_time": seven, "exp_samples": found}

    firing = f'count(ALERTS{{alertname="{alert}"}}) or vector(0)'
    checks = [expects(firing, {"{}": 0 if night == "complete" else 1}), expects(total, sent)]
    tests = [{"interval": "1h", "input_series": values, "promql_expr_test": checks}]
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1h", "tests": tests}
    (tmp_path / "test.yml").write_text(json.dumps(document))
    words = ["promtool", "test", "rules", "test.yml"]
    result = await asyncio.to_thread(subprocess.run, words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{expression}\n{result.stdout}{result.stderr}"
