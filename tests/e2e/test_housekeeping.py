"""What the pages on housekeeping, the first export and monitoring show works as they show it."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from etl import read_table
from etl.sandbox import Fault, Sandbox
from tests.e2e.command import environment, export, metrics_etl, type_in, write_settings
from tests.e2e.truth import assert_equals_world
from tests.worlds import a_sandbox, settled_world

DOCS = Path(__file__).parents[2] / "docs"
server = a_sandbox(run_tests=2, executions=3, calls=4)


def blocks(page: str, title: str, language: str = "sh") -> list[str]:
    """The blocks below a title of the page."""
    section = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


async def test_commands_of_housekeeping_do_what_the_page_says(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=3, calls=2)) as server:
        await export(server, tmp_path)
        (copy,) = blocks("housekeeping.md", "Move, copy or restore a dataset")
        again, anew = blocks("housekeeping.md", "Export one run test again")
        (tmp_path / "backup").mkdir()
        printed, requests = [], []
        for script in (copy, again, anew):
            sent = len(server.requests)
            result = await type_in(script.replace("/backup", f"{tmp_path}/backup"), tmp_path, server)
            assert result.exit_code == 0, result
            printed.append(result.stdout)
            requests.append(len(server.requests) - sent)
        assert "nothing is wrong" in printed[0]
        assert re.search(r"^Checkout flow +3 +final", printed[0], re.MULTILINE)
        assert requests[1:] == [1 + 3 * 3, 1 + 2 + 3 * 3], "what lists of run tests say is stored, or asked for again"
        assert_equals_world(tmp_path, server.world)


async def test_forget_says_how_much_goes_and_removes_it_only_when_told_so_again(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=3, calls=2)) as server:
        await export(server, tmp_path)
        (script,) = blocks("housekeeping.md", "Forget calls, executions or what is old")
        first, second, _ = server.world.run_tests[0].executions
        second.calls[0].is_deleted = True
        assert (await export(server, tmp_path, "--full-refresh")).exit_code == 0
        script = script.replace("5af9e484-…", first.execution_id)
        lines = script.replace("0b6f2c1e-…", second.calls[0].call_execution_id).splitlines()
        asked, done, of_call, old = [await type_in(line, tmp_path, server) for line in lines]
        status = await type_in("metrics-etl status", tmp_path, server)
    assert asked.stdout == "to forget  1 execution, 2 calls, 6 evals\nnext       add --yes to remove these rows\n"
    assert done.stdout.startswith("forgotten  1 execution, 2 calls, 6 evals\nnext       metrics-etl load")
    assert of_call.stdout.startswith("forgotten  1 call, 3 evals\n")
    assert old.stdout.startswith("forgotten  nothing\n")
    assert "  1 forgotten" in status.stdout


async def test_old_executions_are_forgotten_once_and_no_run_fetches_them_again(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    (command,) = blocks("housekeeping.md", "Keep only recent rows")
    days = sorted(read_table(tmp_path / "data", "executions")["date"])
    kept = [day for day in days if day > days[0]]
    for said in (f"forgotten  {len(days) - len(kept)} execution", "forgotten  nothing\n"):
        forgotten = await type_in(command.replace("90d", str(kept[0])), tmp_path, server)
        assert forgotten.stdout.startswith(said), forgotten
        assert (await type_in("metrics-etl run", tmp_path, server)).exit_code == 0
        assert sorted(read_table(tmp_path / "data", "executions")["date"]) == kept


async def test_first_export_shows_what_plan_predicts_and_its_command_exports(tmp_path: Path) -> None:
    page = (DOCS / "first-export.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- plan -->\n```text\n(.*?)```", page, re.DOTALL)
    assert shown
    plan, run = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    async with Sandbox(settled_world(run_tests=3, executions=20, calls=25)) as server:
        write_settings(tmp_path, [each.name for each in server.world.run_tests], "[api]", "requests_per_minute = 100")
        planned = await type_in(plan, tmp_path, server)
        assert planned.stdout.endswith(shown[1])
        write_settings(tmp_path, [each.name for each in server.world.run_tests])
        assert (await type_in(run, tmp_path, server)).exit_code == 0
        assert_equals_world(tmp_path, server.world)


async def test_queries_about_nights_and_dead_letters_run(server: Sandbox, tmp_path: Path, monkeypatch: Any) -> None:
    broken = server.world.run_tests[0].executions[0].calls[0].call_execution_id
    server.fault = lambda request, _: Fault(status=500) if broken in request.target else None
    lines = ("[api]", "max_tries = 1", "[export]", 'metrics = "calls"')
    write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests], *lines)
    assert (await metrics_etl("run", cwd=tmp_path, env=environment(server))).exit_code == 3
    monkeypatch.chdir(tmp_path)
    (nights,) = blocks("monitoring.md", "In your own tools", "sql")
    (letters,) = blocks("failed-night.md", "Dead letters", "sql")

    assert [outcome for _, outcome, *_ in duckdb.execute(nights).fetchall()] == ["partial"]
    assert [(status, count) for _, status, count, *_ in duckdb.execute(letters).fetchall()] == [(500, 1)]


async def test_recipe_for_prometheus_writes_what_the_record_of_the_last_run_says(
    server: Sandbox, tmp_path: Path
) -> None:
    (recipe,), (script,) = (blocks("monitoring.md", "In Prometheus", language) for language in ("python", "sh"))
    (tmp_path / "last_run.py").write_text(recipe)
    first = {"name": server.world.run_tests[0].name, "key": "first"}
    write_settings(tmp_path, [first, {"name": "No such test", "key": "second"}])
    assert (await metrics_etl("run", cwd=tmp_path, env=environment(server))).exit_code == 3
    written = await type_in(script.replace("/var/lib/node_exporter", str(tmp_path)), tmp_path, server)

    assert (written.exit_code, written.stderr) == (0, "")
    run = json.loads((tmp_path / "data" / "_state" / "last_run.json").read_text())
    finished_at, complete_at = map(datetime.fromisoformat, (run["finished_at"], run["last_complete_at"]["first"]))
    assert sorted((tmp_path / "metrics_etl.prom").read_text().splitlines()) == [
        "metrics_etl_dataset_complete_timestamp_seconds 0",
        f'metrics_etl_last_complete_timestamp_seconds{{run_test="first"}} {complete_at.timestamp()}',
        'metrics_etl_last_complete_timestamp_seconds{run_test="second"} 0',
        "metrics_etl_run_exit_code 3",
        f"metrics_etl_run_finished_timestamp_seconds {finished_at.timestamp()}",
    ]
