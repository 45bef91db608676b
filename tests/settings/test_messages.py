"""Each mistake in the settings is told in one line that names the place and the fix."""

from pathlib import Path

import pytest

from etl.model.locations import BUCKETS, WAREHOUSES
from tests.settings.reading import mistake

NO_PROXY = "must be an http:// address, e.g. http://proxy.example:3128 (no TLS to the proxy, no SOCKS)"
WAREHOUSE_URLS = ", ".join(f"{each}://…" for each in WAREHOUSES)
DESTINATIONS = "a folder, or s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://BUCKET/FOLDER"
NO_PASSWORD = "it comes from PGPASSWORD or the driver's usual places, got one"
KEY_IN_FILE = ": keys and credentials must not be in a file that is copied and committed: set"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'prod.toml: run_tests is missing: name what to export, e.g. run_tests = ["My Agent Test"]'),
        ('run_test = ["A"]', "prod.toml: run_test is unknown: did you mean run_tests?"),
        ("run_tests = []", """prod.toml: run_tests must be "all", or name at least one run test, got []"""),
        ('run_tests = "A"', """prod.toml: run_tests must be "all" or a list, e.g. ["My Agent Test"], got 'A'"""),
        ('run_tests = ["A", "A"]', "prod.toml: run_tests names 'A' twice: name it once"),
        (
            'run_tests = [{name = "A", key = "k", since = 2027-01-01}, {name = "A", key = "j"}]',
            "prod.toml: run_tests names 'A' twice: name it once",
        ),
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
        *(
            (f"[api]\nrequests_per_minute = {value}\n", f"prod.toml: [api] requests_per_minute must be {words}")
            for value, words in (
                ("0", "at least 1, got 0"),
                ("9" * 400, f"at most 10000000, got {'9' * 200}…"),
                ('"-1"', "at least 1, got '-1'"),
                ('"fast"', "a valid integer, got 'fast'"),
            )
        ),
        (
            '[api]\nbase_url = "http://10.0.0.1/"\n',
            "prod.toml: [api] base_url must be https:// (plain http:// is allowed for this machine only), got 'http://10.0.0.1/'",
        ),
        (
            '[api]\nbase_url = "https://user:canary@host"\n',
            "prod.toml: [api] base_url must be only scheme, host and path, got more than that",
        ),
        (
            '[api]\nbase_url = "https://api example"\n',
            "prod.toml: [api] base_url must be an https:// address, got 'https://api example'",
        ),
        ('[api]\nbase_url = "ftp://host"\n', "prod.toml: [api] base_url must be an https:// address, got 'ftp://host'"),
        *(
            (
                f'[warehouse]\nurl = "{url}"\n',
                f"prod.toml: [warehouse] url must be one of {WAREHOUSE_URLS}, got {shown}",
            )
            for url, shown in (
                ("mysql://h/d", "'mysql://h/d'"),
                ("duckdb://", "'duckdb://'"),
                ("data", "'data'"),
                ("duckdb:/x", "'duckdb:/x'"),
                ("postgresql:/user:canary@h/d", "postgresql://…"),
            )
        ),
        *(
            (
                f'[warehouse]\nurl = "postgresql://{rest}"\n',
                f"prod.toml: [warehouse] url must hold no password: {NO_PASSWORD}",
            )
            for rest in (
                "user:canary@h/d",
                "user:can/ary@h/d",
                "user:can?ary@h/d",
                "h/d?password=canary",
                "h/d?PASSWORD=canary",
            )
        ),
        (
            '[warehouse]\nschema = "Metrics"\n',
            "prod.toml: [warehouse] schema must be lower-case letters, digits and _, at most 63, got 'Metrics'",
        ),
        ('[warehouse]\nschem = "a"\n', "prod.toml: [warehouse] schem is unknown: did you mean schema?"),
        *(
            (f"[compare]\nmax_regression = {given}\n", f"prod.toml: [compare] max_regression{message}")
            for given, message in (
                (
                    '{ latency_p95 = "ten" }',
                    " must give latency_p95 a limit such as 10%, or for a rate 2pp (percentage points), got 'ten'",
                ),
                ('{ latency_95 = "10%" }', " must name a metric (did you mean latency_p95?), got 'latency_95'"),
                ("{ latency_p95 = 10 }", ".latency_p95 must be a valid string, got 10"),
            )
        ),
        (
            '[destination]\ncompression = "lz4"\n',
            "prod.toml: [destination] compression must be 'zstd', 'snappy', 'gzip' or 'none', got 'lz4'",
        ),
        *(
            (f'[destination]\npath = "{value}"\n', f"prod.toml: [destination] path must be {DESTINATIONS}, got {shown}")
            for value, shown in (
                ("ftp://b", "'ftp://b'"),
                ("https://h/x?sig=canary", "https://…"),
                ("s3:/bucket/x", "'s3:/bucket/x'"),
                ("az:bucket", "'az:bucket'"),
                ("s3:/KEY:canary@b/x", "s3://…"),
            )
        ),
        (
            '[destination]\npath = "s3://bucket//x"\n',
            "prod.toml: [destination] path must be s3://BUCKET/FOLDER, got 's3://bucket//x'",
        ),
        (
            '[destination]\npath = "s3://b"\n[destination.options]\nsecret_access_key = "canary"\n',
            (
                f"prod.toml: [destination] options must be of {', '.join(sorted(BUCKETS['s3']))}, while credentials stay in their "
                "usual places, got secret_access_key"
            ),
        ),
        (
            '[destination]\npath = "s3://KEY:canary@b/x"\n',
            "prod.toml: [destination] path must be s3://BUCKET/FOLDER, got s3://…",
        ),
        (
            '[destination]\npath = "s3://b"\noptions = "canary"\n',
            "prod.toml: [destination] options must be a table of text, true and false, got something else",
        ),
        (
            '[destination.options]\nregion = "x"\n',
            "prod.toml: [destination] options must be left out here, while credentials stay in their usual places, got region",
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
            for value in (
                *("", "proxy:3128", "https://proxy:3128", "socks5://proxy", "http://", "http://proxy/canary"),
                *("http://proxy:port", "http://proxy?canary", "http://[proxy"),
            )
        ),
        (
            '[api]\nproxy = "http://proxy:3128"\nbase_url = "http://localhost:8080"\n',
            "prod.toml: [api] proxy cannot be used with an http:// base_url: the proxy would see the keys, got both",
        ),
    ],
)
def test_each_mistake_names_file_key_and_fix(file: Path, text: str, message: str) -> None:
    if text and "run_test" not in text:
        text = f'run_tests = ["A"]\n{text}'
    assert mistake(file, text) == message


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("METRICS_ETL_API__CONCURRENCY", "0", "environment: METRICS_ETL_API__CONCURRENCY must be at least 1, got '0'"),
        (
            "METRICS_ETL_API__CONCURENCY",
            "1",
            "environment: METRICS_ETL_API__CONCURENCY is unknown: did you mean METRICS_ETL_API__CONCURRENCY?",
        ),
        (
            "METRICS_ETL_APY__CONCURRENCY",
            "1",
            "environment: unknown variable METRICS_ETL_APY__CONCURRENCY: did you mean METRICS_ETL_API__CONCURRENCY?",
        ),
        (
            "METRICS_ETL_API_KEY",
            "canary",
            "environment: unknown variable METRICS_ETL_API_KEY: did you mean FI_API_KEY?",
        ),
        (
            "METRICS_ETL_DESTINATION_PATH",
            "/data",
            "environment: unknown variable METRICS_ETL_DESTINATION_PATH: did you mean METRICS_ETL_DESTINATION__PATH?",
        ),
        (
            "METRICS_ETL_RUN_TEST",
            "A",
            "environment: unknown variable METRICS_ETL_RUN_TEST: did you mean METRICS_ETL_RUN_TESTS?",
        ),
        (
            "METRICS_ETL_RUN_TESTS",
            "[Checkout flow]",
            (
                "environment: METRICS_ETL_RUN_TESTS is not valid JSON: give a name, names joined by commas, or a list such as "
                '["Checkout flow", "Refunds, late"]'
            ),
        ),
        (
            "METRICS_ETL_API",
            "100",
            "environment: METRICS_ETL_API must be a section, got 100",
        ),
        (
            "METRICS_ETL_API",
            "fast",
            "environment: METRICS_ETL_API is not valid JSON: give single values as METRICS_ETL_API__<KEY>",
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


@pytest.mark.parametrize(("value", "number"), [("Checkout flow,", 1), ("", 0), ('["A", ""]', 1)])
def test_empty_name_in_the_environment_names_the_variable_that_was_set(
    file: Path, monkeypatch: pytest.MonkeyPatch, value: str, number: int
) -> None:
    monkeypatch.setenv("METRICS_ETL_RUN_TESTS", value)
    assert mistake(file, "") == f"environment: METRICS_ETL_RUN_TESTS[{number}] name must not be empty, got ''"


def test_empty_name_in_the_file_is_told_as_in_the_environment(file: Path) -> None:
    assert mistake(file, 'run_tests = [""]') == "prod.toml: run_tests[0] name must not be empty, got ''"
