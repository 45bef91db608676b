"""What monitoring reads after a run: last_run.json, and the Prometheus textfile."""

import asyncio
import json
import re
import shutil
import subprocess
import textwrap
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from etl.extract.purpose import Purpose
from etl.model.keys import default_key
from etl.pipeline import job
from etl.pipeline.metrics_file import write_metrics_file
from etl.sandbox import Fault, Sandbox, listable_executions
from etl.settings import Settings
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.support import API_KEY, SECRET_KEY, settings_for
from tests.worlds import settled_world

METRICS = ("run", "--metrics-file", "metrics.prom")
MONITORING = Path(__file__).parents[2] / "docs" / "monitoring.md"
EPOCH, DAY, HOUR = datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=1), timedelta(hours=1)


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
            assert sample.labels.pop("dataset") == str(folder / "data")
            found[sample.name.removeprefix("metrics_etl_"), *sample.labels.values()] = sample.value
    return found


def configured(server: Sandbox, folder: Path, **sections: Any) -> Settings:
    """The settings of the folder, for an export in this process."""
    run_tests = tomllib.loads((folder / "config" / "metrics-etl.toml").read_text())["run_tests"]
    return settings_for(server, folder / "data", run_tests=run_tests, **sections)


def one_day_ago() -> str:
    return (datetime.now(UTC) - DAY).isoformat()


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
    sent = {labels[0]: value for (name, *labels), value in told.items() if name == "run_requests"}
    assert sent == document["requests_by_purpose"] == dict.fromkeys(Purpose, 0) | {"list": 4, "first_fetch": 16}
    assert told["run_saved_requests",] == document["saved_requests"] == 0
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
    document = last_run(folder)
    assert (document["last_complete_at"]["first"], document["incomplete"], document["complete_at"]) == (
        None,
        ["first"],
        None,
    )
    assert document["last_complete_at"]["second"] == document["finished_at"]


NARROW = [
    ("--run-test", "first"),
    ("--since", "2020-01-01"),
    ("--run-test", "first", "--since", "today"),
]


@pytest.mark.parametrize("narrowed", NARROW)
async def test_narrowed_run_makes_nothing_fresh_but_the_whole_run_tests_that_it_exported(
    server: Sandbox, folder: Path, narrowed: Sequence[str]
) -> None:
    before = await metrics_etl("run", *narrowed, cwd=folder, env=environment(server))
    never = await metrics_etl("status", "--json", "--max-age-hours", "26", cwd=folder, env=environment())
    await job.export(configured(server, folder), clock=lambda: datetime.now(UTC) - 2 * DAY)
    after = await metrics_etl(*METRICS, *narrowed, cwd=folder, env=environment(server))
    old = await metrics_etl("status", "--json", "--max-age-hours", "26", cwd=folder, env=environment())

    assert (before.exit_code, after.exit_code) == (0, 0)
    assert (never.exit_code, old.exit_code) == (3, 3)
    assert (never.document["complete_at"], old.document["complete_at"] < one_day_ago()) == (None, True)
    refreshed = {"first"} if "--since" not in narrowed else set()
    for document, is_told in (
        (never.document, lambda at: at is not None),
        (old.document, lambda at: at > one_day_ago()),
    ):
        told = {each["key"] for each in document["run_tests"] if is_told(each["complete_at"])}
        assert told == refreshed
    assert (
        samples(folder)["dataset_complete_timestamp_seconds",]
        < samples(folder)["run_finished_timestamp_seconds",] - 86400
    )
    assert {samples(folder)["complete", key] for key in ("first", "second")} == {1}


async def test_run_test_that_was_never_complete_stays_named_whatever_runs_later(server: Sandbox, folder: Path) -> None:
    """Its name is mistyped."""
    first = server.world.run_tests[0].name
    write_settings(folder, [{"name": first, "key": "first"}, "Chekout flow"])
    key = default_key("Chekout flow")
    for narrowed in ((), *NARROW):
        await metrics_etl(*METRICS, *narrowed, cwd=folder, env=environment(server))

        told = samples(folder)
        assert (told["complete", key], told["last_complete_timestamp_seconds", key]) == (0, 0)
        assert told["dataset_complete_timestamp_seconds",] == 0
        result = await metrics_etl("status", cwd=folder, env=environment())
        assert re.search(r"^Chekout flow +0 +0 +never +$", result.stdout, re.MULTILINE)
        assert (await metrics_etl("status", "--max-age-hours", "26", cwd=folder, env=environment())).exit_code == 3


async def test_run_test_that_was_configured_since_is_not_fresh(server: Sandbox, folder: Path) -> None:
    await metrics_etl("run", cwd=folder, env=environment(server))
    keys = [{"name": run_test.name, "key": f"new-{i}"} for i, run_test in enumerate(server.world.run_tests)]
    write_settings(folder, keys)
    result = await metrics_etl("status", "--json", "--max-age-hours", "26", cwd=folder, env=environment())
    assert (result.exit_code, result.document["complete_at"]) == (3, None)
    assert {each["key"]: each["is_configured"] for each in result.document["run_tests"]} == {
        "first": False,
        "second": False,
        "new-0": True,
        "new-1": True,
    }


@pytest.mark.parametrize("widened", ["an earlier day", "all run tests"])
async def test_what_is_configured_more_widely_than_it_was_exported_is_not_fresh(
    server: Sandbox, folder: Path, widened: str
) -> None:
    first, second = (run_test.name for run_test in server.world.run_tests)
    late = {"name": second, "key": "second", "since": f"{datetime.now(UTC):%Y-%m-%d}"}
    write_settings(folder, [first, late] if widened == "an earlier day" else [first])
    assert (await metrics_etl("run", cwd=folder, env=environment(server))).exit_code == 0
    ask = ("status", "--json", "--max-age-hours", "26")
    narrow = await metrics_etl(*ask, cwd=folder, env=environment())

    write_settings(folder, [first, {"name": second, "key": "second"}] if widened == "an earlier day" else "all")
    wide = await metrics_etl(*ask, cwd=folder, env=environment())
    server.fault = lambda _request, _nth: Fault(status=401)
    failed = await metrics_etl(*METRICS, cwd=folder, env=environment(server))
    server.fault = None
    still = await metrics_etl(*ask, cwd=folder, env=environment())
    told = samples(folder)
    assert (await metrics_etl("run", cwd=folder, env=environment(server))).exit_code == 0
    done = await metrics_etl(*ask, cwd=folder, env=environment())

    assert (failed.exit_code, told["dataset_complete_timestamp_seconds",]) == (4, 0)
    assert [each.exit_code for each in (narrow, wide, still, done)] == [0, 3, 3, 0]
    assert [each.document["is_good"] for each in (narrow, wide, still, done)] == [True, False, False, True]
    if widened == "an earlier day":
        assert told["last_complete_timestamp_seconds", "second"] == 0
        complete = {each["key"]: each["complete_at"] for each in wide.document["run_tests"]}
        assert [complete["second"], complete[default_key(first)] is None] == [None, False]


async def test_what_is_configured_less_widely_than_it_was_exported_stays_fresh(server: Sandbox, folder: Path) -> None:
    write_settings(folder, "all")
    assert (await metrics_etl("run", cwd=folder, env=environment(server))).exit_code == 0
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    write_settings(folder, [{"name": server.world.run_tests[0].name, "since": today}])
    result = await metrics_etl("status", "--json", "--max-age-hours", "26", cwd=folder, env=environment())
    assert (result.exit_code, result.document["is_good"]) == (0, True)


async def test_summary_that_cannot_be_saved_leaves_every_series(server: Sandbox, folder: Path) -> None:
    await metrics_etl("run", cwd=folder, env=environment(server))
    before = last_run(folder)["complete_at"]
    (month,) = (folder / "data" / "runs").iterdir()
    shutil.rmtree(month)
    month.write_text("in the way")

    assert (await metrics_etl(*METRICS, cwd=folder, env=environment(server))).exit_code == 6
    told = samples(folder)
    assert (told["complete", "first"], told["complete", "second"]) == (0, 0)
    assert told["dataset_complete_timestamp_seconds",] == pytest.approx(datetime.fromisoformat(before).timestamp())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
@pytest.mark.parametrize("night", ["complete", "failed", "killed", "narrowed", "mistyped", "never began", "not loaded"])
async def test_documented_alert_fires_before_seven_unless_the_night_was_complete(
    server: Sandbox, folder: Path, night: str
) -> None:
    """The textfile of real runs, as Prometheus scrapes it each hour; the clock is that of ``promtool``, which begins at 0."""
    first_night, second_night = timedelta(days=10, hours=2), timedelta(days=11, hours=2)
    database = folder / "metrics.duckdb"
    warehouse = {"warehouse": {"url": f"duckdb://{database}"}} if night == "not loaded" else {}
    scraped: dict[str, dict[int, float]] = {}

    async def export(at: timedelta, only: Sequence[str] = ()) -> None:
        settings = configured(server, folder, **warehouse).only(only)
        write_metrics_file(await job.export(settings, clock=lambda: EPOCH + at), folder / "metrics.prom")

    def scrape(since: timedelta) -> None:
        hours = range(int(since / HOUR), int(second_night / HOUR) + 6)
        for line in (folder / "metrics.prom").read_text().splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                scraped.setdefault(series, {}).update(dict.fromkeys(hours, float(value)))

    if night == "mistyped":
        write_settings(folder, [{"name": server.world.run_tests[0].name, "key": "first"}, "Chekout flow"])
    if night != "never began":
        await export(first_night)
        scrape(first_night)
    if night == "not loaded":
        database.write_bytes(b"something else")
    if night == "failed":
        server.fault = lambda _request, _nth: Fault(status=401)
    if night not in ("killed", "never began"):
        await export(second_night, ["first"] if night == "narrowed" else [])
        scrape(second_night)

    (fragment,) = re.findall(r"```yaml\n(- alert: .*?)```", MONITORING.read_text(encoding="utf-8"), re.DOTALL)
    (folder / "rules.yml").write_text("groups:\n- name: docs\n  rules:\n" + textwrap.indent(fragment, "  "))
    alert, expression = re.findall(r"(?:alert|expr): (.*(?:\n    .*)*)", fragment)
    values = [
        {"series": series, "values": " ".join(str(found.get(hour, "_")) for hour in range(11 * 24 + 8))}
        for series, found in scraped.items()
    ]
    seven = f"{11 * 24 + 7}h"
    (total,) = re.findall(r"`(sum .*\(metrics_etl_run_requests\))`", MONITORING.read_text(encoding="utf-8"))
    sent = {} if night == "never began" else {f'{{dataset="{folder / "data"}"}}': last_run(folder)["requests"]}
    expected = 0 if night == "complete" else 1
    document = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1h",
        "tests": [
            {
                "interval": "1h",
                "input_series": values,
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}"}}) or vector(0)',
                        "eval_time": seven,
                        "exp_samples": [{"labels": "{}", "value": expected}],
                    },
                    {
                        "expr": total,
                        "eval_time": seven,
                        "exp_samples": [{"labels": labels, "value": value} for labels, value in sent.items()],
                    },
                ],
            }
        ],
    }
    (folder / "test.yml").write_text(json.dumps(document))
    words = ["promtool", "test", "rules", "test.yml"]
    result = await asyncio.to_thread(subprocess.run, words, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{expression}\n{result.stdout}{result.stderr}"


async def test_rate_limit_is_told_when_it_is_known(server: Sandbox, folder: Path) -> None:
    limited = environment(server, METRICS_ETL_API__REQUESTS_PER_MINUTE="500")
    await metrics_etl(*METRICS, cwd=folder, env=limited)
    assert samples(folder)["rate_limit_requests_per_minute",] == 500
    assert last_run(folder)["requests_per_minute"] == 500


@pytest.mark.parametrize(
    "damage",
    [b"{", *(pytest.param(each, marks=pytest.mark.slow) for each in (b"", b'{"last_complete_at": 3}', b"\xff"))],
)
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
    assert not (folder / "data" / "runs").exists()


async def test_file_that_cannot_be_replaced_is_said_after_the_run(server: Sandbox, folder: Path) -> None:
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


async def test_missing_library_is_named(server: Sandbox, folder: Path) -> None:
    (folder / "without").mkdir()
    (folder / "without" / "prometheus_client.py").write_text('raise ImportError("not installed")')
    result = await metrics_etl(*METRICS, cwd=folder, env=environment(server, PYTHONPATH=str(folder / "without")))
    assert result.exit_code == 2
    assert "pip install 'simulation-metrics-etl[prometheus]'" in result.stderr
