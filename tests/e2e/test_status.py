"""``metrics-etl status``: the dataset in one screen, without keys or network, whatever state it is in."""

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl import sandbox
from etl.errors import DestinationError
from etl.inspect.status import Status, read_status
from etl.inspect.verdict import judge, missing_rows
from etl.load.files import local
from etl.load.files.local import LocalFiles
from etl.load.layout import INDEX
from etl.model.keys import default_key
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox
from tests.e2e.command import assert_documented, ended, environment, metrics_etl, start, write_settings
from tests.e2e.terminal import Terminal
from tests.e2e.truth import rows_of
from tests.support import settings_for
from tests.worlds import settled_world

NIGHT = datetime(2026, 11, 1, 2, tzinfo=UTC)
BARE = {"PATH": os.environ["PATH"]}
"""No key, no settings file, no server."""


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=2, executions=6, calls=3, include_unfinished=True)) as running:
        yield running


async def export(server: Sandbox, tmp_path: Path, *, night: int = 0, **options: Any) -> None:
    settings = settings_for(server, tmp_path / "data", api={"max_tries": 1}, **options)
    await job.export(settings, clock=lambda: NIGHT + timedelta(days=night))


def status_of(tmp_path: Path, *, now: datetime = NIGHT + timedelta(hours=5)) -> Status:
    return read_status(LocalFiles(tmp_path / "data"), now=now)


async def test_counts_are_those_of_the_tables(server: Sandbox, tmp_path: Path) -> None:
    """With executions that wait, settle, lack a call, were deleted."""
    first, second = server.world.run_tests
    await export(server, tmp_path)
    sandbox.delete_execution(next(each for each in first.executions if each.completed_at))
    poisoned = next(each for each in second.executions if each.completed_at)
    letters = {call.call_execution_id for call in poisoned.calls[:2]}
    for call in poisoned.calls[:3]:
        call.duration_seconds = 77.0
    poisoned.completed_calls += 1
    server.fault = lambda request, _nth: (
        Fault(status=500) if request.query.get("call_execution_id") in letters else None
    )
    await export(server, tmp_path, night=1)

    found = status_of(tmp_path, now=NIGHT + timedelta(days=1, hours=5))

    tables = {name: rows_of(tmp_path, name) for name in ("executions", "calls", "evals", "errors", "runs")}
    assert {table.name: table.rows for table in found.tables} == {name: len(rows) for name, rows in tables.items()}
    assert sum(table.size_bytes for table in found.tables) == sum(
        path.stat().st_size for path in (tmp_path / "data").rglob("*=*/*.parquet")
    )
    assert len(found.run_tests) == 2
    for run_test in found.run_tests:
        rows = [row for row in tables["executions"] if row["run_test"] == run_test.key]
        states = Counter(row["export_state"] for row in rows if row["deleted_at"] is None)
        assert run_test.executions == len(rows)
        assert {state: getattr(run_test, state) for state in ("exported", "settling", "waiting", "incomplete")} == {
            state: states[state] for state in ("exported", "settling", "waiting", "incomplete")
        }
        assert run_test.deleted == sum(row["deleted_at"] is not None for row in rows)
        assert run_test.calls == sum(row["run_test"] == run_test.key for row in tables["calls"])
        assert run_test.evals == sum(row["run_test"] == run_test.key for row in tables["evals"])
        assert run_test.newest_started_at == max(row["started_at"] for row in rows)
        assert run_test.exported_at == max(row["exported_at"] for row in rows)
    by_key = {run_test.key: run_test for run_test in found.run_tests}
    assert (by_key[default_key(first.name)].deleted, by_key[default_key(second.name)].incomplete) == (1, 1)
    assert by_key[default_key(first.name)].waiting >= 1
    assert by_key[default_key(first.name)].complete_at == NIGHT + timedelta(days=1)
    assert by_key[default_key(second.name)].complete_at == NIGHT
    (letter,) = found.dead_letters
    assert (letter.status, letter.count, letter.first_seen_at) == (500, 2, NIGHT + timedelta(days=1))
    assert [run.exit_code for run in found.runs] == [3, 0]
    assert found.problems == (f"{second.name!r}: 2 requests given up, see the errors table; the next run tries again",)
    assert found.complete_at == NIGHT
    assert found.at_work is None


async def test_call_that_failed_does_not_count_while_its_execution_runs_again(server: Sandbox, tmp_path: Path) -> None:
    """It is asked for again once that has finished; until then the run has nothing to complain of, nor has the verdict."""
    failing = next(each for each in server.world.run_tests[0].executions if each.completed_at)
    server.fault = lambda request, _nth: (
        Fault(status=500) if request.query.get("call_execution_id") == failing.calls[0].call_execution_id else None
    )
    await export(server, tmp_path)
    assert [each.dead_letters for each in status_of(tmp_path).run_tests] == [1, 0]

    failing.status, failing.completed_at = "running", None
    await export(server, tmp_path, night=1)

    found = status_of(tmp_path, now=NIGHT + timedelta(days=1, hours=5))
    assert len(rows_of(tmp_path, "errors")) == 1
    assert [each.dead_letters for each in found.run_tests] == [0, 0]
    assert found.runs[0].exit_code == 0
    assert judge(found).is_good
    assert (await metrics_etl("verify", cwd=tmp_path, env=BARE)).exit_code == 0


async def test_command_needs_no_key_no_settings_and_no_server(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in files_in(tmp_path)}

    shown = await metrics_etl("status", cwd=tmp_path, env=BARE)
    as_json = await metrics_etl("status", "--json", cwd=tmp_path, env=BARE)
    elsewhere = await metrics_etl(
        "status", "--json", cwd=tmp_path.parent, env=BARE | {"METRICS_ETL_DESTINATION__PATH": str(tmp_path / "data")}
    )

    assert (shown.exit_code, as_json.exit_code, shown.stderr) == (0, 0, "")
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


async def test_verdict_comes_first_and_what_to_type_next_last(server: Sandbox, tmp_path: Path) -> None:
    await job.export(settings_for(server, tmp_path / "data"))
    good = await metrics_etl("status", cwd=tmp_path, env=BARE)
    server.fault = lambda _request, _nth: Fault(status=401)
    await job.export(settings_for(server, tmp_path / "data"))
    bad = await metrics_etl("status", cwd=tmp_path, env=BARE)
    as_json = await metrics_etl("status", "--json", cwd=tmp_path, env=BARE)

    assert good.stdout.splitlines()[0] == "Good: everything complete 0 min ago"
    assert good.stdout.splitlines()[-1] == "next       metrics-etl verify"
    first, *_, last = bad.stdout.splitlines()
    assert first.startswith("Not good: 2 of 2 run tests incomplete since ")
    assert last == "next       metrics-etl check"
    document = as_json.document
    assert (document["is_good"], document["verdict"], document["next"]) == (False, first, "metrics-etl check")


async def test_what_would_end_an_export_now_is_told_with_a_verdict_that_is_not_good(
    server: Sandbox, tmp_path: Path
) -> None:
    await export(server, tmp_path)
    problem = "problem    an export would fail now: config/metrics-etl.toml: not found"
    shown = await metrics_etl("status", cwd=tmp_path, env=BARE)
    configured = await metrics_etl("status", cwd=tmp_path, env=BARE | {"METRICS_ETL_RUN_TESTS": "all"})
    assert (shown.exit_code, configured.exit_code) == (0, 0)
    assert problem in shown.stdout
    assert problem not in configured.stdout


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("calls", "18 calls of 'Checkout flow' that were exported are not there"),
        ("evals", "51 evals gone since the last run"),
        ("executions", f"the executions of 18 calls of '{default_key('Checkout flow')}' are not there"),
    ],
)
async def test_table_whose_folder_is_gone_is_not_good_until_the_next_run(tmp_path: Path, table: str, told: str) -> None:
    async with Sandbox(settled_world(names=["Checkout flow"], executions=6, calls=3)) as server:
        await export(server, tmp_path)
        good = judge(status_of(tmp_path))
        shutil.rmtree(tmp_path / "data" / table)
        gone = judge(status_of(tmp_path))
        shown = await metrics_etl("status", cwd=tmp_path, env=BARE)
        await export(server, tmp_path)

    assert (good.is_good, gone.text, gone.next_step) == (True, f"Not good: {told}", "metrics-etl run")
    assert f"problem    {told}; next: metrics-etl run" in shown.stdout.replace("\n", " ")
    assert judge(status_of(tmp_path)).is_good


async def test_what_the_index_knows_is_told_without_opening_a_file(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_TICK_NS", 0)  # as if the nights had been long ago
    await export(server, tmp_path)
    await export(server, tmp_path, night=1)
    files, opened = LocalFiles(tmp_path / "data"), list[str]()
    read = files.read

    def note(path: str, **bounds: Any) -> bytes:
        opened.append(path)
        return read(path, **bounds)

    monkeypatch.setattr(files, "read", note)
    monkeypatch.setattr(files, "open", opened.append)
    now = NIGHT + timedelta(days=2)

    from_index = read_status(files, now=now)

    assert not {path.partition("/")[0] for path in opened} & {"executions", "calls", "evals"}
    (tmp_path / "data" / INDEX).unlink()
    assert status_of(tmp_path, now=now) == replace(from_index, has_index=False)


def lose_rows(index: Path) -> None:
    pq.write_table(pq.read_table(index).slice(1), index)


def be_of_another_version(index: Path) -> None:
    rows = pq.read_table(index)
    head = json.loads((rows.schema.metadata or {})[b"head"]) | {"meaning": "that of another version"}
    pq.write_table(rows.replace_schema_metadata({"head": json.dumps(head)}), index)


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda index: index.write_bytes(b"PAR1"), lose_rows, be_of_another_version]
)
async def test_without_its_index_nothing_tells_that_a_run_test_is_gone_and_status_is_not_good(
    server: Sandbox, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    await export(server, tmp_path)
    assert judge(status_of(tmp_path)).is_good
    damage(tmp_path / "data" / INDEX)
    for table in ("executions", "calls", "evals"):
        shutil.rmtree(min((tmp_path / "data" / table).iterdir()))
    found = judge(status_of(tmp_path))
    assert (
        found.text
        == "Not good: whether rows are gone is not known, since _state/index.parquet is missing, damaged or of another version"
    )
    assert found.next_step == "metrics-etl run"
    settings = settings_for(server, tmp_path / "data")
    narrow = await job.export(
        settings.only([max(settings.run_tests, key=lambda each: each.key).name]), clock=lambda: NIGHT
    )
    assert [each.partition("index.parquet ")[2] for each in narrow.notices] == [
        "was missing, damaged or of another version: rows may have gone before it"
    ]
    assert judge(status_of(tmp_path)).text.startswith("Not good: 1 of 2 run tests incomplete since ")
    await export(server, tmp_path)
    assert judge(status_of(tmp_path)).is_good


async def test_index_without_parts_is_there(server: Sandbox, tmp_path: Path) -> None:
    for run_test in server.world.run_tests:
        run_test.executions.clear()
    await export(server, tmp_path)
    assert judge(status_of(tmp_path)).is_good


async def test_executions_that_are_gone_here_and_at_the_source_are_told(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    path = min((tmp_path / "data" / "executions").rglob("*.parquet"))
    gone = pq.ParquetFile(path).read(["execution_id"])["execution_id"].to_pylist()
    of_gone = [row["execution_id"] for row in rows_of(tmp_path, "calls") if row["execution_id"] in gone]
    calls = len(of_gone)
    path.unlink()
    told = f"the executions of {calls} calls of "
    assert judge(status_of(tmp_path)).text.startswith(f"Not good: {told}")
    for execution_id in gone:
        execution = server.world.execution(execution_id)
        assert execution
        sandbox.delete_execution(execution)

    again = await job.export(settings_for(server, tmp_path / "data"), clock=lambda: NIGHT)

    assert [
        problem
        for problem in again.problems
        if f": {len({*of_gone})} execution" in problem and "with missing rows" in problem
    ]
    assert [problem for problem in again.problems if f"rows of {len(gone) - len({*of_gone})} execution" in problem]
    assert any(each.startswith(told) for each in missing_rows(status_of(tmp_path)))


async def test_destination_that_would_end_an_export_now_is_not_good_on_the_machine_that_exports(
    server: Sandbox, tmp_path: Path
) -> None:
    await job.export(settings_for(server, tmp_path / "data"))
    write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests])
    (tmp_path / "data" / "_state" / "staging").rmdir()
    (tmp_path / "data" / "_state" / "staging").write_text("in the way")

    shown = await metrics_etl("status", cwd=tmp_path, env=BARE)
    as_json = await metrics_etl("status", "--json", cwd=tmp_path, env=BARE)
    (tmp_path / "config" / "metrics-etl.toml").unlink()
    reader = await metrics_etl("status", cwd=tmp_path, env=BARE)

    (problem,) = as_json.document["problems_now"]
    assert "staging" in problem
    assert (as_json.document["is_good"], as_json.document["next"]) == (False, "metrics-etl check")
    assert shown.stdout.startswith("Not good: an export would fail now\n")
    assert f"an export would fail now: {problem}" in " ".join(shown.stdout.split())
    assert reader.stdout.startswith("Good: ")
    assert (await metrics_etl("run", cwd=tmp_path, env=environment(server, METRICS_ETL_RUN_TESTS="all"))).exit_code == 6


async def test_mistyped_run_test_is_checked_next(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, [server.world.run_tests[0].name, "Chekout flow"])
    assert (await metrics_etl("run", cwd=tmp_path, env=environment(server))).exit_code == 3
    as_json = await metrics_etl("status", "--json", cwd=tmp_path, env=BARE)
    errors = {each["name"]: each["error"] for each in as_json.document["run_tests"]}
    assert as_json.document["next"] == "metrics-etl check"
    assert errors[server.world.run_tests[0].name] is None
    assert errors["Chekout flow"].startswith("the API knows no run test of this name")


async def test_long_name_takes_one_line_of_a_table(server: Sandbox, tmp_path: Path) -> None:
    server.world.run_tests[0].name = name = "Ångström " * 28 + "end"
    write_settings(tmp_path, [name, "x"])
    for command in ("run", "plan", "status"):
        shown = (await metrics_etl(command, cwd=tmp_path, env=environment(server))).stdout
        assert sum(line.startswith("Ångström") for line in shown.splitlines()) == (2 if command == "plan" else 1)
        assert "Ångström Ångström Ångström Ångström Ång…" in shown


async def test_runs_within_a_second_are_told_newest_first(server: Sandbox, tmp_path: Path) -> None:
    """The names of their files begin with the second and end at random."""
    second = datetime(2026, 11, 25, 2, tzinfo=UTC)
    times = [second + timedelta(milliseconds=number) for number in range(7)]
    for time in times:
        await job.export(settings_for(server, tmp_path / "data"), clock=iter([time] * 99).__next__)

    assert [run.started_at for run in status_of(tmp_path, now=times[-1]).runs] == times[::-1]


async def test_run_that_was_cut_short_leaves_no_run_test_complete(server: Sandbox, tmp_path: Path) -> None:
    server.fault = lambda request, _nth: Fault(status=401) if request.query.get("call_execution_id") else None
    await export(server, tmp_path)

    found = status_of(tmp_path)

    assert found.complete_at is None
    assert all(run_test.complete_at is None for run_test in found.run_tests)
    assert found.is_older_than(1_000_000)


async def test_where_there_is_no_dataset_it_says_so(tmp_path: Path) -> None:
    nothing = await metrics_etl("status", cwd=tmp_path, env=BARE)
    (tmp_path / "data").mkdir()
    empty = await metrics_etl("status", cwd=tmp_path, env=BARE)

    for result in (nothing, empty):
        assert result.exit_code == 6
        problem, error = result.stderr.splitlines()
        assert problem.startswith("problem: config/metrics-etl.toml: not found (looked for in ")
        assert error == (
            f"error: {tmp_path / 'data'}: no dataset there yet: create it with metrics-etl run, or fix [destination] path"
        )
    assert list(files_in(tmp_path)) == []


async def test_export_at_work_is_named_from_its_first_moment(server: Sandbox, tmp_path: Path) -> None:
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    server.fault = lambda _request, _nth: Fault(is_hanging=True)
    process = await start("run", "-q", cwd=tmp_path, env=environment(server, METRICS_ETL_RUN_TESTS="all"))
    await asked.wait()

    result = await metrics_etl("status", cwd=tmp_path, env=BARE)
    process.terminate()

    assert result.exit_code == 0
    assert f"running: pid {process.pid} on " in result.stdout
    assert (await ended(process)).exit_code == 143


async def test_status_while_an_export_rewrites_and_moves_everything(server: Sandbox, tmp_path: Path) -> None:
    """Each look sees whole files, before or after; what is gone between two looks at it is left out."""
    await export(server, tmp_path)
    done = asyncio.Event()
    looks = 0

    async def look() -> None:
        nonlocal looks
        while not done.is_set():
            found = await asyncio.to_thread(status_of, tmp_path)
            assert found.unreadable == ()
            looks += 1

    async def rewrite() -> None:
        night = 0
        while night < 5 or looks < 2:
            night += 1
            keyed = [{"name": each.name, "key": f"key-{night}-{i}"} for i, each in enumerate(server.world.run_tests)]
            await export(server, tmp_path, night=night, run_tests=keyed)
        done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(look())
        group.create_task(rewrite())
    assert looks > 1


async def test_file_that_is_gone_after_it_was_listed_is_left_out(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await export(server, tmp_path)
    before = status_of(tmp_path)
    listed = LocalFiles.list
    gone = "calls/run_test=gone/month=2026-01/part-0.parquet"
    monkeypatch.setattr(
        LocalFiles, "list", lambda files, folder: [*listed(files, folder), *([gone] if folder == "calls" else [])]
    )
    assert status_of(tmp_path) == before


async def test_damaged_file_is_named_and_the_rest_is_counted(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    rows = len(rows_of(tmp_path, "calls"))
    damaged = min((tmp_path / "data" / "calls").rglob("*.parquet"))
    lost = pq.read_metadata(damaged).num_rows
    damaged.write_bytes(damaged.read_bytes()[:-8])

    result = await metrics_etl("status", "--json", cwd=tmp_path, env=BARE)
    shown = await metrics_etl("status", cwd=tmp_path, env=BARE)

    assert (result.exit_code, shown.exit_code) == (0, 0)
    assert result.document["unreadable"] == [damaged.relative_to(tmp_path / "data").as_posix()]
    assert next(each["rows"] for each in result.document["tables"] if each["name"] == "calls") == rows - lost
    assert "cannot be read; the next run sets it aside" in shown.stdout


async def test_executions_of_which_no_row_is_left_are_missed_until_a_run_has_fetched_them(
    server: Sandbox, tmp_path: Path
) -> None:
    await export(server, tmp_path)
    rows = len(rows_of(tmp_path, "executions"))
    folder = next((tmp_path / "data" / "executions").iterdir()).name
    for table in ("executions", "calls", "evals"):
        shutil.rmtree(tmp_path / "data" / table / folder)
    left = len(rows_of(tmp_path, "executions"))

    found = await metrics_etl("status", "--json", cwd=tmp_path, env=BARE)
    shown = await metrics_etl("status", cwd=tmp_path, env=BARE)
    await export(server, tmp_path, night=1)

    assert found.document["missing_executions"] == rows - left > 0
    assert f"{rows - left} executions gone since the last run; next: metrics-etl run" in " ".join(shown.stdout.split())
    assert status_of(tmp_path).missing_executions == 0


@pytest.mark.parametrize("tables", [("evals",), ("calls", "evals"), ("executions", "calls", "evals")])
@pytest.mark.parametrize("where", ["part-9.parquet", "another month", "another folder"])
async def test_files_that_were_copied_are_not_good_until_a_run_has_mended_it(
    server: Sandbox, tmp_path: Path, tables: Sequence[str], where: str
) -> None:
    await export(server, tmp_path)
    for table in tables:
        source = min((tmp_path / "data" / table).rglob("*.parquet"))
        month, run_test = source.parent, source.parent.parent
        target = {
            "part-9.parquet": month / "part-9.parquet",
            "another month": run_test / "month=2020-01" / source.name,
            "another folder": run_test.with_name("run_test=a-copy") / month.name / source.name,
        }[where]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    copied = status_of(tmp_path)
    await export(server, tmp_path, night=1)

    assert not judge(copied).is_good
    assert copied.surplus_rows > 0
    assert (copied.doubled_executions > 0) == ("executions" in tables)
    assert status_of(tmp_path).surplus_rows == status_of(tmp_path).doubled_executions == 0


async def test_rows_that_are_gone_are_missed_although_as_many_were_copied_elsewhere(
    server: Sandbox, tmp_path: Path
) -> None:
    await export(server, tmp_path)
    gone, kept = sorted((tmp_path / "data/evals").rglob("*.parquet"))[:2]
    rows = min(pq.ParquetFile(path).metadata.num_rows for path in (gone, kept))
    pq.write_table(pq.ParquetFile(kept).read().slice(0, rows), kept.with_name("part-9.parquet"))
    pq.write_table(pq.ParquetFile(gone).read().slice(rows), gone)

    assert gone.parent.parent != kept.parent.parent
    assert (status_of(tmp_path).missing_evals, status_of(tmp_path).surplus_rows) == (rows, rows)


async def test_file_that_no_run_reads_is_not_said_to_go_by_itself(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    (tmp_path / "data" / "calls" / "notes.parquet").write_text("mine")
    shown = await metrics_etl("status", cwd=tmp_path, env=BARE)
    assert "calls/notes.parquet is not a file of this dataset; no run needs it: move it elsewhere" in " ".join(
        shown.stdout.split()
    )


@pytest.mark.parametrize(
    ("column", "value"), [("started_at", None), ("finished_at", None), ("seconds", float("nan")), ("requests", None)]
)
async def test_row_that_no_run_has_written_is_ignored_with_one_line(
    server: Sandbox, tmp_path: Path, column: str, value: Any
) -> None:
    for night in range(2):
        await export(server, tmp_path, night=night)
    path = max((tmp_path / "data" / "runs").rglob("*.parquet"))
    rows = pq.ParquetFile(path).read()
    index = rows.schema.get_field_index(column)
    pq.write_table(rows.set_column(index, rows.schema.field(index), pa.array([value], rows.schema[index].type)), path)
    (tmp_path / "data" / "_state" / "last_run.json").unlink()

    shown = await metrics_etl("status", cwd=tmp_path, env=BARE)

    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "data/runs: 1 row not written by the exporter, ignored" in " ".join(shown.stdout.split())
    assert [run.started_at for run in status_of(tmp_path).runs] == [NIGHT]


async def test_file_of_an_older_version_that_lacks_columns_is_counted(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    path = min((tmp_path / "data" / "executions").rglob("*.parquet"))
    old = pq.ParquetFile(path).read().drop_columns(["deleted_at", "exported_at", "run_test_name"])
    pq.write_table(old, path)

    found = status_of(tmp_path)

    assert next(table.rows for table in found.tables if table.name == "executions") == len(
        rows_of(tmp_path, "executions")
    )
    assert sum(run_test.executions for run_test in found.run_tests) == len(rows_of(tmp_path, "executions"))


async def test_file_of_a_newer_version_is_counted_all_the_same(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    before = status_of(tmp_path)
    path = min((tmp_path / "data" / "executions").rglob("*.parquet"))
    rows = pq.ParquetFile(path).read()
    pq.write_table(rows.append_column("mood", pa.nulls(len(rows), pa.string())), path)

    found = status_of(tmp_path)

    assert (found.run_tests, found.unreadable) == (before.run_tests, ())


async def test_link_in_the_dataset_is_refused(server: Sandbox, tmp_path: Path) -> None:
    await export(server, tmp_path)
    (tmp_path / "data" / "calls" / "run_test=link").symlink_to(tmp_path)
    with pytest.raises(DestinationError, match="symbolic link"):
        status_of(tmp_path)


async def test_one_screen_of_80_columns(server: Sandbox, tmp_path: Path) -> None:
    """On a terminal, with a name that would move its cursor, and everything that there may be to say."""
    first, second = server.world.run_tests
    first.name, second.name = "Ünïcode \x1b[2J ナイトリー" + " long" * 20, "x"
    await export(server, tmp_path)
    sandbox.delete_execution(first.executions[0])
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

    shown, lines = terminal.written, [line.rstrip() for line in terminal.lines]
    assert "\x1b[2J" not in shown
    assert r"\x1b[2J" in shown
    assert any(line.startswith("/sdk/api/v1/simulation/metrics/ ") for line in lines)
    assert any("1 deleted" in line for line in lines)
    width = max(len(line) for line in lines if not line.startswith(("problem", "dataset")))
    assert width <= 80, shown
    assert len(lines) <= 40, shown
    assert sum(line.startswith("2026-11-") for line in lines) == 7


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
