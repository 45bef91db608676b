"""Files that somebody else put into the dataset: no command hangs, takes all memory, or calls them a bug."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import etl
from etl.files.names import IDENTITY, LAST_RUN, LOCK
from etl.model.schema import CALLS
from etl.sandbox import Sandbox
from tests.e2e.command import Ended, environment, metrics_etl, write_settings
from tests.worlds import a_sandbox

COMMANDS = ("status", "verify", "check", "run")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def sparse_terabyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def text(content: str) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        path.write_text(content)

    return plant


def bomb(path: Path) -> None:
    """A hundred kilobytes that unpack to a million rows."""
    rows = 1_000_000
    columns = [pa.nulls(rows, each.type) if each.nullable else pa.repeat("x", rows) for each in CALLS.arrow_schema]
    pq.write_table(pa.table(columns, schema=CALLS.arrow_schema), path)


server = a_sandbox(run_tests=1, executions=2, calls=3)


@pytest.fixture
async def exported(server: Sandbox, tmp_path: Path) -> Path:
    write_settings(tmp_path, [server.world.run_tests[0].name])
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    return tmp_path


async def each_command(server: Sandbox, folder: Path) -> dict[str, Ended]:
    results = {name: await metrics_etl(name, cwd=folder, env=environment(server)) for name in COMMANDS}
    shown = "".join(result.stdout + result.stderr for result in results.values())
    assert "a bug" not in shown
    return results


def exit_codes(results: dict[str, Ended]) -> dict[str, int]:
    return {name: result.exit_code for name, result in results.items()}


@pytest.mark.parametrize("document", [LAST_RUN, IDENTITY])
@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(pipe, id="pipe"),
        pytest.param(text('{"last_complete_at": {"a": 1e400}}'), id="number", marks=pytest.mark.slow),
        pytest.param(text("nothing that is JSON"), id="text", marks=pytest.mark.slow),
    ],
)
async def test_document_that_cannot_be_read_is_set_aside_by_the_next_run(
    server: Sandbox, exported: Path, plant: Callable[[Path], None], document: str
) -> None:
    plant(exported / "data" / document)

    results = await each_command(server, exported)

    for name, words in (("status", "ignored"), ("run", "moved to _state/quarantine/0001-")):
        shown = " ".join(results[name].stdout.split())
        assert (shown.count(f"/data/{document} is damaged"), shown.count(words)) == (1, 1), name
    assert exit_codes(results) == dict.fromkeys(COMMANDS, 0)
    after = (await metrics_etl("status", cwd=exported, env=environment())).stdout
    assert "ignored" not in after
    assert "1 damaged file in" in after


async def test_what_is_no_lock_is_refused_in_one_line(server: Sandbox, exported: Path) -> None:
    lock = exported / "data" / LOCK
    pipe(lock)

    results = await each_command(server, exported)

    assert (results["status"].exit_code, results["run"].exit_code) == (0, 6)
    assert results["run"].stderr.startswith(f"error: {lock} cannot")
    assert results["run"].stderr.count("\n") == 1


@pytest.mark.parametrize("plant", [bomb, pytest.param(sparse_terabyte, marks=pytest.mark.slow)])
async def test_part_that_is_too_large_is_fetched_again(
    server: Sandbox, exported: Path, plant: Callable[[Path], None]
) -> None:
    part = next((exported / "data" / "calls").rglob("*.parquet"))
    part.unlink()
    plant(part)

    results = await each_command(server, exported)

    assert [result.exit_code for result in results.values()] == [0, 3, 0, 3]
    assert "cannot be read" in results["status"].stdout
    assert "unreadable: " in results["verify"].stdout
    assert ds.dataset(exported / "data" / "calls").count_rows() == 6


async def test_folder_in_place_of_a_part_is_refused_before_anything_is_requested(
    server: Sandbox, exported: Path
) -> None:
    part = next((exported / "data" / "calls").rglob("*.parquet"))
    part.unlink()
    part.mkdir()
    asked: list[object] = []

    results = await each_command(server, exported)
    server.on_request = asked.append
    refused = [await metrics_etl(name, cwd=exported, env=environment(server)) for name in ("run", "plan")]

    words = f"{part} is a folder, but should be a file. Move it out of the dataset"
    assert words in results["check"].stdout
    assert (results["check"].exit_code, results["verify"].exit_code) == (6, 3)
    assert "is a folder, but should be a file. Move it out of the dataset" in results["verify"].stdout
    assert ([result.exit_code for result in refused], asked) == ([6, 6], [])
    assert all(words in result.stderr for result in refused)


async def test_what_no_reader_takes_for_data_stops_nobody_and_verify_names_it(server: Sandbox, exported: Path) -> None:
    """A file manager's or an editor's own file.

    Some readers take a whole folder, whatever its files are called.

    What begins with a dot does not matter, wherever it lies and whatever it is: no tool takes it for data on purpose.
    """
    part = next((exported / "data" / "calls").rglob("*.parquet"))
    run = next((exported / "data" / "runs").rglob("*.parquet"))
    others = (part.with_name("Thumbs.db"), part.with_name("part-0.parquet~"))
    for path in (
        *others,
        run.with_name("._run.parquet"),
        part.with_name("._part-0.parquet"),
        part.parents[2] / "._calls",
    ):
        path.write_bytes(b"theirs")
    part.with_name(".Trash").mkdir()
    os.mkfifo(part.with_name(".Trash") / "part-0.parquet")

    results = await each_command(server, exported)
    rows = await metrics_etl("verify", "--json", cwd=exported, env=environment())

    assert exit_codes(results) == {"status": 0, "verify": 3, "check": 0, "run": 0}
    assert results["status"].stdout.startswith("Good: ")
    assert [each["kind"] for each in rows.document["findings"]] == ["foreign_file"] * len(others)
    assert (len(etl.read_calls(exported / "data")), len(etl.read_table(exported / "data", "runs"))) == (6, 2)
