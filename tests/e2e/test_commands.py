"""The commands beside ``run`` and ``plan``, as they are typed."""

import asyncio
import json
import re
import signal
import tomllib
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.dataset as ds
import pytest

from etl.load.ddl import ddl
from etl.model.schema import TABLES
from etl.sandbox import Sandbox
from tests.e2e.command import Ended, ended, environment, metrics_etl, start, write_settings
from tests.reference import SCREENS
from tests.warehouses import Place, assert_equals_dataset
from tests.worlds import settled_world

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """Where the demo was run, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, asyncio.run(metrics_etl("demo", "--path", "data", cwd=folder, env=environment()))


def test_demo_shows_files_and_what_incremental_means(demo: tuple[Path, Ended]) -> None:
    folder, result = demo
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    shown = result.stdout
    assert re.search(r"^calls +1,500 ", shown, re.MULTILINE)
    assert ds.dataset(folder / "data" / "calls").count_rows() == 1525
    assert_equals_dataset(Place(f"duckdb://{folder}/data.duckdb"), folder / "data")
    assert (folder / "data.html").read_text().startswith("<!DOCTYPE html>")


def test_lines_that_open_the_dataset_read_the_same_calls(
    demo: tuple[Path, Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo[0])
    python, pandas, sql = (line.split(maxsplit=1)[1] for line in demo[1].stdout.splitlines()[-3:])
    exec(f"{python}; from_python = calls\n{pandas}", names := dict[str, pd.DataFrame]())
    frames = (names["from_python"], names["calls"], duckdb.execute(sql).df())
    ids = [sorted(frame["call_execution_id"]) for frame in frames]
    assert (len(ids[0]), ids[0] == ids[1] == ids[2]) == (1524, True)


@pytest.mark.parametrize("there", ["mine", "mine.duckdb", "mine.html"])
def test_demo_writes_nothing_where_something_is(tmp_path: Path, there: str) -> None:
    """Made-up rows do not come among real ones."""
    place = tmp_path / there
    (place / "calls").mkdir(parents=True) if there == "mine" else place.write_text("of mine")

    refused = asyncio.run(metrics_etl("demo", "--path", "mine", cwd=tmp_path, env=environment()))

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == f"error: --path: {there} already exists. Name a new folder\n"
    assert [path.name for path in tmp_path.iterdir()] == [there]


def screen(name: str) -> list[str]:
    """What the documentation shows of the command, without what differs from one time to the next."""
    return timeless((SCREENS / f"{name}.txt").read_text(encoding="utf-8"))


def timeless(text: str) -> list[str]:
    for pattern in (r"\d{4}-\d\d-\d\d", r"\d\d(?::\d\d)+", r"[\d.]+ s\b", r"[\d.]+ [KM]iB", r"\d+ (?:min|h|days) ago"):
        text = re.sub(pattern, "…", text)
    text = re.sub(r"^(dataset|report|warehouse) .*$", r"\1 …", text, flags=re.MULTILINE)
    # In how many months the executions lie depends on the day.
    text = re.sub(r"^(executions|calls|evals)( +[\d,]+) +\d+ +…$", r"\1\2 … …", text, flags=re.MULTILINE)
    return [" ".join(line.split()) for line in text.splitlines()]


async def test_documentation_shows_what_demo_and_status_print(demo: tuple[Path, Ended]) -> None:
    folder, result = demo
    status = await metrics_etl("status", cwd=folder, env=environment())

    shown = "\n".join(timeless(result.stdout))
    assert "\n".join(screen("demo")) in shown
    assert timeless(status.stdout) == screen("status")


async def test_sandbox_serves_what_its_printed_lines_say(tmp_path: Path) -> None:
    words = ["sandbox", "--port", "0", "--run-tests", "2", "--executions", "3", "--calls", "4"]
    process = await start(*words, cwd=tmp_path, env=environment())
    assert process.stdout is not None
    exports = (await process.stdout.readline()).decode().split()[1:]
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "metrics-etl.toml").write_bytes(await process.stdout.readline())

    served = dict(variable.split("=") for variable in exports)
    result = await metrics_etl("run", "--json", cwd=tmp_path, env=environment(**served))
    process.send_signal(signal.SIGINT)

    assert result.exit_code == 0
    assert result.document["rows"]["calls"] == 24
    stopped = await ended(process)
    assert stopped.exit_code == 0
    base_url = exports[0].partition("=")[2]
    assert stopped.stderr == (
        f"a simulated API runs at {base_url} until you press Ctrl-C. Use the lines above in another terminal\n"
    )


def test_settings_for_the_sandbox_name_what_it_serves_by_default() -> None:
    settings = tomllib.loads((ROOT / "config" / "sandbox.toml").read_text(encoding="utf-8"))
    assert settings["run_tests"] == [run_test.name for run_test in settled_world(run_tests=3).run_tests]
    assert settings["api"]["base_url"] == "http://127.0.0.1:8765"


@pytest.mark.parametrize(("words", "expected"), [("metrics-etl ", "run"), ("metrics-etl schema -f ta", "table")])
async def test_shell_completes_commands_options_and_choices(tmp_path: Path, words: str, expected: str) -> None:
    typed = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = await metrics_etl(cwd=tmp_path, env=environment(_METRICS_ETL_COMPLETE="complete_bash", **typed))
    assert expected in result.stdout.split()


async def test_schema_prints_what_opens_a_table_in_an_engine(tmp_path: Path) -> None:
    result = await metrics_etl(
        "schema", "calls", "--ddl", "duckdb", "--location", "s3://b/it's/", cwd=tmp_path, env=environment()
    )

    assert result.exit_code == 0
    assert result.stdout == ddl([TABLES["calls"]], "duckdb", "s3://b/it's") + "\n"
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "path", "events", "exit_code"),
    [
        ((), "data", "run_started listed run_test_failed planned committed run_finished", 3),
        (("--quiet",), "data", "problem", 3),
        (("--quiet",), "config/metrics-etl.toml", "run_failed", 6),
    ],
)
async def test_json_log_is_not_mixed_with_anything(
    tmp_path: Path, arguments: tuple[str, ...], path: str, events: str, exit_code: int
) -> None:
    """As in a container, whose log has both streams."""
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1)) as server:
        write_settings(tmp_path, ["Checkout flow", "No such test"], "[log]", 'format = "json"')
        env = environment(server, METRICS_ETL_DESTINATION__PATH=path)
        result = await metrics_etl("run", *arguments, cwd=tmp_path, env=env)

    lines = [json.loads(line) for line in (result.stdout + result.stderr).splitlines()]
    assert {line["event"] for line in lines} == set(events.split())
    assert all({"timestamp", "level"} <= line.keys() for line in lines)
    assert result.exit_code == exit_code
    assert result.stdout == ""
