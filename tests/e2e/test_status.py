"""``metrics-etl status`` as a command: without keys or network, in one screen."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from etl.pipeline import job
from etl.sandbox import Fault, Sandbox
from tests.e2e.command import assert_documented, environment, metrics_etl, write_settings
from tests.e2e.terminal import Terminal
from tests.support import settings_for
from tests.worlds import a_sandbox

NIGHT = datetime(2026, 11, 1, 2, tzinfo=UTC)
BARE = {"PATH": os.environ["PATH"]}
"""No key, no settings file, no server."""
server = a_sandbox(run_tests=2, executions=6, calls=3, include_unfinished=True)


async def export(server: Sandbox, tmp_path: Path, *, night: int = 0, **options: Any) -> None:
    settings = settings_for(server, tmp_path / "data", api={"max_tries": 1}, **options)
    await job.export(settings, clock=lambda: NIGHT + timedelta(days=night))


async def test_command_needs_no_key_no_settings_and_no_server(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in files_in(tmp_path)}

    shown = await metrics_etl("status", cwd=tmp_path, env=BARE)
    as_json = await metrics_etl("status", "--json", cwd=tmp_path, env=BARE)
    elsewhere = await metrics_etl(
        "status", "--json", cwd=tmp_path.parent, env=BARE | {"METRICS_ETL_DESTINATION__PATH": str(tmp_path / "data")}
    )

    assert (shown.exit_code, as_json.exit_code, shown.stderr) == (0, 0, "")
    assert "problem    an export would fail now: config/metrics-etl.toml was not found" in shown.stdout
    assert "export     not running\n" in shown.stdout
    assert "Checkout flow" in shown.stdout
    assert_documented("status", as_json.document)
    assert as_json.document["tables"] == elsewhere.document["tables"]
    assert as_json.document["runs"][0]["exit_code"] == 0
    assert {path: path.stat().st_mtime_ns for path in files_in(tmp_path)} == before


async def test_verdict_is_an_exit_code_on_demand(server: Sandbox, tmp_path: Path) -> None:
    async def codes() -> list[int]:
        return [
            (await metrics_etl("status", *arguments, cwd=tmp_path, env=BARE)).exit_code
            for arguments in ([], ["--max-age-hours", "31"], ["--max-age-hours", "26"])
        ]

    night = datetime.now(UTC) - timedelta(hours=30)
    await job.export(settings_for(server, tmp_path / "data"), clock=lambda: night)
    assert await codes() == [0, 0, 3]
    (part,) = [path for path in (tmp_path / "data" / "calls").rglob("*.parquet") if "checkout" in str(path)][:1]
    rows = part.read_bytes()
    part.unlink()
    assert await codes() == [0, 3, 3]
    part.write_bytes(rows)
    server.fault = lambda _request, _nth: Fault(status=401)
    await job.export(settings_for(server, tmp_path / "data"))
    assert await codes() == [0, 3, 3]


async def test_destination_that_would_end_an_export_now_is_not_good_on_the_machine_that_exports(
    server: Sandbox, tmp_path: Path
) -> None:
    await job.export(settings_for(server, tmp_path / "data"))
    write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests])
    (tmp_path / "data" / "_state" / "staging").rmdir()
    (tmp_path / "data" / "_state" / "staging").write_text("in the way")

    shown = await metrics_etl("status", "--config", "config/metrics-etl.toml", cwd=tmp_path, env=BARE)
    as_json = await metrics_etl("status", "--json", cwd=tmp_path, env=BARE)
    (tmp_path / "config" / "metrics-etl.toml").unlink()
    reader = await metrics_etl("status", cwd=tmp_path, env=BARE)
    configured = await metrics_etl("run", cwd=tmp_path, env=environment(server, METRICS_ETL_RUN_TESTS="all"))

    (problem,) = as_json.document["problems_now"]
    assert "staging" in problem
    assert (as_json.document["is_good"], as_json.document["next"]) == (False, "metrics-etl check, then metrics-etl run")
    assert shown.stdout.startswith("Not good: an export would fail now: ")
    assert shown.stdout.count("would fail") == 1
    assert shown.stdout.endswith("metrics-etl check, then metrics-etl run (with --config config/metrics-etl.toml)\n")
    assert reader.stdout.startswith("Good: ")
    assert configured.exit_code == 6


async def test_where_there_is_no_dataset_it_says_so(tmp_path: Path) -> None:
    nothing = await metrics_etl("status", cwd=tmp_path, env=BARE)
    (tmp_path / "data").mkdir()
    empty = await metrics_etl("status", cwd=tmp_path, env=BARE)

    for result in (nothing, empty):
        assert result.exit_code == 6
        assert result.stderr == (
            f"error: there is no dataset at {tmp_path / 'data'} yet. "
            "Create one with metrics-etl run, or fix [destination] path. Also, config/metrics-etl.toml was not found "
            f"(looked for in {tmp_path}). Write one with metrics-etl init, or name another with --config\n"
        )
    assert list(files_in(tmp_path)) == []


async def test_one_screen_of_80_columns(server: Sandbox, tmp_path: Path) -> None:
    """On a terminal, with a name that would move its cursor, and everything that there may be to say."""
    first, second = server.world.run_tests
    first.name = "Ünïcode \x1b[2J ナイトリー" + " long" * 20
    second.name = "x"
    await export(server, tmp_path)
    first.executions[0].is_deleted = True
    first.executions[2].completed_calls += 1
    for call in first.executions[2].calls:
        call.duration_seconds = 77.0
    letters = [call.call_execution_id for call in first.executions[2].calls]
    server.fault = lambda request, _nth: (
        Fault(status=500) if request.query.get("call_execution_id") in letters else None
    )
    for night in range(1, 9):
        await export(server, tmp_path, night=night)

    terminal = Terminal("status", cwd=tmp_path, env=BARE | {"TERM": "xterm"})
    assert await terminal.ended() == 0

    shown = terminal.written
    lines = [line.rstrip() for line in terminal.lines]
    assert "\x1b[2J" not in shown
    assert r"\x1b[2J" in shown
    assert any("1 deleted" in line for line in lines)
    width = max(len(line) for line in lines if not line.startswith(("Not good", "problem", "dataset")))
    assert width <= 80, shown
    assert len(lines) <= 40, shown
    assert sum(line.startswith("2026-11-") for line in lines) == 7


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
