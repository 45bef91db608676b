"""Settings: what is read, what overrides what, and what is said of each mistake."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.extract.client import Client
from etl.model.keys import default_key
from etl.settings import Settings
from tests.settings.reading import mistake, read_settings


def test_names_and_tables_of_run_tests_mix(file: Path) -> None:
    settings = read_settings(file, 'run_tests = ["A b", {name = "B", key = "bee", since = 2026-01-31}]')

    first, second = settings.run_tests
    assert (first.name, first.since) == ("A b", None)
    assert first.key.startswith("a-b-")
    assert (second.key, second.since) == ("bee", date(2026, 1, 31))


def test_day_for_all_run_tests_is_that_of_each_that_has_none(file: Path) -> None:
    text = "run_tests = {}\n[export]\nsince = 2026-02-01"
    settings = read_settings(file, text.format('["A", {name = "B", since = 2026-01-31}]'))
    assert [run_test.since for run_test in settings.run_tests] == [date(2026, 2, 1), date(2026, 1, 31)]
    all_of_them = read_settings(file, text.format('"all"'))
    assert [run_test.since for run_test in all_of_them.with_run_tests(["C"]).run_tests] == [date(2026, 2, 1)]
    assert all_of_them.only("C").run_tests[0].since == date(2026, 2, 1)
    assert all_of_them.only(since="2026-03-01").with_run_tests(["C"]).run_tests[0].since == date(2026, 3, 1)


@pytest.mark.parametrize("in_environment", [False, True])
def test_day_that_has_not_come_is_a_mistake(
    file: Path, monkeypatch: pytest.MonkeyPatch, *, in_environment: bool
) -> None:
    """Nothing would be exported, and all of it would be complete."""
    tomorrow, later = (datetime.now(UTC).date() + timedelta(days=days) for days in (1, 3))
    settings = read_settings(file, f'run_tests = [{{name = "A", since = {tomorrow}}}]')
    words = f"must not be in the future by this machine's clock, got {later}"
    with pytest.raises(ConfigurationError, match=f"--since {words}"):
        settings.only(since=later)
    assert settings.run_tests[0].since == settings.only(since=tomorrow).since == tomorrow
    where = f"{file.name}: run_tests"
    if in_environment:
        monkeypatch.setenv("METRICS_ETL_RUN_TESTS", json.dumps([{"name": "A", "since": str(later)}]))
        where = "environment: METRICS_ETL_RUN_TESTS"
    text = f'run_tests = ["B", {{name = "A", since = {later}}}]'
    assert mistake(file, text) == f"{where}[{1 - in_environment}] since {words}"


def test_environment_overrides_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_ETL_API__CONCURRENCY", "7")
    monkeypatch.setenv("METRICS_ETL_RUN_TESTS", '["From env"]')
    monkeypatch.setenv("FI_BASE_URL", "http://localhost:8080/api/")
    monkeypatch.setenv("METRICS_ETL_EXPORT__LEAVE_OUT", "evals.reason, calls.provider")

    settings = read_settings(file, 'run_tests = ["A"]\n[api]\nconcurrency = 3\nmax_tries = 2')

    assert (settings.api.concurrency, settings.api.max_tries) == (7, 2)
    assert settings.run_tests[0].name == "From env"
    assert settings.export.leave_out == ["evals.reason", "calls.provider"]
    assert settings.api.base_url == "http://localhost:8080/api"


def test_what_should_be_a_section_is_a_mistake_whatever_the_environment_adds(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('run_tests = ["A"]\n[[api]]\nrequests_per_minute = 50\n')
    monkeypatch.setenv("FI_BASE_URL", "http://localhost:8080/api/")
    with pytest.raises(ConfigurationError, match="api is a section"):
        Settings.load(file, needs_keys=False)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("Checkout flow", ["Checkout flow"]),
        ("Checkout flow, Refunds ,Ümlaut", ["Checkout flow", "Refunds", "Ümlaut"]),
        ('["Checkout flow", "Refunds, late"]', ["Checkout flow", "Refunds, late"]),
        ('[{"name": "Checkout flow", "key": "checkout"}]', ["Checkout flow"]),
    ],
)
def test_names_in_the_environment_need_no_json(
    file: Path, monkeypatch: pytest.MonkeyPatch, value: str, names: list[str]
) -> None:
    monkeypatch.setenv("METRICS_ETL_RUN_TESTS", value)
    assert [run_test.name for run_test in read_settings(file, 'run_tests = ["A"]').run_tests] == names


@pytest.mark.parametrize("value", ["all", '"all"', "all "])
def test_all_is_a_word_in_the_environment_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_settings(file, 'run_tests = "all"').run_tests == ()
    monkeypatch.setenv("METRICS_ETL_RUN_TESTS", value)
    assert Settings.load().run_tests == ()
    assert read_settings(file, 'run_tests = ["A"]').run_tests == ()


def test_of_all_run_tests_the_day_to_begin_at_is_kept_until_their_names_are_known(file: Path) -> None:
    everything = read_settings(file, 'run_tests = "all"').only(since=date(2026, 11, 1))

    assert everything.run_tests == ()
    assert [(test.name, test.key, test.since) for test in everything.with_run_tests(["A b", "C"]).run_tests] == [
        ("A b", default_key("A b"), date(2026, 11, 1)),
        ("C", default_key("C"), date(2026, 11, 1)),
    ]


def test_some_of_all_run_tests_are_taken_by_name(file: Path) -> None:
    everything = read_settings(file, 'run_tests = "all"')

    assert [test.name for test in everything.only(["B", "A", "B"]).run_tests] == ["B", "A"]
    for name in ("", " A"):
        with pytest.raises(ConfigurationError, match=f"^'{name}' cannot be the name of a run test"):
            everything.only([name])


def test_discovered_names_with_one_key_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.settings.sections.default_key", lambda _name: "same")
    with pytest.raises(ConfigurationError, match="'A' and 'B' share the key 'same'"):
        read_settings(file, 'run_tests = "all"').with_run_tests(["A", "B"])


def test_what_is_not_needed_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.load(needs_run_tests=False).run_tests == ()
    monkeypatch.delenv("FI_API_KEY")
    without = Settings.load(needs_keys=False, needs_run_tests=False)
    assert (without.api_key, without.secret_key, without.destination.path) == (None, None, str(tmp_path / "data"))
    with pytest.raises(ConfigurationError, match=r"absent\.toml was not found"):
        Settings.load("absent.toml", needs_keys=False, needs_run_tests=False)


def test_config_variable_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('run_tests = ["A"]')
    monkeypatch.setenv("METRICS_ETL_CONFIG", str(file))
    assert Settings.load().run_tests[0].name == "A"


def test_keys_are_stripped_and_never_shown(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FI_API_KEY", " api-canary\n")
    settings = read_settings(file, 'run_tests = ["A"]')

    assert settings.api_key
    assert settings.api_key.get_secret_value() == "api-canary"
    assert "canary" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_settings_of_a_command_that_asks_nobody_need_no_keys(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FI_API_KEY_FILE", "nowhere")
    monkeypatch.delenv("FI_API_KEY")
    file.write_text('run_tests = ["A"]')
    settings = Settings.load(file, needs_keys=False)

    assert (settings.api_key, settings.secret_key) == (None, None)
    with pytest.raises(ConfigurationError, match="hold no keys"):
        Client(settings)


def test_files_that_cannot_be_read(file: Path) -> None:
    assert mistake(file, "[api]\n[api]").endswith("(at line 2, column 5). Write each section and each key once")
    assert mistake(file, "since = 2026-13-01").endswith(". Write one key on each line, and only dates that exist")
    assert mistake(file, 'run_tests = "all\n').endswith(". Text ends with a quote on the line on which it begins")
    assert mistake(file, "path = data").endswith('(at line 1, column 8). Write "text", 2026-01-31, true or false')
    file.write_bytes(b"run_tests = ['\xff']")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Settings.load(file)
    with pytest.raises(ConfigurationError, match="cannot be read: it is a folder, not a settings file"):
        Settings.load(file.parent)


def test_file_that_is_missing_is_named_with_the_place_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fix = "Write one with metrics-etl init, or name another with --config"
    for path, place in (("absent.toml", f" (looked for in {tmp_path})"), (tmp_path / "absent.toml", "")):
        with pytest.raises(ConfigurationError, match=re.escape(f"{path} was not found{place}. {fix}")):
            Settings.load(path)


def test_only_chooses_by_name_or_key(file: Path) -> None:
    settings = read_settings(file, 'run_tests = ["Alpha", {name = "Beta", key = "bee"}, "Gamma"]')

    assert [test.name for test in settings.only(["bee", "Gamma"]).run_tests] == ["Beta", "Gamma"]
    assert [test.name for test in settings.only("bee").run_tests] == ["Beta"]
    for day in (date(2026, 1, 1), "2026-01-01"):
        assert {test.since for test in settings.only(since=day).run_tests} == {date(2026, 1, 1)}
    before = datetime.now(UTC).date()
    assert before <= (settings.only(since="0d").since or date.min) <= datetime.now(UTC).date()
    with pytest.raises(ConfigurationError, match=r"since must be a date such as 2026-11-01, .*, got '7'"):
        settings.only(since="7")
    for name, advice in (("alpha", "Did you mean 'Alpha'"), ("bees", "'Alpha', 'Beta', 'Gamma'")):
        with pytest.raises(ConfigurationError, match=advice):
            settings.only([name])
