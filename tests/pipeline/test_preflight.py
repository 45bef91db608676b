"""What a check finds, in which order it is to be fixed, and what it requests. As a command: tests/e2e/test_check.py."""

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from etl import read_table, status
from etl.errors import ConfigurationError, ExitCode
from etl.files.open import open_files
from etl.model.records import METRICS, RUN_TESTS
from etl.pipeline import job
from etl.pipeline.preflight import Check, Subject, check, exit_code
from etl.sandbox import Fault, Sandbox
from etl.settings import Settings
from tests.e2e.command import environment, metrics_etl, names, write_settings
from tests.worlds import a_sandbox, settled_world


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with the keys in the environment."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


server = a_sandbox(run_tests=3, executions=1, calls=1)


async def checked(server: Sandbox, run_tests: object, *lines: str) -> dict[Subject, Check]:
    """By subject; of run tests the last."""
    path = write_settings(Path(), run_tests, "[api]", f'base_url = "{server.base_url}"', "max_tries = 1", *lines)
    return {each.subject: each for each in await check(path, on_hold=lambda _seconds: None)}


async def exported() -> None:
    await job.export(Settings.load())


def test_what_must_be_fixed_first_gives_the_exit_code() -> None:
    checks = [
        Check(Subject.LOCK, "", ExitCode.LOCK_HELD),
        Check(Subject.DESTINATION, "", ExitCode.DESTINATION_FAILED),
        Check(Subject.SERVER, "", ExitCode.SOURCE_UNAVAILABLE),
    ]
    assert exit_code(checks) == 5
    assert exit_code([Check(Subject.LOCK, "held", ExitCode.LOCK_HELD), Check(Subject.KEY, "fine")]) == 75
    assert exit_code([]) == 0


async def test_rate_limit_is_told_where_it_is_known() -> None:
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1), rate_limit=300) as server:
        told = await checked(server, "all")
        configured = await checked(server, "all", "requests_per_minute = 50", "quota_share = 0.5")
    assert told[Subject.RATE_LIMIT].detail == "300 requests a minute, as the API and the settings allow"
    assert configured[Subject.RATE_LIMIT].detail == "25 requests a minute, as the API and the settings allow"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Checkout floe", "Did you mean 'Checkout flow'?"), ("Nothing like it", "See metrics-etl discover")],
)
async def test_unknown_run_test_is_named_with_what_may_be_meant(server: Sandbox, name: str, hint: str) -> None:
    found = (await checked(server, [names(server)[1], name]))[Subject.RUN_TESTS]
    assert (found.exit_code, found.detail) == (2, f"{name!r}: the API has no run test with this name. {hint}")


async def test_mistyped_run_test_gets_the_same_hint_from_every_command(server: Sandbox) -> None:
    """Law 9: what is found has one text, whoever finds it."""
    right, *others = names(server)
    wrong = right.lower().replace("o", "")
    told = [(await checked(server, [wrong, *others]))[Subject.RUN_TESTS].detail]
    settings = Settings.load()
    told += (await job.export(settings)).problems
    exported = read_table(settings.destination.path, "executions")
    told += (await job.plan(settings)).problems
    assert told == [f"'{wrong}': the API has no run test with this name. Did you mean '{right}'?"] * 3

    write_settings(Path(), [right, *others], "[api]", f'base_url = "{server.base_url}"')
    with pytest.raises(ConfigurationError, match=f"Did you mean '{right}'"):
        Settings.load().only([wrong])
    stored = exported["run_test_name"][0]
    with pytest.raises(ConfigurationError, match=f"Did you mean '{stored}'"):
        read_table(settings.destination.path, "executions", run_tests=stored.lower().replace("r", ""))


async def test_mistyped_run_test_of_one_run_is_refused_and_harms_no_verdict(server: Sandbox) -> None:
    write_settings(Path(), "all", "[api]", f'base_url = "{server.base_url}"', "max_tries = 1")
    settings = Settings.load()
    assert (await job.export(settings)).exit_code == 0
    wrong, right = names(server)[0].lower(), names(server)[0]
    refused = await metrics_etl("run", "--run-test", wrong, cwd=Path(), env=environment())
    text = f"error: --run-test '{wrong}': the API has no run test with this name. Did you mean '{right}'?"
    assert (refused.exit_code, refused.stderr.strip()) == (2, text)
    assert status(settings).verdict.is_good

    server.fault = lambda request, nth: (
        Fault(status=503) if nth == 2 and wrong in unquote_plus(request.target) else None
    )
    assert (await job.export(settings.only([wrong]))).exit_code == 3  # what the API did not say, the run found out


async def test_name_that_is_configured_too_is_not_what_was_meant(server: Sandbox) -> None:
    """As after a run test was renamed, or deleted, and another one has nearly its name."""
    server.world.run_tests[0].name, server.world.run_tests[1].name = "Agent 15", "Agent 5, new"
    told = [(await checked(server, ["Agent 5", "Agent 15"]))[Subject.RUN_TESTS].detail]
    told += (await job.export(Settings.load())).problems
    assert told == ["'Agent 5': the API has no run test with this name. Did you mean 'Agent 5, new'?"] * 2
    told = [(await checked(server, ["Agent 5", "Agent 15", "Agent 5, new"]))[Subject.RUN_TESTS].detail]
    assert told == ["'Agent 5': the API has no run test with this name. See metrics-etl discover"]


@pytest.mark.parametrize("status", [403, 503])
async def test_hint_that_cannot_be_had_costs_the_run_nothing(server: Sandbox, status: int) -> None:
    server.fault = lambda request, _nth: Fault(status=status) if request.path == RUN_TESTS else None
    wrong = [f"Nobody {number}" for number in range(9)]
    write_settings(Path(), [*names(server), *wrong], "[api]", f'base_url = "{server.base_url}"', "max_tries = 1")
    summary = await job.export(Settings.load())
    assert (summary.exit_code, summary.rows["executions"]) == (3, 3)
    assert sorted(summary.problems) == [f"'{name}': the API has no run test with this name" for name in wrong]


async def test_run_test_beyond_the_first_page_is_asked_for_by_name() -> None:
    async with Sandbox(settled_world(run_tests=3, executions=1, calls=1), max_limit=1) as server:
        found = await checked(server, names(server))
        assert (server.count(RUN_TESTS), server.count(METRICS)) == (1, 2)
    assert exit_code([*found.values()]) == 0


@pytest.mark.parametrize(
    ("page_limit", "seen"),
    [(4, "3 run tests that the key sees: 'A', 'B' and 1"), (2, "4 run tests that the key sees: 'A', 'B' and 2")],
)
async def test_names_that_the_key_sees_are_counted_once_each(page_limit: int, seen: str) -> None:
    """As far as the first page tells."""
    async with Sandbox(settled_world(run_tests=4, executions=1, calls=1)) as server:
        for run_test, name in zip(server.world.run_tests, "CCAB", strict=True):
            run_test.name = name
        found = await checked(server, "all", f"page_limit = {page_limit}")
    assert found[Subject.RUN_TESTS].detail == f"all {seen} more"


async def test_list_of_run_tests_that_fails_matters_only_where_all_are_exported(server: Sandbox) -> None:
    server.fault = lambda request, _nth: Fault(status=500) if request.path == RUN_TESTS else None
    assert exit_code([*(await checked(server, names(server))).values()]) == 0
    assert exit_code([*(await checked(server, "all")).values()]) == 5


async def test_warehouse_rehearses_a_load_unless_one_may_be_at_work(server: Sandbox, tmp_path: Path) -> None:
    lines = "[warehouse]", f'url = "duckdb://{tmp_path}/w.duckdb"'
    warehouse = f"duckdb://{tmp_path}/w.duckdb, schema simulation_metrics"
    told = (await checked(server, names(server), *lines))[Subject.WAREHOUSE]
    assert (told.outcome, told.detail) == ("ok", f"{warehouse} can be loaded, and holds 0 executions")
    assert not (tmp_path / "w.duckdb").exists()
    await exported()
    before = (tmp_path / "w.duckdb").read_bytes()
    assert (await checked(server, names(server), *lines))[Subject.WAREHOUSE].detail.endswith(
        "loaded, and holds 3 executions"
    )
    with open_files(str(tmp_path / "data")).lock(datetime.now(UTC)):
        told = (await checked(server, names(server), *lines))[Subject.WAREHOUSE]
    assert (told.outcome, told.detail) == ("ok", f"{warehouse} can be read, and holds 3 executions")
    assert (tmp_path / "w.duckdb").read_bytes() == before


async def test_export_at_work_is_named_and_the_rest_is_checked(server: Sandbox, tmp_path: Path) -> None:
    await checked(server, names(server))
    await exported()
    with open_files(str(tmp_path / "data")).lock(datetime.now(UTC)):
        found = await checked(server, names(server))
    assert {each.subject for each in found.values() if each.exit_code} == {Subject.LOCK}
    assert found[Subject.LOCK].exit_code == 75
