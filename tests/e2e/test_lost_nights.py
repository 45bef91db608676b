"""A night that did not begin, or was killed before its end, leaves a trace where ``status`` finds it."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.errors import DestinationError
from etl.inspect.gone import rows_gone
from etl.inspect.status import read_status
from etl.inspect.verdict import judge
from etl.load.attempt import Attempt, note_attempt
from etl.load.files import local
from etl.load.files.contract import Entry
from etl.load.files.local import LocalFiles
from etl.load.layout import ATTEMPT, LAST_RUN
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox, add_run_test
from tests.e2e.command import Ended, ended, environment, metrics_etl, start, write_settings
from tests.load.files.watched import Step, watched
from tests.support import settings_for
from tests.worlds import settled_world

BARE = {"PATH": os.environ["PATH"]}


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=2, calls=2)) as running:
        yield running


@pytest.fixture(params=["first night", "later night"])
async def folder(request: pytest.FixtureRequest, server: Sandbox, tmp_path: Path) -> Path:
    write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests])
    if request.param == "later night":
        assert (await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))).exit_code == 0
    return tmp_path


async def status(folder: Path) -> Ended:
    result = await metrics_etl("status", cwd=folder, env=BARE)
    assert (result.exit_code, result.stderr) == (0, "")
    return result


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"FI_API_KEY": None}, [], "could not start (exit 2): no key: set FI_API_KEY"),
        (
            {"METRICS_ETL_API__CONCURRENCY": "0"},
            [],
            "could not start (exit 2): environment: METRICS_ETL_API__CONCURRENCY",
        ),
        ({}, ["--run-test", "Renamed"], "could not start (exit 2): --run-test 'Renamed' is not in run_tests"),
        (
            {},
            ["--metrics-file", "nowhere/x.prom"],
            "could not start (exit 2): --metrics-file nowhere/x.prom: the folder",
        ),
        (
            {},
            ["--metrics-file", "data/x.prom"],
            "could not start (exit 2): --metrics-file data/x.prom: it must be outside",
        ),
        (
            {"FI_BASE_URL": "https://host.invalid", "METRICS_ETL_API__MAX_TRIES": "1"},
            [],
            "no complete answer from host.invalid",
        ),
    ],
    ids=["no key", "bad setting", "renamed run test", "metrics file", "metrics file in the dataset", "unknown host"],
)
async def test_night_that_did_not_begin_is_named_until_the_next_one(
    server: Sandbox, folder: Path, changes: dict[str, str | None], arguments: list[str], words: str
) -> None:
    (folder / "data").mkdir(exist_ok=True)
    failed = await metrics_etl("run", "--quiet", *arguments, cwd=folder, env=environment(server, **changes))
    assert failed.exit_code in (2, 5)
    assert failed.stderr.count("\n") == 1

    assert words in (await status(folder)).stdout
    assert (await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))).exit_code == 0
    assert words not in (await status(folder)).stdout


async def test_bad_settings_file_leaves_its_note_where_it_says(server: Sandbox, folder: Path) -> None:
    path = write_settings(folder, ["A"], "[api]", "concurency = 5", "[destination]", 'path = "../elsewhere"')
    assert (await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))).exit_code == 2
    path.write_text(path.read_text().replace("concurency", "concurrency"))
    shown = (await status(folder)).stdout
    assert f"dataset    {folder / 'elsewhere'}" in shown
    assert "[api] concurency is unknown" in shown


@pytest.mark.parametrize("text", [None, "run_tests = ["], ids=["missing", "no TOML"])
async def test_where_nothing_is_known_the_run_says_that_status_will_not_know(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "metrics-etl.toml").write_text(text)
    result = await metrics_etl("run", cwd=tmp_path, env=environment())
    assert result.exit_code == 2
    assert result.stderr.endswith("; metrics-etl status will not show this run: the settings name no dataset\n")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


async def test_note_that_cannot_be_left_is_said_on_the_way_out(server: Sandbox, folder: Path) -> None:
    blocked = environment(server, METRICS_ETL_DESTINATION__PATH="config/metrics-etl.toml")
    no_key = await metrics_etl("run", cwd=folder, env=blocked | {"FI_API_KEY": ""})
    no_folder = await metrics_etl("run", cwd=folder, env=blocked)
    assert (no_key.exit_code, no_folder.exit_code) == (2, 6)
    for result in (no_key, no_folder):
        assert "; metrics-etl status will not show this run: its note could not be written" in result.stderr
        assert "Not a directory" in result.stderr
        assert result.stderr.count("\n") == 1


async def test_dataset_of_a_newer_version_is_named(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests])
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    path = min((tmp_path / "data" / "executions").rglob("*.parquet"))
    rows = pq.ParquetFile(path).read()
    pq.write_table(rows.append_column("mood", pa.nulls(len(rows), pa.string())), path)

    assert (await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))).exit_code == 6
    shown = (await status(tmp_path)).stdout
    assert "could not start (exit 6): " in shown
    assert "written by a newer version; upgrade the exporter" in shown


async def test_killed_before_its_first_commit_is_named_and_not_while_it_is_at_work(
    server: Sandbox, folder: Path
) -> None:
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    server.fault = lambda _request, _nth: Fault(is_hanging=True)
    process = await start("run", "--quiet", cwd=folder, env=environment(server))
    await asked.wait()
    during = (await status(folder)).stdout
    process.kill()
    await ended(process)
    after = (await status(folder)).stdout

    assert "ended without a summary" not in during
    assert "(UTC) ended without a summary: it was killed or crashed, the machine stopped, or the disk was full" in after
    server.fault = None
    assert (await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))).exit_code == 0
    assert "ended without a summary" not in (await status(folder)).stdout


async def test_killed_run_and_lost_rows_are_named_while_a_load_holds_the_lock(server: Sandbox, folder: Path) -> None:
    assert (await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))).exit_code == 0
    shutil.rmtree(folder / "data/calls")
    files = LocalFiles(folder / "data")
    with files.lock(datetime.now(UTC) + timedelta(seconds=1)):  # never the second in which that run began
        assert "that were exported are not there; an export is running" in (await status(folder)).stdout
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    server.fault = lambda _request, _nth: Fault(is_hanging=True)
    process = await start("run", "--quiet", cwd=folder, env=environment(server))
    await asked.wait()
    process.kill()
    await ended(process)
    with files.lock(datetime.now(UTC) + timedelta(seconds=1)):
        assert (await status(folder)).stdout.startswith(
            "Not good: the last run was killed or crashed; an export is running"
        )


async def test_run_that_begins_while_status_reads_is_not_a_lost_one(server: Sandbox, folder: Path) -> None:
    await job.export(settings_for(server, folder / "data"))
    now = datetime.now(UTC) + timedelta(seconds=2)

    class BeginsLate(LocalFiles):
        def lock_holder(self) -> str | None:
            holder = super().lock_holder()
            if not begun.is_set():
                begun.set()
                export.enter_context(LocalFiles(self.root).lock(now))
                note_attempt(self, Attempt(started_at=now, export_run_id="a"))
            return holder

    with ExitStack() as export:
        begun = asyncio.Event()
        found = read_status(BeginsLate(folder / "data"), now=now)

    assert found.at_work
    assert judge(found).text.startswith("Good")


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (["executions"], "4 executions gone since the last run"),
        (["calls"], "8 calls gone since the last run"),
        (["evals"], r"\d+ evals gone since the last run"),
        (["executions", "calls", "evals"], "4 executions gone since the last run"),
    ],
    ids=["executions", "calls", "evals", "all"],
)
async def test_what_is_gone_is_told_while_a_run_is_at_work(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: list[str], told: str
) -> None:
    monkeypatch.setattr(local, "_TICK_NS", 0)  # as if the last run had been long ago
    settings = settings_for(server, tmp_path / "data")
    await job.export(settings)
    for table in tables:
        shutil.rmtree(tmp_path / "data" / table)
    files, now = LocalFiles(tmp_path / "data"), datetime.now(UTC)
    run_tests = {each.key for each in settings.run_tests}

    with files.lock(now):
        note_attempt(files, Attempt(started_at=now, export_run_id="a"))
        verdict = judge(read_status(files, now=now)).text
        compared = rows_gone(files, run_tests)

    assert re.fullmatch(f"Not good: {told}; an export is running", verdict)
    assert compared
    assert (await job.export(settings)).exit_code == 0
    assert rows_gone(files, run_tests) == []


async def test_what_moves_between_two_looks_is_not_missed(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_TICK_NS", 0)  # as if the last run had been long ago
    settings = settings_for(server, tmp_path / "data")
    await job.export(settings)

    class Moving(LocalFiles):
        looks = 0

        def entries(self, folder: str) -> tuple[Entry, ...]:
            self.looks += folder == "calls"
            return () if (folder, self.looks) == ("calls", 1) else super().entries(folder)

    now = datetime.now(UTC)
    with LocalFiles(tmp_path / "data").lock(now):
        note_attempt(LocalFiles(tmp_path / "data"), Attempt(started_at=now, export_run_id="a"))
        verdict = judge(read_status(Moving(tmp_path / "data"), now=now)).text
        gone = rows_gone(Moving(tmp_path / "data"), {each.key for each in settings.run_tests})

    assert (verdict[:4], gone) == ("Good", [])


async def test_what_a_run_moves_is_not_missed_meanwhile(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_TICK_NS", 0)  # as if the nights had been long ago
    settings = settings_for(server, tmp_path / "data", run_tests="all")
    await job.export(settings)
    for run_test in server.world.run_tests:
        run_test.name += " 2"
    told, gone = set[str](), set[str]()
    keys = {path.name.removeprefix("run_test=") for path in (tmp_path / "data" / "calls").iterdir()}

    def look(step: Step) -> None:
        if step.name in ("rename", "unlink"):
            files = LocalFiles(tmp_path / "data")
            told.add(judge(read_status(files, now=datetime.now(UTC))).text)
            gone.update(rows_gone(files, keys))

    with watched(tmp_path / "data", after=look):
        moved = (await job.export(settings)).run_tests[0].moved

    assert moved
    assert {text[:4] for text in told} == {"Good"}, told
    assert gone == set()


async def test_narrowed_run_does_not_hide_what_it_did_not_look_up(server: Sandbox, tmp_path: Path) -> None:
    """It sees nothing that is stored, so it asks for nothing that is gone."""
    settings = settings_for(server, tmp_path / "data", run_tests="all", api={"max_tries": 1})
    await job.export(settings)
    server.world.run_tests.pop()
    server.fault = lambda request, _nth: Fault(status=500) if request.query.get("execution_id") else None
    whole = await job.export(settings)
    add_run_test(server.world, settled_world(seed=3, names=["New"], executions=1).run_tests[0])
    narrowed = await job.export(settings.only(["New"]))
    write_settings(tmp_path, "all")
    shown = await status(tmp_path)
    server.fault = None

    assert (whole.exit_code, narrowed.exit_code) == (3, 0)
    assert shown.stdout.startswith("Not good: run_test=")
    assert (
        "executions left there could not be looked up; if another run does not help, one with --accept-" in shown.stdout
    )
    assert (await job.export(settings)).exit_code == 0
    assert (await status(tmp_path)).stdout.startswith("Good: ")


async def test_narrowed_run_does_not_hide_what_is_wrong_with_the_list_of_run_tests(
    server: Sandbox, tmp_path: Path
) -> None:
    settings = settings_for(server, tmp_path / "data", run_tests="all")
    await job.export(settings)
    add_run_test(server.world, settled_world(seed=3, names=["Cannot be listed "], executions=1).run_tests[0])
    whole = await job.export(settings)
    narrowed = [await job.export(settings.only([server.world.run_tests[0].name])) for _ in range(2)]
    write_settings(tmp_path, "all")
    shown = await status(tmp_path)
    server.world.run_tests.pop()
    healed = await job.export(settings)

    assert [run.exit_code for run in (whole, *narrowed, healed)] == [3, 0, 0, 0]
    assert shown.stdout.startswith("Not good: run test ")
    assert f"in a run before: {whole.problems[0]}" in " ".join(shown.stdout.split())
    assert (await status(tmp_path)).stdout.startswith("Good: ")


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "not begun"])
async def test_narrowed_run_does_not_hide_a_lost_night(server: Sandbox, tmp_path: Path, *, is_killed: bool) -> None:
    names = [run_test.name for run_test in server.world.run_tests]
    write_settings(tmp_path, names)
    env = environment(server)
    assert (await metrics_etl("run", "--quiet", cwd=tmp_path, env=env)).exit_code == 0
    if is_killed:
        asked = asyncio.Event()
        server.on_request = lambda _request: asked.set()
        server.fault = lambda _request, _nth: Fault(is_hanging=True)
        process = await start("run", "--quiet", cwd=tmp_path, env=env)
        await asked.wait()
        process.kill()
        await ended(process)
        server.fault = None
    else:
        assert (await metrics_etl("run", "--quiet", cwd=tmp_path, env=env | {"FI_API_KEY": ""})).exit_code == 2

    for _ in range(2):
        narrowed = await metrics_etl("run", "--quiet", "--run-test", names[0], cwd=tmp_path, env=env)
        assert narrowed.exit_code == 0
        assert (await status(tmp_path)).stdout.startswith("Not good: 1 of 2 run tests incomplete since ")
    assert (await metrics_etl("run", "--quiet", cwd=tmp_path, env=env)).exit_code == 0
    assert (await status(tmp_path)).stdout.startswith("Good: ")


async def test_second_run_that_finds_the_first_at_work_is_no_lost_night(server: Sandbox, folder: Path) -> None:
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    server.fault = lambda _request, _nth: Fault(is_hanging=True)
    process = await start("run", "--quiet", cwd=folder, env=environment(server))
    await asked.wait()
    assert (await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))).exit_code == 75
    process.terminate()
    assert (await ended(process)).exit_code == 143
    assert "could not start" not in (await status(folder)).stdout


async def test_full_disk_is_named(server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full for an export, which needs room, not for a note."""
    settings = settings_for(server, tmp_path / "data")
    await job.export(settings)
    monkeypatch.setattr("etl.load.files.probe._LEAST_FREE_BYTES", 1 << 60)
    with pytest.raises(DestinationError, match="make room, or move the dataset"):
        await job.export(settings)
    assert "make room, or move the dataset" in (await status(tmp_path)).stdout


@pytest.mark.parametrize(
    "damage", [b"{", *(pytest.param(each, marks=pytest.mark.slow) for each in (b"", b'{"started_at": 3}', b"\xff"))]
)
async def test_damaged_note_is_no_note(server: Sandbox, tmp_path: Path, damage: bytes) -> None:
    write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests])
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    (tmp_path / "data" / "_state" / "attempt.json").write_bytes(damage)
    assert "could not start" not in (await status(tmp_path)).stdout


async def test_run_that_could_not_write_its_row_is_told_with_its_reason(server: Sandbox, tmp_path: Path) -> None:
    """As in a folder ``runs`` that may not be written."""
    night = datetime(2026, 11, 1, 2, tzinfo=UTC)
    settings = settings_for(server, tmp_path / "data")
    await job.export(settings, clock=lambda: night - timedelta(days=1))
    (tmp_path / "data" / "runs" / f"month={night:%Y-%m}").write_text("in the way")
    summary = await job.export(settings, clock=lambda: night)

    found = read_status(LocalFiles(tmp_path / "data"), now=night)
    verdict = judge(found)

    assert (summary.exit_code, found.lost_run) == (6, None)
    assert (found.runs[0].export_run_id, found.runs[0].exit_code) == (summary.export_run_id, 6)
    assert list(found.problems) == summary.problems
    assert (verdict.is_good, verdict.next_step) == (False, "metrics-etl check")
    assert [each.is_complete for each in found.run_tests] == [False, False]


async def test_run_that_could_not_replace_last_run_json_is_no_success(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where that file alone may not be replaced. Its row in ``runs`` was written before."""
    settings = settings_for(server, tmp_path / "data")
    await job.export(settings)
    publish = LocalFiles.publish

    def refuse(files: LocalFiles, path: str, data: bytes | memoryview) -> None:
        if path == LAST_RUN:
            raise DestinationError(f"{files.where(path)}: Operation not permitted")
        publish(files, path, data)

    monkeypatch.setattr(LocalFiles, "publish", refuse)
    summary = await job.export(settings)

    found = read_status(LocalFiles(tmp_path / "data"), now=datetime.now(UTC))
    assert summary.exit_code == 6
    assert (found.runs[0].export_run_id, found.runs[0].exit_code) == (summary.export_run_id, 6)
    assert found.problems == (f"{tmp_path / 'data' / LAST_RUN}: Operation not permitted",)
    assert not judge(found).is_good


async def test_note_that_cannot_be_read_is_no_note_and_is_told(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run replaces it without reading it, so it ends nothing."""
    await job.export(settings_for(server, tmp_path / "data"))
    read = LocalFiles.read

    def refuse(files: LocalFiles, path: str, **options: Any) -> Any:
        if path == ATTEMPT:
            raise DestinationError(f"{files.where(path)}: Permission denied")
        return read(files, path, **options)

    monkeypatch.setattr(LocalFiles, "read", refuse)
    found = read_status(LocalFiles(tmp_path / "data"), now=datetime.now(UTC))
    (ignored,) = found.ignored
    assert ignored.endswith("attempt.json: Permission denied; ignored, so it is not known whether the last run started")
    assert (len(found.runs), found.lost_run) == (1, None)
