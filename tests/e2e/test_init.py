"""``metrics-etl init``, on a terminal and without one: what it asks, and that it writes all or nothing."""

import re
import signal
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

import etl
from etl.sandbox import Sandbox
from tests.e2e.command import Ended, environment, metrics_etl, shell
from tests.e2e.terminal import Terminal
from tests.support import API_KEY, SECRET_KEY
from tests.worlds import a_sandbox, settled_world

KEYLESS: dict[str, str | None] = {"FI_API_KEY": None, "FI_SECRET_KEY": None, "TERM": "xterm-256color"}
HOSTILE = ['quo"te \\ back', "line\nbreak \x1b[2J\x7f", "Ünïcode 🎉 ]\n[api]", "'''", "$HOME # %d"]
SPECIAL = ("it's \\ $HOME %", '`id` "#!')  # as keys may be
server = a_sandbox(run_tests=3, executions=2, calls=2)


@pytest.fixture
async def guarded():
    async with Sandbox(
        settled_world(run_tests=3, executions=2, calls=2), api_key=SPECIAL[0], secret_key=SPECIAL[1]
    ) as running:
        yield running


def entries(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def run_tests_in(dataset: Path) -> set[str]:
    return set(etl.read_table(dataset, "calls").run_test_name)


async def at_night(output: str, folder: Path, **variables: str) -> Ended:
    """What becomes of the line that was printed for cron: in another folder, with almost no environment."""
    (line,) = re.findall(r"^cron +0 2 \* \* \* (.+?)\r?$", output, re.MULTILINE)
    command = re.split(r"(?<!\\)%", line)[0].replace("\\%", "%")  # as cron reads it
    return await shell("sh", "-c", command, cwd=folder, env={"PATH": "/usr/bin:/bin", **variables})


async def test_a_newcomer_answers_questions_and_has_rows(guarded: Sandbox, tmp_path: Path) -> None:
    """An empty folder with a name that a shell, cron and TOML would take apart."""
    names = [run_test.name for run_test in guarded.world.run_tests]
    folder = tmp_path / 'it\'s 100% "new"'
    folder.mkdir()
    terminal = Terminal("init", cwd=folder, env=environment(**KEYLESS), columns=200)

    await terminal.answer("Address of the API [https://api.futureagi.com]: ", "no address\n")
    await terminal.answer("base_url must be an https:// address", f"{guarded.base_url}\n")
    await terminal.answer("API key (not shown): ", "canary-wrong\n")
    await terminal.answer("Secret key (not shown): ", f"{SPECIAL[1]}\n")
    await terminal.answer("the API refused the key", "")
    await terminal.answer(f"Address of the API [{guarded.base_url}]: ", "\n")
    await terminal.answer("API key (not shown): ", f"{SPECIAL[0]}\n")
    await terminal.answer("Secret key (not shown): ", f"{SPECIAL[1]}\n")
    await terminal.answer("or all) [all]: ", "1,9\n")
    await terminal.answer("'9' is not a number from 1 to 3", "3 1\n")
    await terminal.answer("s3://BUCKET/FOLDER) [data]: ", "ftp://host/data\n")
    await terminal.answer("path must be a folder, or s3://BUCKET/FOLDER", "\n")
    await terminal.answer("or all) [all]: ", "7\n")
    await terminal.answer("'7' is not a date", "2026-10-27\n")
    await terminal.answer("or none) [none]: ", "duckdb://metrics.duckdb\n")
    await terminal.answer("[Y/n]: ", "\n")
    assert await terminal.ended() == 0

    listed = re.findall(r'^ +[123]  "(.+?)", +# folder .', terminal.written, re.MULTILINE)
    assert sorted(listed) == sorted(names)
    written = files(folder)
    assert set(written) == {"config/metrics-etl.toml", "keys.env"}
    assert tomllib.loads(written["config/metrics-etl.toml"]) == {
        "run_tests": [listed[2], listed[0]],
        "api": {"base_url": guarded.base_url},
        "export": {"since": date(2026, 10, 27)},
        "destination": {"path": "../data"},
        "warehouse": {"url": "duckdb://../metrics.duckdb"},
    }
    assert (folder / "keys.env").stat().st_mode & 0o777 == 0o600
    said = terminal.written + written["config/metrics-etl.toml"]
    assert not [key for key in (SPECIAL[0], SPECIAL[1], "canary") if key in said]
    assert terminal.echoes
    assert any(re.match("ok +warehouse", line) for line in terminal.lines)
    chosen = [
        each for test in guarded.world.run_tests if test.name in (listed[2], listed[0]) for each in test.executions
    ]
    ages = [(datetime.now(UTC).date() - each.created_at.date()).days for each in chosen]
    counts = re.findall(r"^ +(all|90d|30d|7d)  (\d) executions?, about .+ s\r?$", terminal.written, re.MULTILINE)
    of_days = {"all": 4} | {f"{days}d": sum(age <= days for age in ages) for days in (90, 30, 7)}
    assert counts == [(answer, str(count)) for answer, count in of_days.items()]
    night = await at_night(terminal.written, tmp_path)
    assert (night.exit_code, night.stdout, night.stderr) == (0, "", "")
    rows = sum(len(each.calls) for each in chosen if each.created_at.date() >= date(2026, 10, 27))
    with duckdb.connect(folder / "metrics.duckdb", read_only=True) as warehouse:
        assert warehouse.sql("SELECT count(*) FROM simulation_metrics.calls").fetchall() == [(rows,)]


async def test_without_a_terminal_options_are_the_answers(tmp_path: Path) -> None:
    names = [argument for name in HOSTILE for argument in ("--run-test", name)]
    async with Sandbox(settled_world(run_tests=5, names=HOSTILE, executions=1, calls=1)) as hostile:
        env = environment(hostile)
        given = ("--config", "deep/er/mine.toml", "--path", "my data")
        result = await metrics_etl("init", "--yes", *names, *given, cwd=tmp_path, env=env)
        again = await metrics_etl("init", "--yes", *names, *given, cwd=tmp_path, env=env)
        night = await at_night(result.stdout, Path("/"), FI_API_KEY=API_KEY, FI_SECRET_KEY=SECRET_KEY)

    assert (result.exit_code, result.stderr, night.exit_code) == (0, "", 0), night.stderr
    assert tomllib.loads((tmp_path / "deep/er/mine.toml").read_text())["run_tests"] == HOSTILE
    assert run_tests_in(tmp_path / "my data") == set(HOSTILE)
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr == (
        "error: deep/er/mine.toml already exists and is never overwritten. Edit it, or move it away\n"
    )


async def test_keys_in_files_are_used_and_all_run_tests_are_the_default(server: Sandbox, tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    (tmp_path / "keys.env").write_text("exit 9  # of something else\n")
    for name, key in (("FI_API_KEY", API_KEY), ("FI_SECRET_KEY", SECRET_KEY)):
        (tmp_path / name).write_text(key)
        (tmp_path / name).chmod(0o600)
        variables[f"{name}_FILE"] = name
    result = await metrics_etl("init", "--yes", cwd=tmp_path, env=environment(server, **KEYLESS, **variables))
    night = await at_night(result.stdout, Path("/"), **variables)

    assert (result.exit_code, night.exit_code, len(run_tests_in(tmp_path / "data"))) == (0, 0, 3), night.stderr
    assert set(files(tmp_path / "config")) == {"metrics-etl.toml"}


@pytest.mark.parametrize(
    ("arguments", "changes", "code", "words"),
    [
        ("", {}, 2, "init needs a terminal"),
        ("--yes", {"FI_API_KEY": None}, 2, "there is no key. Set FI_API_KEY"),
        ("--yes", {"FI_API_KEY": "canary"}, 4, "Check FI_API_KEY and FI_SECRET_KEY"),
        ("--yes", {"FI_BASE_URL": "http://127.0.0.1:9"}, 5, "[api] base_url or FI_BASE_URL"),
        ("--yes --base-url http://example.com", {}, 2, "error: environment: FI_BASE_URL must be https://"),
        ("--yes --run-test Chekout", {}, 2, "Did you mean 'Checkout flow'?"),
        ("--yes --path ftp://x", {}, 2, "error: config/metrics-etl.toml: [destination] path must be a folder"),
        ("--yes --warehouse oracle://x", {}, 2, "error: config/metrics-etl.toml: [warehouse] url must be one of"),
        ("--yes", {"METRICS_ETL_API__CONCURRENCY": "0"}, 2, "error: environment: METRICS_ETL_API__CONCURRENCY must be"),
        ("--yes --config readonly/x/y.toml", {}, 6, "readonly/x/y.toml: Not a directory"),
    ],
)
async def test_what_goes_wrong_is_named_as_elsewhere_and_leaves_nothing(
    server: Sandbox, tmp_path: Path, arguments: str, changes: dict[str, str | None], code: int, words: str
) -> None:
    (tmp_path / "readonly").touch()
    result = await metrics_etl("init", *arguments.split(), cwd=tmp_path, env=environment(server, **changes))

    assert (result.exit_code, words in result.stdout + result.stderr) == (code, True), result
    assert "canary" not in result.stdout + result.stderr
    assert entries(tmp_path) == ["readonly"]


async def test_keys_that_were_saved_but_not_loaded_are_not_asked_for(server: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "keys.env").write_text("mine")
    keyless = await metrics_etl("init", "--yes", cwd=tmp_path, env=environment(server, **KEYLESS))

    assert keyless.stderr == "error: keys.env exists, but is not loaded. Run '. ./keys.env' first, or move it away\n"
    assert (keyless.exit_code, files(tmp_path)) == (2, {"keys.env": "mine"})


@pytest.mark.parametrize("question", ["Secret key (not shown): ", "1,3, or all) [all]: ", "[Y/n]: "])
@pytest.mark.parametrize("stop", [signal.SIGINT, None], ids=["Ctrl-C", "Ctrl-D"])
async def test_who_stops_at_a_question_finds_nothing_written_and_a_terminal_that_echoes(
    server: Sandbox, tmp_path: Path, question: str, stop: signal.Signals | None
) -> None:
    terminal = Terminal("init", cwd=tmp_path, env=environment(server, **KEYLESS))
    answers = dict.fromkeys(["1,3, or all) [all]: ", "[data]: ", "30d, or all) [all]: ", "[none]: ", "[Y/n]: "], "")
    answers = {"API key (not shown): ": API_KEY, "Secret key (not shown): ": SECRET_KEY} | answers
    for each in [*answers][: [*answers].index(question)]:
        await terminal.answer(each, f"{answers[each]}\n")
    await terminal.answer(question, "" if stop else "\x04")
    if stop:
        terminal.process.send_signal(stop)
        terminal.type("\n")  # in case it came just before the read, which it would not end

    assert await terminal.ended() == 130
    assert terminal.echoes
    assert terminal.lines[-1] == "error: stopped before anything was written"
    assert entries(tmp_path) == []
