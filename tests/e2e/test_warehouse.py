"""A warehouse that every run brings up to date, as its users see it: load, run, status, check, verify."""

import asyncio
import json
import os
import random
import re
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from etl.cli.app import main
from etl.files.open import open_files
from etl.load import sql
from etl.model import schema
from etl.sandbox import Sandbox
from tests.e2e.command import assert_documented, ended, environment, metrics_etl, start, type_in, write_settings
from tests.e2e.warm import fork_server
from tests.warehouses import DyingSession, Place, assert_equals_dataset, holding, of_the_page
from tests.worlds import a_sandbox, run_again

server = a_sandbox(run_tests=2, executions=3, calls=3)


@pytest.fixture
def folder(tmp_path: Path, server: Sandbox) -> Path:
    write_warehouse(tmp_path, server, Place("duckdb://metrics.duckdb"))
    return tmp_path


def write_warehouse(folder: Path, server: Sandbox, place: Place) -> None:
    names = [run_test.name for run_test in server.world.run_tests]
    lines = [f'{name} = "{value}"' for name, value in place.settings.items()]
    write_settings(folder, names, "[warehouse]", *lines)


def here(folder: Path) -> Place:
    return Place(f"duckdb://{folder}/config/metrics.duckdb")


def rerun_one(server: Sandbox) -> None:
    """One execution runs again, with other calls."""
    run_again(server.world.run_tests[0].executions[0], random.Random(3), datetime.now(UTC))


async def test_run_loads_at_its_end_and_load_shows_what_differed_and_asks_the_api_nothing(
    server: Sandbox, folder: Path
) -> None:
    run = await metrics_etl("run", cwd=folder, env=environment(server))
    place = here(folder)
    place.edit("DELETE FROM {s}.calls")
    place.close()
    sent = len(server.requests)
    env = {"PATH": os.environ["PATH"]}
    dry = await metrics_etl("load", "--dry-run", cwd=folder, env=env)
    done = await metrics_etl("load", cwd=folder, env=env)
    again = await metrics_etl("load", cwd=folder, env=env)
    full = await metrics_etl("load", "--full", "--json", cwd=folder, env=env)
    quiet = await metrics_etl("load", "--quiet", cwd=folder, env=env)

    url = f"duckdb://{folder}/config/metrics.duckdb"
    assert f"warehouse  {url}, schema simulation_metrics: executions: 6 new" in run.stdout
    assert "6 changed in the warehouse\noutcome    nothing was changed, as this is a dry run\n" in dry.stdout
    assert "loaded     18 calls" in done.stdout
    assert "changes    already up to date" in again.stdout
    assert full.document["executions"]["changed"] == 6
    assert_documented("load", full.document)
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert {each.exit_code for each in (dry, done, again, full, quiet)} == {0}
    assert len(server.requests) == sent
    assert_equals_dataset(here(folder), folder / "data")


async def test_warehouse_that_fails_harms_nothing_and_is_told_until_a_load_made_up_for_it(
    server: Sandbox, folder: Path
) -> None:
    database = folder / "config" / "metrics.duckdb"
    database.write_bytes(b"something else")
    failed = await metrics_etl("run", "--json", cwd=folder, env=environment(server))
    status = await metrics_etl("status", cwd=folder, env=environment(server))
    load = await metrics_etl("load", cwd=folder, env=environment(server))
    database.unlink()
    mended = await metrics_etl("load", cwd=folder, env=environment(server))
    good = await metrics_etl("status", cwd=folder, env=environment(server))

    assert (failed.exit_code, failed.document["outcome"]) == (6, "destination")
    assert failed.document["problems"][0].startswith("the warehouse was not loaded: ")
    assert json.loads((folder / "data" / "_state" / "last_run.json").read_text())["exit_code"] == 0
    assert status.stdout.startswith("Not good: the last load failed: ")
    assert status.stdout.splitlines()[-1] == "next       metrics-etl load"
    assert load.exit_code == 6
    assert load.stderr.count("\n") == 1
    assert mended.exit_code == 0
    assert good.stdout.startswith("Good: the last complete export was")
    assert "simulation_metrics, loaded 0 min ago" in good.stdout


LOOKS = (["load", "--dry-run"], ["check"], ["verify", "--warehouse"])


async def test_who_only_looks_makes_no_database(server: Sandbox, folder: Path) -> None:
    env = environment(server)
    write_settings(folder, "all")
    await metrics_etl("run", "--quiet", cwd=folder, env=env)
    write_warehouse(folder, server, Place("duckdb://metrics.duckdb"))
    dry, check, verify = [await metrics_etl(*command, cwd=folder, env=env) for command in LOOKS]
    write_warehouse(folder, server, Place("duckdb://nowhere/metrics.duckdb"))
    nowhere = [await metrics_etl(*command, cwd=folder, env=env) for command in LOOKS]

    assert "executions: 6 new" in dry.stdout
    assert [each.exit_code for each in (dry, check, verify, *nowhere)] == [0, 0, 6, 6, 6, 6]
    assert verify.stderr.endswith("has no table executions. Run metrics-etl load\n")
    assert [path.name for path in (folder / "config").iterdir()] == ["metrics-etl.toml"]


async def test_load_without_a_warehouse_or_a_dataset_is_refused_in_one_line(server: Sandbox, folder: Path) -> None:
    nothing = await metrics_etl("load", cwd=folder, env=environment(server))
    write_settings(folder, "all")
    unnamed = await metrics_etl("load", cwd=folder, env=environment(server))

    assert (nothing.exit_code, nothing.stderr.count("\n")) == (6, 1)
    assert (unnamed.exit_code, unnamed.stderr.count("\n")) == (2, 1)
    assert "[warehouse] url" in unnamed.stderr


async def test_load_waits_for_nobody_who_holds_the_dataset(server: Sandbox, folder: Path) -> None:
    env = environment(server)
    await metrics_etl("run", "--quiet", cwd=folder, env=env)
    with open_files(str(folder / "data")).lock(datetime.now(UTC)):
        refused = await metrics_etl("load", cwd=folder, env=env)
        dry = await metrics_etl("load", "--dry-run", cwd=folder, env=env)

    assert refused.exit_code == 75
    assert dry.exit_code == 0


@pytest.mark.parametrize(
    ("command", "told"),
    [pytest.param("load", "waiting: duckdb://", marks=pytest.mark.slow), ("run", '"event": "load_waits"')],
    ids=["load", "run"],
)
async def test_file_that_somebody_has_open_is_waited_for_and_the_command_says_so(
    server: Sandbox, folder: Path, command: str, told: str
) -> None:
    env = environment(server)
    await metrics_etl("run", "--quiet", cwd=folder, env=env)
    rerun_one(server)
    with holding(here(folder)) as holder:
        process = await start(command, cwd=folder, env=env)
        assert process.stderr is not None
        while told not in (line := (await process.stderr.readline()).decode()):
            assert line, "it has ended"
        await asyncio.to_thread(holder.communicate)
        done = await ended(process)

    assert "Conflicting lock is held" in line
    assert done.exit_code == 0, done.stderr
    assert_equals_dataset(here(folder), folder / "data")


async def test_readme_leads_from_the_keys_to_an_answer(server: Sandbox, tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    block = readme.partition("\n## Into a warehouse\n")[2].partition("```sh\n")[2].partition("```")[0]
    install, keys, script = block.split("\n", 2)
    shown = await type_in(script, tmp_path, server)

    assert (install, keys) == ("make install EXTRAS=duckdb", "export FI_API_KEY=... FI_SECRET_KEY=...")
    assert shown.exit_code == 0
    for run_test in server.world.run_tests:
        assert re.search(rf"{run_test.name} +│ +9 │", shown.stdout)


@pytest.mark.parametrize(
    ("command", "number"),
    [
        (["run"], signal.SIGTERM),
        pytest.param(["load"], signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(["verify", "--warehouse"], signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(["load", "--dry-run"], signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
async def test_first_signal_ends_what_waits_for_the_warehouse_and_an_export_is_kept(
    server: Sandbox, tmp_path: Path, in_postgresql: Place, command: list[str], number: signal.Signals
) -> None:
    write_warehouse(tmp_path, server, in_postgresql)
    env = environment(server)
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=env)
    rerun_one(server)
    waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with closing(in_postgresql.open()) as other:
        other._session.execute(f"LOCK TABLE {in_postgresql.namespace}.calls")
        process = await start(*command, cwd=tmp_path, env=env)
        while not await asyncio.to_thread(in_postgresql.query, waits):
            pass
        assert (open_files(str(tmp_path / "data")).lock_holder() is None) == (
            set(command) & {"verify", "--dry-run"} != set()
        )
        process.send_signal(number)
        async with asyncio.timeout(20):
            stopped = await ended(process)
        left = in_postgresql.query(waits)

    assert stopped.exit_code == 128 + number
    if command == ["run"]:
        assert left == []
        assert f"the warehouse was not loaded: interrupted by {number.name}" in stopped.stdout
        assert json.loads((tmp_path / "data" / "_state" / "last_run.json").read_text())["exit_code"] == 0
    else:
        assert stopped.stderr == f"error: interrupted by {number.name}\n"
    assert (await metrics_etl("load", "--quiet", cwd=tmp_path, env=env)).exit_code == 0
    assert_equals_dataset(in_postgresql, tmp_path / "data")


async def test_the_page_s_sql_answers_in_postgresql(server: Sandbox, tmp_path: Path, in_postgresql: Place) -> None:
    write_warehouse(tmp_path, server, in_postgresql)
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    question, roles = of_the_page("sql")

    rows = in_postgresql.query(question.replace("simulation_metrics", "{s}").rstrip().rstrip(";"))
    assert {row["run_test_name"] for row in rows} == {each.name for each in server.world.run_tests}
    calls = [row for row in in_postgresql.rows(schema.CALLS) if row["latency_avg_agent_latency_ms"] is not None]
    assert sum(row["calls"] for row in rows) == len(calls)
    assert any(float(row["dollars"]) % 1 for row in rows)
    in_postgresql.edit("CREATE ROLE loader", "CREATE ROLE analysts", *roles.split(";\n")[:-1])


async def test_the_page_s_python_reads_the_delta_tables(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_warehouse(tmp_path, server, Place("delta://../lake"))
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    server.world.run_tests[0].executions[0].is_deleted = True
    ended = await metrics_etl("run", "--json", cwd=tmp_path, env=environment(server))
    monkeypatch.chdir(tmp_path)
    (code,) = of_the_page("python")
    found: dict[str, Any] = {}
    exec(code, found)

    assert ended.exit_code == 0, ended.stderr
    assert len(found["current"]) == 15


async def test_check_and_verify_look_at_the_warehouse_too(server: Sandbox, folder: Path) -> None:
    env = environment(server)
    await metrics_etl("run", "--quiet", cwd=folder, env=env)
    fine = await metrics_etl("check", cwd=folder, env=env)
    intact = await metrics_etl("verify", "--warehouse", cwd=folder, env=env)
    place = here(folder)
    place.edit("UPDATE {s}.calls SET duration_seconds = 1")
    place.close()
    altered = await metrics_etl("verify", "--warehouse", "--json", cwd=folder, env=env)
    (folder / "config" / "metrics.duckdb").write_bytes(b"something else")
    broken = await metrics_etl("check", cwd=folder, env=env)

    assert "metrics.duckdb, schema simulation_metrics can be loaded, and holds 6 executions" in fine.stdout
    assert (intact.exit_code, "compared 6 rows of executions" in intact.stdout) == (0, True)
    assert altered.exit_code == 3
    assert {each["kind"] for each in altered.document["findings"]} == {"loaded_wrong"}
    assert {each["name"]: each["rows"] - each["loaded_rows"] for each in altered.document["warehouse"]["tables"]} == (
        dict.fromkeys(["executions", "evals", "calls", "errors", "runs"], 0)
    )
    assert broken.exit_code == 6


async def test_warehouse_of_another_dataset_is_refused_by_whoever_looks(server: Sandbox, folder: Path) -> None:
    env = environment(server)
    await metrics_etl("run", "--quiet", cwd=folder, env=env)
    (folder / "data").rename(folder / "before")
    new = await metrics_etl("check", cwd=folder, env=env)
    run = await metrics_etl("run", "--quiet", cwd=folder, env=env)
    other = await metrics_etl("check", cwd=folder, env=env)
    verify = await metrics_etl("verify", "--warehouse", cwd=folder, env=env)

    assert [each.exit_code for each in (new, run, other, verify)] == [6, 6, 6, 6]
    assert "holds the dataset" in verify.stderr
    assert "holds the dataset" in new.stdout
    assert "holds the dataset" in other.stdout


def _load_and_be_killed(folder: Path, at: int) -> None:
    class Killing(DyingSession):
        def _ask(self, name: str, *arguments: object) -> None:
            if len(self.asked) >= at:
                os.kill(os.getpid(), signal.SIGKILL)
            super()._ask(name, *arguments)

    begin = sql.SqlWarehouse.__init__

    def with_killing(self: sql.SqlWarehouse, session: sql.Session, *rest: object) -> None:
        begin(self, Killing(session, nth=1_000_000), *rest)  # type: ignore[arg-type]

    sql.SqlWarehouse.__init__ = with_killing  # type: ignore[method-assign,assignment]
    os.chdir(folder)
    sys.argv = ["metrics-etl", "load", "--quiet"]
    main()


ROWS_READ = "SELECT " + ", ".join(
    f"(SELECT count(*) FROM {{s}}.{name}) AS {name}, "
    f"(SELECT sum(hashtext(CAST(t AS text))) FROM {{s}}.{name} AS t) AS of_{name}"
    for name in ("executions_current", "calls", "evals")
)
NO_ROWS = (0, None) * 3


@pytest.mark.parametrize(("kills", "reads"), [(2, 20), pytest.param(100, 2000, marks=pytest.mark.slow)])
async def test_readers_behind_a_pooler_see_all_or_nothing_whenever_loads_are_killed(
    server: Sandbox, tmp_path: Path, in_postgresql: Place, pooled: Place, kills: int, reads: int
) -> None:
    write_warehouse(tmp_path, server, pooled)
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    context = fork_server()
    chance = random.Random(kills)
    seen = Counter[tuple[Any, ...]]()
    is_over = Event()

    def read_on() -> None:
        with closing(Place(pooled.url, pooled.namespace)) as place:
            while not is_over.is_set():
                seen[tuple(place.query(ROWS_READ)[0].values())] += 1

    whole = tuple(pooled.query(ROWS_READ)[0].values())
    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read_on) for _ in range(4)]
        try:
            for _ in range(kills):
                in_postgresql.edit(*(f"DELETE FROM {{s}}.{name}" for name in ("executions", "calls", "evals")))
                process = context.Process(target=_load_and_be_killed, args=(tmp_path, chance.randrange(25)))
                process.start()
                await asyncio.to_thread(process.join)
            assert (await metrics_etl("load", cwd=tmp_path, env=environment(server))).exit_code == 0
            while seen.total() < reads and not any(reader.done() for reader in readers):
                await asyncio.to_thread(in_postgresql.query, "SELECT 1")
        finally:
            is_over.set()
    assert [reader.result() for reader in readers] == [None] * 4
    assert {*seen} <= {whole, NO_ROWS}
    assert_equals_dataset(in_postgresql, tmp_path / "data")
