"""``metrics-etl check``: one line for each thing that an export needs, and the exit code that it would end with."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from etl.model.records import METRICS, RUN_TESTS
from etl.pipeline.preflight import Subject
from etl.sandbox import Fault, Sandbox, rename_run_test
from tests.e2e.command import Ended, ended, environment, metrics_etl, start, write_settings
from tests.worlds import settled_world

SUBJECTS = [each.value for each in Subject if each not in (Subject.WAREHOUSE, Subject.ENGINE)]  # neither is named here


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


async def test_all_is_well_for_one_request_and_without_a_trace(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, names(server))

    result = await metrics_etl("check", cwd=tmp_path, env=environment(server))

    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.startswith(f"ok       {subject} ") for line, subject in zip(lines, SUBJECTS, strict=True)] == [
        True
    ] * 7
    assert "1 request in " in lines[1]
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


async def test_named_run_tests_do_without_the_list_as_an_export_does(server: Sandbox, tmp_path: Path) -> None:
    server.fault = lambda request, _nth: Fault(status=500) if request.path == RUN_TESTS else None
    write_settings(tmp_path, names(server))
    named = await metrics_etl("check", "--json", cwd=tmp_path, env=environment(server))
    write_settings(tmp_path, "all")
    everything = await metrics_etl("check", "--json", cwd=tmp_path, env=environment(server))

    assert (named.exit_code, everything.exit_code) == (0, 5)
    assert (server.count(RUN_TESTS), server.count(METRICS)) == (2, 3)


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


async def test_without_settings_the_destination_is_looked_at_all_the_same(tmp_path: Path) -> None:
    result = await metrics_etl("check", "--json", cwd=tmp_path, env=environment())

    assert result.exit_code == 2
    assert "config/metrics-etl.toml: not found" in problem(result)
    assert outcomes(result)["destination"] == "ok"
    assert outcomes(result)["run tests"] == "skipped"


async def test_name_that_the_api_cannot_list_is_a_problem_of_the_check_as_of_the_run(
    server: Sandbox, tmp_path: Path
) -> None:
    server.world.run_tests[1].name = " padded "
    write_settings(tmp_path, "all")

    result = await metrics_etl("check", "--json", cwd=tmp_path, env=environment(server))
    run = await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))

    assert (result.exit_code, run.exit_code) == (3, 3)
    assert problem(result) == run.stderr.removesuffix("\n")


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


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        (Fault(status=403, body=b'{"status": false, "message": "Forbidden"}'), 4),
        (Fault(status=502), 5),
    ],
)
async def test_look_up_of_what_is_stored_that_fails_ends_check_as_it_would_a_run(
    server: Sandbox, tmp_path: Path, fault: Fault, exit_code: int
) -> None:
    write_settings(tmp_path, "all")
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))
    for number, run_test in enumerate(server.world.run_tests):
        rename_run_test(run_test, f"New name {number}")
    server.fault = lambda request, _nth: fault if request.path != RUN_TESTS else None
    result = await metrics_etl("check", "--json", cwd=tmp_path, env=environment(server))
    assert (result.exit_code, result.stderr) == (exit_code, "")
