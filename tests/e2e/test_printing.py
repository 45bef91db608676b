"""Printing costs text, never the run: streams that are closed, full, gone or of another encoding."""

from pathlib import Path

import pyarrow.dataset as ds
import pytest

from etl.sandbox import Sandbox
from tests.e2e.command import Ended, environment, metrics_etl, write_settings
from tests.worlds import settled_world

NAME = "Zahlung \N{EURO SIGN} \N{SNOWMAN}"
UNUSABLE = (
    ">/dev/full",
    *(
        pytest.param(streams, marks=pytest.mark.slow)
        for streams in ("2>&1 | true", "<&- >&- 2>&-", ">&-", "2>&-", "2>/dev/full")
    ),
)
RESULTS = (
    "status",
    *(
        pytest.param(words, marks=pytest.mark.slow)
        for words in ("--version", "plan", "verify", "check", "discover", "schema")
    ),
)
NO_SPACE = "error: the output is incomplete, because writing to stdout failed: No space left on device\n"


@pytest.fixture
async def server():
    world = settled_world(run_tests=1, executions=2, calls=3)
    world.run_tests[0].name = NAME
    async with Sandbox(world) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_settings(tmp_path, [NAME])
    return tmp_path


async def printing_to(streams: str, words: str, cwd: Path, env: dict[str, str]) -> Ended:
    """The command as a shell starts it, with these redirections."""
    script = f'set -o pipefail; "$0" "$@" {streams}'
    return await metrics_etl(*words.split(), cwd=cwd, env=env, under=("bash", "-c", script))


@pytest.mark.parametrize("streams", UNUSABLE)
async def test_run_is_complete_wherever_its_text_goes(server: Sandbox, folder: Path, streams: str) -> None:
    result = await printing_to(streams, "run --verbose", folder, environment(server))

    assert result.exit_code == 0
    assert ds.dataset(folder / "data" / "calls").count_rows() == 6
    assert result.stderr.endswith(NO_SPACE) == (streams == ">/dev/full")


async def test_run_that_failed_keeps_its_exit_code_when_it_cannot_say_so(server: Sandbox, folder: Path) -> None:
    env = environment(server, FI_API_KEY="wrong")
    assert (await printing_to(">/dev/full 2>&-", "run", folder, env)).exit_code == 4


@pytest.mark.parametrize("words", ["load", pytest.param("report", marks=pytest.mark.slow)])
async def test_work_that_is_done_has_not_failed_where_its_text_cannot_be_written(
    server: Sandbox, folder: Path, words: str
) -> None:
    env = environment(server, METRICS_ETL_WAREHOUSE__URL=f"duckdb:///{folder}/warehouse.duckdb")
    await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))

    result = await printing_to(">/dev/full", words, folder, env)

    assert (result.exit_code, result.stderr.splitlines(keepends=True)[-1]) == (0, NO_SPACE)


@pytest.mark.parametrize("words", RESULTS)
async def test_result_that_cannot_be_written_is_a_destination_that_failed(
    server: Sandbox, folder: Path, words: str
) -> None:
    await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))

    full = await printing_to(">/dev/full", words, folder, environment(server))
    gone = await printing_to("| true", words, folder, environment(server))

    assert (full.exit_code, full.stderr) == (6, NO_SPACE)
    assert (gone.exit_code, gone.stderr) == (0, "")


@pytest.mark.parametrize(
    "words", ["run --verbose", *(pytest.param(each, marks=pytest.mark.slow) for each in ("status", "discover"))]
)
async def test_name_that_the_locale_cannot_encode_is_escaped(server: Sandbox, folder: Path, words: str) -> None:
    env = environment(server, LC_ALL="C", PYTHONIOENCODING="ascii")
    await metrics_etl("run", "--quiet", cwd=folder, env=environment(server))

    result = await metrics_etl(*words.split(), cwd=folder, env=env)

    assert (result.exit_code, (result.stdout + result.stderr).isascii()) == (0, True)
    assert r"Zahlung \u20ac \u2603" in result.stdout
