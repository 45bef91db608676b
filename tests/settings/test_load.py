"""Settings: what is read, what overrides what, and what is said of each mistake."""

import json
import os
import stat
from datetime import date
from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.extract.connect import client_of
from etl.model.keys import default_key
from etl.settings import Settings
from etl.settings.api_keys import _is_open_to_others

ROOT, ME, SOMEBODY = 0, 1000, 1001
NO_PROXY = "must be an http:// address, e.g. http://proxy.example:3128"
KEY_IN_FILE = ": API keys must not be in a file that is copied and committed: set"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("METRICS_ETL_", "FI_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("FI_API_KEY", "api-canary")
    monkeypatch.setenv("FI_SECRET_KEY", "secret-canary")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prod.toml"


def load(file: Path, text: str) -> Settings:
    file.write_text(text, encoding="utf-8")
    return Settings.load(file)


def mistake(file: Path, text: str) -> str:
    """The message, without the folder; always one line and never with a key in it."""
    with pytest.raises(ConfigurationError) as raised:
        load(file, text)
    message = str(raised.value)
    assert "\n" not in message
    assert "canary" not in message
    assert raised.value.exit_code == 2
    return message.replace(f"{file.parent}/", "")


def test_names_and_tables_of_run_tests_mix(file: Path) -> None:
    settings = load(file, 'run_tests = ["A b", {name = "B", key = "bee", since = 2026-01-31}]')

    first, second = settings.run_tests
    assert (first.name, first.since) == ("A b", None)
    assert first.key.startswith("a-b-")
    assert (second.key, second.since) == ("bee", date(2026, 1, 31))


def test_environment_overrides_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_ETL_API__CONCURRENCY", "7")
    monkeypatch.setenv("METRICS_ETL_RUN_TESTS", '["From env"]')
    monkeypatch.setenv("FI_BASE_URL", "http://localhost:8080/api/")

    settings = load(file, 'run_tests = ["A"]\n[api]\nconcurrency = 3\nmax_tries = 2')

    assert (settings.api.concurrency, settings.api.max_tries) == (7, 2)
    assert settings.run_tests[0].name == "From env"
    assert settings.api.base_url == "http://localhost:8080/api"


def test_environment_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METRICS_ETL_RUN_TESTS", '["A"]')
    assert Settings.load().run_tests[0].name == "A"


@pytest.mark.parametrize("value", ["all", '"all"'])
def test_all_is_a_word_in_the_environment_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(file, 'run_tests = "all"').run_tests == ()
    monkeypatch.setenv("METRICS_ETL_RUN_TESTS", value)
    assert Settings.load().run_tests == ()
    assert load(file, 'run_tests = ["A"]').run_tests == ()


def test_of_all_run_tests_the_day_to_begin_at_is_kept_until_their_names_are_known(file: Path) -> None:
    everything = load(file, 'run_tests = "all"').only(since=date(2026, 11, 1))

    assert everything.run_tests == ()
    assert [(test.name, test.key, test.since) for test in everything.with_run_tests(["A b", "C"]).run_tests] == [
        ("A b", default_key("A b"), date(2026, 11, 1)),
        ("C", default_key("C"), date(2026, 11, 1)),
    ]


def test_some_of_all_run_tests_are_taken_by_name(file: Path) -> None:
    everything = load(file, 'run_tests = "all"')

    assert [test.name for test in everything.only(["B", "A", "B"]).run_tests] == ["B", "A"]
    with pytest.raises(ConfigurationError, match="'' cannot be the name of a run test"):
        everything.only([""])


def test_discovered_names_with_one_key_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.settings.sections.default_key", lambda _name: "same")
    with pytest.raises(ConfigurationError, match="'A' and 'B' have the same key 'same'"):
        load(file, 'run_tests = "all"').with_run_tests(["A", "B"])


def test_what_is_not_needed_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.load(needs_run_tests=False).run_tests == ()
    monkeypatch.delenv("FI_API_KEY")
    without = Settings.load(needs_keys=False, needs_run_tests=False)
    assert (without.api_key, without.secret_key, without.destination.path) == (None, None, "data")

    file.write_text('run_tests = ["A"]', encoding="utf-8")
    assert Settings.load(file, needs_keys=False, needs_run_tests=False).run_tests[0].name == "A"
    with pytest.raises(ConfigurationError, match=r"absent\.toml: not found"):
        Settings.load("absent.toml", needs_keys=False, needs_run_tests=False)


def test_config_variable_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('run_tests = ["A"]')
    monkeypatch.setenv("METRICS_ETL_CONFIG", str(file))
    assert Settings.load().run_tests[0].name == "A"


def test_keys_are_stripped_and_never_shown(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FI_API_KEY", " api-canary\n")
    settings = load(file, 'run_tests = ["A"]')

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
        client_of(settings, on_hold=lambda _: None)


def test_keys_from_files(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file = tmp_path / "key"
    key_file.touch(mode=0o600)
    key_file.write_text("from-file\n")
    monkeypatch.delenv("FI_API_KEY")
    monkeypatch.setenv("FI_API_KEY_FILE", str(key_file))
    settings = load(file, 'run_tests = ["A"]')
    assert settings.api_key
    assert settings.api_key.get_secret_value() == "from-file"

    key_file.chmod(0o604)
    assert mistake(
        file, 'run_tests = ["A"]'
    ) == f"FI_API_KEY_FILE ({key_file}): others can read it: chmod 600 {key_file}".replace(f"{tmp_path}/", "")
    key_file.unlink()
    assert "cannot be read: No such file" in mistake(file, 'run_tests = ["A"]')


@pytest.mark.parametrize(
    ("mode", "owner", "reader", "is_open"),
    [
        (0o600, ME, ME, False),
        (0o400, ME, ME, False),
        (0o640, ME, ME, True),
        (0o440, ROOT, ME, False),  # a Kubernetes secret with fsGroup, a systemd credential with an access list
        (0o640, ROOT, ME, False),
        (0o660, ROOT, ME, True),
        (0o450, ROOT, ME, True),
        (0o444, ROOT, ME, True),
        (0o440, ROOT, ROOT, True),  # root needs no group to read what is its own
        (0o440, SOMEBODY, ME, True),
    ],
)
def test_key_file_may_be_open_to_a_group_only_when_root_lets_us_read_it_so(
    mode: int, owner: int, reader: int, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: reader)

    found = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, ME, 64, 0, 0, 0))

    assert _is_open_to_others(found) is is_open


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'prod.toml: run_tests is missing: name what to export, e.g. run_tests = ["My Agent Test"]'),
        ("run_tests = []", """prod.toml: run_tests must be "all", or name at least one run test, got []"""),
        ('run_tests = "A"', """prod.toml: run_tests must be "all" or a list, e.g. ["My Agent Test"], got 'A'"""),
        ('run_tests = ["A", "A"]', "prod.toml: run_tests names 'A' twice: name it once"),
        ("run_tests = [3]", "prod.toml: run_tests[0] must be a section, got 3"),
        ('run_tests = [{key = "a"}]', "prod.toml: run_tests[0] name is missing"),
        ('run_tests = [{name = "A", nam = 1}]', "prod.toml: run_tests[0] nam is unknown: did you mean name?"),
        (
            'run_tests = [{name = "A", key = "k"}, {name = "B", key = "k"}]',
            "prod.toml: run_tests 'A' and 'B' have the same key 'k': give one of them another key",
        ),
        ("[api]\nconcurrency = 5000\n", "prod.toml: [api] concurrency must be at most 256, got 5000"),
        ("[api]\nconcurency = 5\n", "prod.toml: [api] concurency is unknown: did you mean concurrency?"),
        ("[apy]\nconcurrency = 5\n", "prod.toml: apy is unknown: did you mean api?"),
        ("api = 3\n", "prod.toml: api must be a section, got 3"),
        ("[api]\nconcurrency = 'x'\n", "prod.toml: [api] concurrency must be a valid integer, got 'x'"),
        ("[api]\nquota_share = nan\n", "prod.toml: [api] quota_share must be a finite number, got nan"),
        ("[api]\npage_limit = 1000\n", "prod.toml: [api] page_limit must be a power of two, got 1000"),
        (
            "[api]\nrequests_per_minute = 0\n",
            'prod.toml: [api] requests_per_minute must be "auto" or a whole number of at least 1, got 0',
        ),
        (
            '[api]\nbase_url = "http://10.0.0.1/"\n',
            "prod.toml: [api] base_url must be https:// (plain http:// is allowed for this machine only), got 'http://10.0.0.1/'",
        ),
        (
            '[api]\nbase_url = "https://user:canary@host"\n',
            "prod.toml: [api] base_url must be only scheme, host and path, got more than that",
        ),
        ('[api]\nbase_url = "ftp://host"\n', "prod.toml: [api] base_url must be an https:// address, got 'ftp://host'"),
        (
            '[destination]\ncompression = "lz4"\n',
            "prod.toml: [destination] compression must be 'zstd', 'snappy', 'gzip' or 'none', got 'lz4'",
        ),
        (
            '[destination]\npath = "gs://bucket"\n',
            "prod.toml: [destination] path buckets are not supported yet: give a folder, got 'gs://bucket'",
        ),
        (
            '[api]\napi_key = "canary"\n',
            f"prod.toml: [api] api_key{KEY_IN_FILE} FI_API_KEY or FI_API_KEY_FILE",
        ),
        (
            'FI_SECRET_KEY = "canary"\n',
            f"prod.toml: FI_SECRET_KEY{KEY_IN_FILE} FI_SECRET_KEY or FI_SECRET_KEY_FILE",
        ),
        (
            '[api]\nproxy_password = "canary"\n',
            f"prod.toml: [api] proxy_password{KEY_IN_FILE} FI_PROXY_PASSWORD or FI_PROXY_PASSWORD_FILE",
        ),
        (
            '[api]\nproxy = "http://user:canary@proxy:3128"\n',
            "prod.toml: [api] proxy must hold no credentials: set FI_PROXY_USER and FI_PROXY_PASSWORD, got some",
        ),
        *(
            (f'[api]\nproxy = "{value}"\n', f"prod.toml: [api] proxy {NO_PROXY}, got another value")
            for value in ("", "proxy:3128", "https://proxy:3128", "socks5://proxy", "http://", "http://proxy/canary")
        ),
        *(
            (f'[api]\nproxy = "{value}"\n', f"prod.toml: [api] proxy {NO_PROXY}, got another value")
            for value in ("http://proxy:port", "http://proxy?canary", "http://[proxy", "http://pr oxy", "http://prôxy")
        ),
        (
            '[api]\nproxy = "http://proxy:3128"\nbase_url = "http://localhost:8080"\n',
            "prod.toml: [api] proxy must not stand beside a plain http:// base_url: the proxy would see the keys, got both",
        ),
    ],
)
def test_each_mistake_names_file_key_and_fix(file: Path, text: str, message: str) -> None:
    if text and "run_tests" not in text:
        text = f'run_tests = ["A"]\n{text}'
    assert mistake(file, text) == message


WITH_PROXY = 'run_tests = ["A"]\n[api]\nproxy = "http://proxy.example:3128/"\n'


def test_proxy_is_given_alone_or_with_credentials_of_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load(file, WITH_PROXY)
    assert (settings.api.proxy, settings.proxy_user, settings.proxy_password) == (
        "http://proxy.example:3128",
        None,
        None,
    )

    secret = tmp_path / "password"
    secret.write_text("canary\n")
    secret.chmod(0o600)
    monkeypatch.setenv("FI_PROXY_USER", "me")
    monkeypatch.setenv("FI_PROXY_PASSWORD_FILE", str(secret))
    settings = load(file, WITH_PROXY)
    assert settings.proxy_user
    assert settings.proxy_password
    assert (settings.proxy_user.get_secret_value(), settings.proxy_password.get_secret_value()) == ("me", "canary")
    assert "canary" not in repr(settings)
    assert load(file, 'run_tests = ["A"]').proxy_password is None, "without a proxy nobody reads them"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FI_PROXY_USER": "me"}, "no key: set FI_PROXY_PASSWORD, or FI_PROXY_PASSWORD_FILE"),
        ({"FI_PROXY_PASSWORD": "canary"}, "no key: set FI_PROXY_USER, or"),
        (
            {"FI_PROXY_USER": "me:canary", "FI_PROXY_PASSWORD": "canary"},
            "FI_PROXY_USER: a user's name cannot hold a colon",
        ),
    ],
)
def test_half_the_credentials_of_a_proxy_are_a_mistake(
    file: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert message in mistake(file, WITH_PROXY)


async def test_client_is_given_the_proxy_and_its_credentials(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FI_PROXY_USER", "me")
    monkeypatch.setenv("FI_PROXY_PASSWORD", "canary")
    proxy = client_of(load(file, WITH_PROXY))._access.proxy
    assert proxy
    assert proxy.url == "http://proxy.example:3128"
    assert proxy.headers() == {"Proxy-Authorization": "Basic bWU6Y2FuYXJ5"}


@pytest.mark.parametrize("name", [" A", "A ", "\tA"])
def test_name_that_the_api_would_take_for_another_is_refused(file, name):
    assert "run_tests[0] name must not begin or end with a space" in mistake(file, f"run_tests = [{json.dumps(name)}]")


@pytest.mark.parametrize("key", ["007", "2026-01-01", "true", "null", "A", "a b", "a/b", "..", "é", "a" * 81, "-a"])
def test_key_that_a_reader_would_misread_is_refused(file: Path, key: str) -> None:
    assert "run_tests[0] key must be lower-case" in mistake(file, f'run_tests = [{{name = "A", key = "{key}"}}]')


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("METRICS_ETL_API__CONCURRENCY", "0", "environment: METRICS_ETL_API__CONCURRENCY must be at least 1, got '0'"),
        (
            "METRICS_ETL_API__CONCURENCY",
            "1",
            "environment: METRICS_ETL_API__CONCURENCY is unknown: did you mean concurrency?",
        ),
        (
            "METRICS_ETL_APY__CONCURRENCY",
            "1",
            "environment: unknown variable METRICS_ETL_APY__CONCURRENCY: did you mean METRICS_ETL_API?",
        ),
        (
            "METRICS_ETL_API_KEY",
            "canary",
            "environment: unknown variable METRICS_ETL_API_KEY: did you mean METRICS_ETL_API?",
        ),
        ("FI_BASE_URL", "nonsense", "environment: FI_BASE_URL must be an https:// address, got 'nonsense'"),
        ("FI_API_KEY", "", "no key: set FI_API_KEY, or FI_API_KEY_FILE to the path of a file with the key"),
        ("FI_API_KEY", "canary\x1b[1m", "FI_API_KEY: contains a character that no key has: copy the key again"),
        (
            "FI_SECRET_KEY",
            "canary\r\nX-Evil: 1",
            "FI_SECRET_KEY: contains a character that no key has: copy the key again",
        ),
    ],
)
def test_each_mistake_in_the_environment_names_the_variable(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert mistake(file, 'run_tests = ["A"]') == message


def test_list_that_is_not_json_names_the_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_ETL_RUN_TESTS", "My Agent Test")
    assert mistake(file, 'run_tests = ["A"]').startswith("environment: ")


def test_files_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    assert "not valid TOML" in mistake(file, "run_tests = [")
    file.write_bytes(b"run_tests = ['\xff']")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Settings.load(file)
    with pytest.raises(ConfigurationError, match="not found: copy config/example"):
        Settings.load(tmp_path / "absent.toml")


def test_only_chooses_by_name_or_key(file: Path) -> None:
    settings = load(file, 'run_tests = ["Alpha", {name = "Beta", key = "bee"}, "Gamma"]')

    assert [test.name for test in settings.only(["bee", "Gamma"]).run_tests] == ["Beta", "Gamma"]
    assert {test.since for test in settings.only(since=date(2026, 1, 1)).run_tests} == {date(2026, 1, 1)}
    with pytest.raises(ConfigurationError, match="did you mean Alpha"):
        settings.only(["alpha"])
