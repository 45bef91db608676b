"""``metrics-etl check``: one line for each thing that an export needs, and the exit code that it would end with."""

from pathlib import Path

import pytest

from etl.pipeline.preflight import Subject
from etl.sandbox import Sandbox
from tests.e2e.command import Ended, environment, metrics_etl, names, write_settings
from tests.worlds import a_sandbox

SUBJECTS = [each.value for each in Subject if each is not Subject.WAREHOUSE]  # none is named here
server = a_sandbox(run_tests=3, executions=1, calls=1)


def outcomes(result: Ended) -> dict[str, str]:
    return {check["subject"]: check["outcome"] for check in result.document["checks"]}


def problem(result: Ended) -> str:
    (found,) = (check["detail"] for check in result.document["checks"] if check["outcome"] == "problem")
    return str(found)


def times(folder: Path) -> dict[Path, int]:
    """When each file was changed last; of a folder, only that it is there."""
    return {path: path.lstat().st_mtime_ns if path.is_file() else 0 for path in folder.rglob("*")}


async def test_all_is_well_for_one_request_and_without_a_trace(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, names(server))

    result = await metrics_etl("check", cwd=tmp_path, env=environment(server))

    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.startswith(f"ok       {subject} ") for line, subject in zip(lines, SUBJECTS, strict=True)] == [
        True
    ] * 7
    assert lines[1].endswith(" answers; 1 request sent")
    assert "3 run tests found" in lines[4]
    assert "does not exist yet, but can be created" in lines[5]
    assert len(server.requests) == 1
    assert list(times(tmp_path)) == [tmp_path / "config", tmp_path / "config" / "metrics-etl.toml"]


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
    assert details["run tests"] == "all 3 run tests that the key sees: 'Checkout flow', 'Refund chat' and 1 more"
    assert "/data can be written, " in details["destination"]
    assert all(set(check) == {"subject", "outcome", "detail", "exit_code"} for check in result.document["checks"])


@pytest.mark.parametrize(
    ("changes", "subject", "code", "words"),
    [
        ({"METRICS_ETL_API__CONCURRENCY": "0"}, "settings", 2, "METRICS_ETL_API__CONCURRENCY must be at least 1"),
        ({"FI_API_KEY": None}, "key", 2, "there is no key. Set FI_API_KEY"),
        ({"FI_API_KEY": "wrong-canary"}, "key", 4, "Check FI_API_KEY and FI_SECRET_KEY or their files"),
        ({"FI_BASE_URL": "http://127.0.0.1:9"}, "server", 5, "connection refused. Check the network, then [api]"),
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
    assert words in run.stderr, "a quiet run that failed ends with a line"
    assert "canary" not in result.stdout + result.stderr
    assert list(outcomes(result)) == SUBJECTS
