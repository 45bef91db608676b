"""What a check finds, in which order it is to be fixed, and what it requests. As a command: tests/e2e/test_check.py."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest

from etl.errors import ExitCode
from etl.load.files.open import open_files
from etl.model.records import METRICS, RUN_TESTS
from etl.pipeline import job
from etl.pipeline.preflight import Check, Subject, check, exit_code
from etl.sandbox import Fault, Sandbox, rename_run_test
from etl.settings import Settings
from tests.e2e.command import environment, write_settings
from tests.worlds import settled_world


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with the keys in the environment."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=3, executions=1, calls=1)) as running:
        yield running


def names(server: Sandbox) -> list[str]:
    return [run_test.name for run_test in server.world.run_tests]


async def checked(server: Sandbox, run_tests: object, *lines: str) -> dict[Subject, Check]:
    """By subject; of run tests the last."""
    path = write_settings(Path(), run_tests, "[api]", f'base_url = "{server.base_url}"', "max_tries = 1", *lines)
    return {each.subject: each for each in await check(path, on_hold=lambda _seconds: None)}


async def exported() -> None:
    await job.export(Settings.load())


def test_what_must_be_mended_first_gives_the_exit_code() -> None:
    checks = [
        Check(Subject.LOCK, "", ExitCode.LOCK_HELD),
        Check(Subject.DESTINATION, "", ExitCode.DESTINATION_FAILED),
        Check(Subject.SERVER, "", ExitCode.SOURCE_UNAVAILABLE),
    ]
    assert exit_code(checks) == 5
    assert exit_code([Check(Subject.LOCK, "held", ExitCode.LOCK_HELD), Check(Subject.KEY, "fine")]) == 75
    assert (
        exit_code([Check(Subject.RUN_TESTS, "", ExitCode.PARTIAL), Check(Subject.LOCK, "", ExitCode.LOCK_HELD)]) == 75
    )
    assert exit_code([]) == 0


async def test_rate_limit_is_told_where_it_is_known() -> None:
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1), rate_limit=300) as server:
        told = await checked(server, "all")
        configured = await checked(server, "all", "requests_per_minute = 50", "quota_share = 0.5")
    assert told[Subject.RATE_LIMIT].detail == "300 requests a minute, as the API and the settings allow"
    assert configured[Subject.RATE_LIMIT].detail == "25 requests a minute, as the API and the settings allow"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Checkout floe", "did you mean 'Checkout flow'?"), ("Nothing like it", "metrics-etl discover lists them")],
)
async def test_unknown_run_test_is_named_with_what_may_be_meant(server: Sandbox, name: str, hint: str) -> None:
    found = (await checked(server, [names(server)[0], name]))[Subject.RUN_TESTS]
    assert (found.exit_code, found.detail) == (2, f"{name!r}: the API knows no run test of this name: {hint}")


async def test_run_test_beyond_the_first_page_is_asked_for_by_name() -> None:
    async with Sandbox(settled_world(run_tests=3, executions=1, calls=1), max_limit=1) as server:
        found = await checked(server, names(server))
        assert (server.count(RUN_TESTS), server.count(METRICS)) == (1, 2)
    assert exit_code([*found.values()]) == 0


async def test_named_run_tests_do_without_the_list_as_an_export_does(server: Sandbox) -> None:
    server.fault = lambda request, _nth: Fault(status=500) if request.path == RUN_TESTS else None
    named, everything = await checked(server, names(server)), await checked(server, "all")
    assert [exit_code([*found.values()]) for found in (named, everything)] == [0, 5]


async def test_without_settings_the_destination_is_looked_at_all_the_same() -> None:
    found = {each.subject: each for each in await check(None, on_hold=lambda _seconds: None)}
    assert "config/metrics-etl.toml: not found" in found[Subject.SETTINGS].detail
    assert (found[Subject.RUN_TESTS].outcome, found[Subject.DESTINATION].outcome) == ("skipped", "ok")


async def test_name_that_the_api_cannot_list_is_a_problem(server: Sandbox) -> None:
    server.world.run_tests[1].name = " padded "
    found = await checked(server, "all")
    assert (found[Subject.RUN_TESTS].exit_code, "' padded '" in found[Subject.RUN_TESTS].detail) == (3, True)


async def test_export_at_work_is_named_and_the_rest_is_checked(server: Sandbox, tmp_path: Path) -> None:
    await checked(server, names(server))
    await exported()
    with open_files(str(tmp_path / "data")).lock(datetime.now(UTC)):
        found = await checked(server, names(server))
    assert {each.subject for each in found.values() if each.exit_code} == {Subject.LOCK}
    assert found[Subject.LOCK].exit_code == 75


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Fault(status=403, body=b'{"status": false, "message": "Forbidden"}'), 4), (Fault(status=502), 5)],
)
async def test_look_up_of_what_is_stored_that_fails_ends_a_check_as_it_would_a_run(
    server: Sandbox, fault: Fault, code: int
) -> None:
    await checked(server, "all")
    await exported()
    for number, run_test in enumerate(server.world.run_tests):
        rename_run_test(run_test, f"New name {number}")
    server.fault = lambda request, _nth: fault if request.path != RUN_TESTS else None
    assert exit_code([*(await checked(server, "all")).values()]) == code


async def test_waiting_for_the_rate_limit_is_told_and_is_not_the_servers_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request has to wait for the next window."""
    monkeypatch.setattr("etl.extract.gate._TOLD_HOLD_SECONDS", 0.0)
    held: list[float] = []
    world = settled_world(run_tests=3, executions=1, calls=1)
    async with Sandbox(world, max_limit=1, rate_limit=1, rate_window_seconds=1.0) as server:
        path = write_settings(Path(), names(server), "[api]", f'base_url = "{server.base_url}"')
        began_at = monotonic()
        checks = await check(path, on_hold=held.append)
        elapsed = monotonic() - began_at

    assert len(held) >= 1
    (detail,) = (each.detail for each in checks if each.subject is Subject.SERVER)
    shown = re.search(r"answers: 3 requests in ([\d.]+) s, plus (\d+) s of waiting for the rate limit$", detail)
    assert shown
    assert float(shown[1]) <= elapsed - sum(held) + 0.01
    assert int(shown[2]) == round(sum(held))
