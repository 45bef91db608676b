"""``metrics-etl check``: one line for each thing that an export needs, and the exit code that it would end with."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.errors import ExitCode
from etl.model.records import METRICS, RUN_TESTS
from etl.pipeline.preflight import Check, Subject, exit_code
from etl.sandbox import Fault, Sandbox
from tests.e2e.command import Ended, ended, environment, metrics_etl, start, write_settings
from tests.worlds import settled_world

SUBJECTS = [each.value for each in Subject if each is not Subject.WAREHOUSE]  # none is named here


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=3, executions=1, calls=1)) as running:
        yield running


def outcomes(result: Ended) -> dict[str, str]:
    return {check["subject"]: check["outcome"] for check in result.document["checks"]}


def problem(result: Ended) -> str:
    (found,) = (check["detail"] for check in result.document["checks"] if check["outcome"] == "problem")
    return str(found)


def times(folder: Path) -> dict[Path, int]:
    """When each file was changed last."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def names(server: Sandbox) -> list[str]:
    return [run_test.name for run_test in server.world.run_tests]


def test_what_must_be_fixed_first_gives_the_exit_code() -> None:
    checks = [
        Check(Subject.LOCK, "", ExitCode.LOCK_HELD),
        Check(Subject.DESTINATION, "", ExitCode.DESTINATION_FAILED),
        Check(Subject.SERVER, "", ExitCode.SOURCE_UNAVAILABLE),
    ]
    assert exit_code(checks) == 5
    assert exit_code([Check(Subject.LOCK, "held", ExitCode.LOCK_HELD), Check(Subject.KEY, "fine")]) == 75
    assert exit_code([]) == 0


async def test_all_is_well_for_one_request_and_without_a_trace(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, names(server))

    result = await metrics_etl("check", cwd=tmp_path, env=environment(server))

    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.startswith(f"ok       {subject} ") for line, subject in zip(lines, SUBJECTS, strict=True)] == [
        True
    ] * 7
    assert lines[1].endswith(" answers: 1 request")
    assert "3 of 3 exist" in lines[4]
    assert "does not exist yet, but can be created" in lines[5]
    assert len(server.requests) == 1
    assert list(times(tmp_path)) == [tmp_path / "config" / "metrics-etl.toml"]


async def test_dataset_that_is_there_stays_as_it_is(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, "all")
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    before = times(tmp_path)

    result = await metrics_etl("check", "--json", cwd=tmp_path, env=environment(server))

    assert result.exit_code == 0
    assert result.document["exit_code"] == 0
    assert outcomes(result) == dict.fromkeys(SUBJECTS, "ok")
    assert times(tmp_path) == before
    details = {check["subject"]: check["detail"] for check in result.document["checks"]}
    assert details["run tests"] == "all 3 that the key sees: 'Checkout flow', 'Refund chat' and 1 more"
    assert "/data can be written, " in details["destination"]
    assert all(set(check) == {"subject", "outcome", "detail", "exit_code"} for check in result.document["checks"])


async def test_folder_without_a_dataset_is_told_so(server: Sandbox, tmp_path: Path) -> None:
    """As a volume looks that is not mounted."""
    write_settings(tmp_path, "all")
    (tmp_path / "data").mkdir()
    result = await metrics_etl("check", cwd=tmp_path, env=environment(server))
    assert (result.exit_code, "/data has no dataset yet, but can be written, " in result.stdout) == (0, True)


async def test_rate_limit_is_told_where_it_is_known(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1), rate_limit=300) as server:
        write_settings(tmp_path, "all")
        told = await metrics_etl("check", cwd=tmp_path, env=environment(server))
        limits = {"METRICS_ETL_API__REQUESTS_PER_MINUTE": "50", "METRICS_ETL_API__QUOTA_SHARE": "0.5"}
        configured = await metrics_etl("check", cwd=tmp_path, env=environment(server, **limits))

    assert "300 requests a minute, as the API and the settings allow" in told.stdout
    assert "25 requests a minute, as the API and the settings allow" in configured.stdout


async def test_unknown_run_tests_are_named_with_what_may_be_meant(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, [names(server)[0], "Checkout floe", "Nothing like it"])

    result = await metrics_etl("check", cwd=tmp_path, env=environment(server))

    assert result.exit_code == 2
    assert (
        "problem  run tests    'Checkout floe': the API knows no run test of this name: did you mean 'Checkout flow'?\n"
        "problem  run tests    'Nothing like it': the API knows no run test of this name: metrics-etl discover lists them\n"
    ) in result.stdout
    assert len(server.requests) == 3


async def test_run_test_beyond_the_first_page_is_asked_for_by_name(tmp_path: Path) -> None:
    async with Sandbox(settled_world(run_tests=3, executions=1, calls=1), max_limit=1) as server:
        write_settings(tmp_path, names(server))
        result = await metrics_etl("check", "--json", cwd=tmp_path, env=environment(server))
        assert (server.count(RUN_TESTS), server.count(METRICS)) == (1, 2)

    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("changes", "subject", "code", "words"),
    [
        ({"METRICS_ETL_API__CONCURRENCY": "0"}, "settings", 2, "METRICS_ETL_API__CONCURRENCY must be at least 1"),
        ({"FI_API_KEY": None}, "key", 2, "no key: set FI_API_KEY"),
        ({"FI_API_KEY": "wrong-canary"}, "key", 4, "check FI_API_KEY and FI_SECRET_KEY"),
        ({"FI_BASE_URL": "http://127.0.0.1:9"}, "server", 5, "connection refused; check [api] base_url or FI_BASE_URL"),
        ({"METRICS_ETL_DESTINATION__PATH": "config/metrics-etl.toml"}, "destination", 6, "Not a directory"),
    ],
    ids=["settings", "no key", "wrong key", "refused", "a file"],
)
async def test_one_problem_is_named_with_the_exit_code_of_an_export(
    server: Sandbox, tmp_path: Path, changes: dict[str, str | None], subject: str, code: int, words: str
) -> None:
    write_settings(tmp_path, names(server))
    env = environment(server) | {key: value for key, value in changes.items() if value is not None}
    env = {key: value for key, value in env.items() if changes.get(key, "") is not None}

    result = await metrics_etl("check", "--json", cwd=tmp_path, env=env)
    run = await metrics_etl("run", "--quiet", cwd=tmp_path, env=env | {"METRICS_ETL_API__MAX_TRIES": "1"})

    assert (result.exit_code, run.exit_code) == (code, code)
    assert outcomes(result)[subject] == "problem"
    assert words in problem(result)
    assert "canary" not in result.stdout + result.stderr
    assert list(outcomes(result)) == SUBJECTS


async def test_export_at_work_is_named_and_goes_on(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, names(server))
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    server.fault = lambda request, _nth: Fault(is_hanging=True) if request.path != RUN_TESTS else None
    process = await start("run", "--quiet", cwd=tmp_path, env=environment(server))
    await asked.wait()

    result = await metrics_etl("check", "--json", cwd=tmp_path, env=environment(server))
    process.terminate()

    assert result.exit_code == 75
    assert outcomes(result) == dict.fromkeys(SUBJECTS, "ok") | {"lock": "problem"}
    assert f"(pid {process.pid} on " in problem(result)
    assert (await ended(process)).exit_code == 143
    assert (await metrics_etl("check", cwd=tmp_path, env=environment(server))).exit_code == 0


def part_of(data: Path) -> Path:
    return next((data / "calls").rglob("*.parquet"))


def part_is_a_link(data: Path) -> None:
    part = part_of(data)
    part.rename(data / "moved")
    part.symlink_to(data / "moved")


def part_is_of_a_newer_version(data: Path) -> None:
    pq.write_table(pa.table({"call_execution_id": ["a"], "new": [1]}), part_of(data))


@pytest.mark.parametrize(
    "obstruct",
    [part_is_a_link, part_is_of_a_newer_version],
)
async def test_what_stops_a_run_before_its_first_request_is_a_problem(
    server: Sandbox, tmp_path: Path, obstruct: Callable[[Path], None]
) -> None:
    write_settings(tmp_path, names(server))
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    obstruct(tmp_path / "data")

    result = await metrics_etl("check", "--json", cwd=tmp_path, env=environment(server))
    run = await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))

    assert (result.exit_code, run.exit_code) == (6, 6)
    assert outcomes(result)["destination"] == "problem"
    assert problem(result).startswith(f"{tmp_path}/data/")
