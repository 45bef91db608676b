"""Each mistake in the settings is told in one line that names the place and the fix."""

import re
from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.model.locations import BUCKETS, WAREHOUSES
from etl.settings import Settings
from etl.settings.messages import setting_places
from tests.settings.reading import mistake, mistakes, read_settings

NO_PROXY = "must be http://HOST:PORT, e.g. http://proxy.example:3128 (no path, TLS or SOCKS)"
WAREHOUSE_URLS = ", ".join(f"{each}://…" for each in WAREHOUSES)
DESTINATIONS = "a folder, or s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://BUCKET/FOLDER"
NO_PASSWORD = "Set PGPASSWORD, or use a credentials file, such as ~/.pgpass"
S3_OPTIONS = ", ".join(map(repr, sorted(BUCKETS["s3"])))
ELSEWHERE = ", which is unknown or a credential"
KEY_IN_FILE = " does not belong in this file. Set"


MISTAKES = {
    "": [
        ("", 'run_tests is missing. Name what to export, e.g. run_tests = ["My Agent Test"]'),
        ('run_test = ["A"]', "run_test is unknown. Did you mean 'run_tests'?"),
        ("run_tests = []", """run_tests must be "all" or name at least one run test"""),
        ('run_tests = "A"', """run_tests must be "all" or a list, e.g. ["My Agent Test"], got 'A'"""),
        ('run_tests = ["A", "A"]', "run_tests names 'A' twice. Name it once"),
        (
            'run_tests = [{name = "A", key = "k", since = 2026-01-01}, {name = "A", key = "j"}]',
            "run_tests names 'A' twice. Name it once",
        ),
        ('run_tests = [""]', "run_tests[0] name must not be empty, got ''"),
        ("run_tests = [3]", 'run_tests[0] must be a name in quotes, or a table such as { name = "My Agent Test" }'),
        ('run_tests = [{key = "a"}]', "run_tests[0] name is missing"),
        ('run_tests = [{name = "A", nam = 1}]', "run_tests[0] nam is unknown. Did you mean 'name'?"),
        (
            'run_tests = [{name = "A", key = "k"}, {name = "B", key = "k"}]',
            "run_tests 'A' and 'B' share the key 'k'. Change one",
        ),
        ("[apy]\nconcurrency = 5", "apy is unknown. Did you mean 'api'?"),
        (
            '[destination]\npath = "/d"\n[warehouse]\nurl = "delta:///d/calls/w"',
            "[warehouse] url is inside the dataset's folder 'calls'. Choose a place outside it",
        ),
        ("api = 3", "api is a section. Set its keys instead, or give them as JSON"),
        ("concurrency = 8", "concurrency belongs in [api]"),
        (
            'run_tests = ["A"]\nsince = 2026-01-01',
            'since belongs in [export] or to a run test, as in run_tests = [{ name = "My Agent Test", since = … }]',
        ),
        ('[destination]\nrun_tests = ["A"]', "[destination] run_tests belongs above the first section"),
        ("basis_url = 'x'", "basis_url is unknown. Did you mean 'base_url'?"),
        ('FI_SECRET_KEY = "canary"', f"FI_SECRET_KEY{KEY_IN_FILE} FI_SECRET_KEY or FI_SECRET_KEY_FILE"),
    ],
    "api": [
        ("concurrency = 5000", "concurrency must be at most 256, got 5000"),
        ("concurency = 5", "concurency is unknown. Did you mean 'concurrency'?"),
        ("rate_limit = 5", "rate_limit is unknown. Did you mean 'requests_per_minute'?"),
        ("retries = 5", "retries is unknown. Did you mean 'max_tries'?"),
        ("concurrency = 'x'", "concurrency must be a whole number, got 'x'"),
        ("quota_share = nan", "quota_share must be a number, got nan"),
        ("page_limit = 1000", "page_limit must be a power of two, got 1000"),
        ("requests_per_minute = 0", "requests_per_minute must be at least 1, got 0"),
        (f"requests_per_minute = {'9' * 400}", f"requests_per_minute must be at most 10000000, got {'9' * 200}…"),
        ("requests_per_minute = true", "requests_per_minute must be a number or text in quotes, got true"),
        ('requests_per_minute = "-1"', "requests_per_minute must be at least 1, got '-1'"),
        ('requests_per_minute = "fast"', "requests_per_minute must be a whole number, got 'fast'"),
        (
            'base_url = "http://10.0.0.1/"',
            "base_url must be https:// (plain http:// is allowed for this machine only), got 'http://10.0.0.1/'",
        ),
        ('base_url = "https://user:canary@host"', "base_url must contain only scheme, host and path"),
        ('base_url = "https://api example"', "base_url must be an https:// address, got 'https://api example'"),
        ('base_url = "ftp://host"', "base_url must be an https:// address, got 'ftp://host'"),
        ('api_key = "canary"', f"api_key{KEY_IN_FILE} FI_API_KEY or FI_API_KEY_FILE"),
        ('key = "canary"', f"key{KEY_IN_FILE} FI_API_KEY or FI_API_KEY_FILE"),
        ('proxy_password = "canary"', f"proxy_password{KEY_IN_FILE} FI_PROXY_PASSWORD or FI_PROXY_PASSWORD_FILE"),
        (
            'proxy = "http://user:canary@proxy:3128"',
            "proxy must not contain credentials. Set FI_PROXY_USER and FI_PROXY_PASSWORD",
        ),
        *(
            (f'proxy = "{value}"', f"proxy {NO_PROXY}")
            for value in (
                *("", "proxy:3128", "https://proxy:3128", "socks5://proxy", "http://", "http://proxy/canary"),
                *("http://proxy:port", "http://proxy?canary", "http://[proxy"),
            )
        ),
        (
            'proxy = "http://proxy:3128"\nbase_url = "http://localhost:8080"',
            "proxy cannot be used with an http:// base_url, because the proxy would see the keys",
        ),
    ],
    "warehouse": [
        *(
            (f'url = "{url}"', f"url must be one of {WAREHOUSE_URLS}, got {shown}")
            for url, shown in (
                *((url, repr(url)) for url in ("mysql://h/d", "duckdb://", "data", "duckdb:/x")),
                ("postgresql:/user:canary@h/d", "postgresql://…"),
            )
        ),
        *(
            (f'url = "postgresql://{rest}"', f"url must not contain a password. {NO_PASSWORD}")
            for rest in (
                *("user:canary@h/d", "user:can/ary@h/d", "user:can?ary@h/d"),
                *("h/d?password=canary", "h/d?PASSWORD=canary"),
            )
        ),
        *(
            (f'url = "{url}"', "url must name a database, as in postgresql://user@host/database, got none")
            for url in ("postgresql://user@host", "postgres://host:5432/", "postgresql://host?sslmode=require")
        ),
        *(
            (f'url = "{url}"', "url must name a file, because MotherDuck (md:) is not supported, got duckdb://md:…")
            for url in ("duckdb://md:metrics", "duckdb:///md:", "duckdb://motherduck:metrics?token=canary")
        ),
        (
            'url = "duckdb://:memory:"',
            "url must name a file, because a database in memory would not last, got duckdb://:memory:",
        ),
        (
            'schema = "Metrics"',
            "schema must be at most 63 lower-case letters, digits and _, with no digit first, got 'Metrics'",
        ),
        ('schem = "a"', "schem is unknown. Did you mean 'schema'?"),
    ],
    "compare": [
        (
            'max_regression = { latency_p95 = "ten" }',
            "max_regression needs a limit such as \"10%\" for latency_p95, got 'ten'",
        ),
        (
            'max_regression = { latency_95 = "10%" }',
            "max_regression names 'latency_95', which is not a metric. Did you mean 'latency_p95'?",
        ),
        (
            "max_regression = { latency_p95 = 10 }",
            "max_regression needs a limit such as \"10%\" for latency_p95, got '10'",
        ),
    ],
    "report": [
        *(
            (
                f'call_url = "{url}"',
                f"call_url must be https://HOST, or an address with {{call_execution_id}}, got {url!r}",
            )
            for url in ("ftp://h/{execution_id}", "javascript:x", "https://{execution_id}/x", "https://h/{call_id}")
        ),
        (
            'call_url = "https://user:canary@h/{execution_id}"',
            "call_url must be https://HOST, or an address with {call_execution_id}, got https://…",
        ),
    ],
    "export": [
        ('leave_out = "evals.reason"', "leave_out must be a list of texts in quotes, got 'evals.reason'"),
        *(
            (f'leave_out = ["evals.reason", "{name}"]', f"leave_out must not contain '{name}'. Did you mean '{near}'?")
            for name, near in (
                ("call.ended_reason", "calls.ended_reason"),
                ("calls.status", "calls.tool_outputs"),
                ("reason", "evals.reason' or 'calls.ended_reason' or 'executions.error_reason"),
            )
        ),
    ],
    "destination": [
        ('compression = "lz4"', 'compression must be "zstd", "snappy", "gzip" or "none", got \'lz4\''),
        *(
            (f'path = "{value}"', f"path must be {DESTINATIONS}, got {shown}")
            for value, shown in (
                *((value, repr(value)) for value in ("ftp://b", "s3:/bucket/x", "az:bucket")),
                *(("https://h/x?sig=canary", "https://…"), ("s3:/KEY:canary@b/x", "s3://…")),
            )
        ),
        ('path = "s3://bucket//x"', "path must be s3://BUCKET/FOLDER, got 's3://bucket//x'"),
        ('path = "s3://KEY:canary@b/x"', "path must be s3://BUCKET/FOLDER, got s3://…"),
        (
            'path = "s3://b"\n[destination.options]\nsecret_access_key = "canary"',
            f"options must not contain secret_access_key{ELSEWHERE}. Choose from {S3_OPTIONS}",
        ),
        ('path = "s3://b"\noptions = "canary"', "options must be a table whose values are text, true or false"),
        ('options = { r = "x" }', f"options must not contain r{ELSEWHERE}. Only s3:// and az:// have options"),
    ],
}
"""By section, what is written in it, and what is said."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"[{section}]\n{text}", f"[{section}] {message}") if section else (text, message)
        for section, mistakes in MISTAKES.items()
        for text, message in mistakes
    ],
)
def test_each_mistake_names_file_key_and_fix(file: Path, text: str, message: str) -> None:
    if text and "run_test" not in text:
        text = f'run_tests = ["A"]\n{text}'
    assert mistake(file, text) == f"prod.toml: {message}"


UNKNOWN = "environment: METRICS_ETL"
A_LIST = '["Checkout flow", "Refunds, late"]'


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("METRICS_ETL_API__CONCURRENCY", "0", "environment: METRICS_ETL_API__CONCURRENCY must be at least 1, got '0'"),
        (
            "METRICS_ETL_API__CONCURENCY",
            "1",
            "environment: METRICS_ETL_API__CONCURENCY is unknown. Did you mean 'METRICS_ETL_API__CONCURRENCY'?",
        ),
        *(
            (f"METRICS_ETL{name}", value, f"{UNKNOWN}{name} is unknown. Did you mean '{meant}'?")
            for name, value, meant in (
                ("_APY__CONCURRENCY", "1", "METRICS_ETL_API__CONCURRENCY"),
                ("_API_KEY", "canary", "FI_API_KEY"),
                ("_DESTINATION_PATH", "/data", "METRICS_ETL_DESTINATION__PATH"),
                ("_RUN_TEST", "A", "METRICS_ETL_RUN_TESTS"),
            )
        ),
        (
            "METRICS_ETL_RUN_TESTS",
            "[Checkout flow]",
            f"{UNKNOWN}_RUN_TESTS is not valid JSON. Give a name, names joined by commas, or a list such as {A_LIST}",
        ),
        *(
            (name, "100,", f"environment: {name} is a section. Set its keys instead, or give them as JSON")
            for name in ("METRICS_ETL_API", "METRICS_ETL_COMPARE__ACCEPTED", "METRICS_ETL_DESTINATION__OPTIONS")
        ),
        ("FI_BASE_URL", "nonsense", "environment: FI_BASE_URL must be an https:// address, got 'nonsense'"),
        ("FI_API_KEY", "", "there is no key. Set FI_API_KEY, or FI_API_KEY_FILE to the path of a key file"),
        *(
            (name, value, f"{name}: it contains a character that cannot be in a key. Copy the key again")
            for name, value in (("FI_API_KEY", "canary\x1b[1m"), ("FI_SECRET_KEY", "canary\r\nX-Evil: 1"))
        ),
    ],
)
def test_each_mistake_in_the_environment_names_the_variable(
    file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert mistake(file, 'run_tests = ["A"]') == message


@pytest.mark.parametrize(("value", "number"), [("Checkout flow,", 1), ("", 0), ('["A", ""]', 1)])
def test_empty_name_in_the_environment_names_the_variable_that_was_set(
    file: Path, monkeypatch: pytest.MonkeyPatch, value: str, number: int
) -> None:
    monkeypatch.setenv("METRICS_ETL_RUN_TESTS", value)
    assert mistake(file, "") == f"environment: METRICS_ETL_RUN_TESTS[{number}] name must not be empty, got ''"


def test_all_mistakes_are_told_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_ETL_APY__CONCURRENCY", "1")
    monkeypatch.delenv("FI_API_KEY")
    text = """
        run_test = ["A"]
        api_key = "canary"
        [api]
        concurrency = 0
        proxy = { password = "canary" }
        [destination]
        path = "$NOT_SET/data"
        [warehouse]
        path = "x"
        """
    assert mistakes(file, text) == [
        "environment: METRICS_ETL_APY__CONCURRENCY is unknown. Did you mean 'METRICS_ETL_API__CONCURRENCY'?",
        f"prod.toml: api_key{KEY_IN_FILE} FI_API_KEY or FI_API_KEY_FILE",
        "prod.toml: [destination] path: the variable $NOT_SET is not set. Set it, or write the path in full",
        "there is no key. Set FI_API_KEY, or FI_API_KEY_FILE to the path of a key file",
        "prod.toml: [warehouse] path belongs in [destination]",
        "prod.toml: run_test is unknown. Did you mean 'run_tests'?",
        "prod.toml: [api] concurrency must be at least 1, got 0",
        "prod.toml: [api] proxy must be text in quotes, got a table",
    ]


ODD_VALUES = ("3", "-1.5", "nan", "true", '"canary"', "2026-01-31", "2026-01-31T02:00:00Z", "[3]", "[{}]", "{ a = 3 }")


@pytest.mark.parametrize("place", [*setting_places(Settings)], ids=".".join)
def test_no_value_of_any_key_is_answered_in_the_words_of_a_library(file: Path, place: tuple[str, ...]) -> None:
    *section, key = place
    for value in ODD_VALUES:
        text = f"{key} = {value}" if not section else f'run_tests = ["A"]\n[{section[0]}]\n{key} = {value}'
        text = f"run_tests = [{{ {key} = {value} }}]" if section == ["run_tests"] else text
        told = ""
        try:
            read_settings(file, text)
        except ConfigurationError as error:
            told = str(error)
        assert not re.search("Input|valid|instance|datetime|True|None", told)
