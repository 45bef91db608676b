"""The JSON schema accepts what the settings accept and refuses what they refuse, as far as it can say it."""

import datetime as dt
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import SecretStr

from etl.settings import Settings
from tests.settings.json_schema import settings_schema
from tests.settings.reading import mistake, read_settings
from tests.settings.test_messages import test_each_mistake_names_file_key_and_fix as told_mistakes

ROOT = Path(__file__).parents[2]
SCHEMA = settings_schema()
SECTIONS = {name: each["properties"] for name, each in SCHEMA["properties"].items() if name != "run_tests"}
WAREHOUSES = ("duckdb://x.duckdb", "duckdb:///a b/x", "postgresql://u@h:5432/d?sslmode=require", "postgresql:///d")
NOT_TOLD = (
    "names 'A' twice",  # in two forms, or with two keys
    "share the key",
    "is inside the dataset",
    "must be a number, got nan",  # JSON has no nan
    *("[api] base_url must", "[api] proxy must", "cannot be used with an http:// base_url", "must be a power of two"),
    *("[destination] path must be", "options must not contain"),
    *("[warehouse] url must", "[warehouse] schema must", "max_regression n", "call_url must"),
)
"""What the schema leaves to ``check``."""


def in_json(text: str) -> Any:
    """As an editor hands a TOML file to a schema: dates are text."""
    return json.loads(json.dumps(tomllib.loads(text), default=dt.date.isoformat))


def refused(text: str) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(in_json(text))]


def every_default() -> str:
    """A settings file that says what is so anyway."""
    lines = ['run_tests = "all"']
    for name, keys in SECTIONS.items():
        defaults = {key: json.dumps(value["default"]) for key, value in keys.items() if "default" in value}
        lines += [f"[{name}]", *(f"{key} = {default}" for key, default in defaults.items())]
    return "\n".join(lines)


ACCEPTED = [
    'run_tests = "all"',
    'run_tests = ["A", {name = "B", key = "b-1_c", since = 2026-01-01}]',
    'run_tests = [{name = "ü  x", key = ""}]',
    "[api]\nrequests_per_minute = 100\nquota_share = 1\npage_limit = 16384",
    '[api]\nrequests_per_minute = "auto"\nread_timeout_seconds = 0.5',
    '[destination]\npath = "s3://b"\noptions = { region = "x", request_payer = true }',
    '[destination]\npath = "az://b"\noptions = { use_azure_cli = true }',
    "[destination]\noptions = {}",
    '[export]\nmax_runtime_minutes = 10.5\nsettle_hours = 0\nsince = 2026-01-01\nleave_out = ["evals.reason"]',
    '[compare]\nmax_regression = { latency_p95 = "10%", failure_rate = "2.5 pp", eval_tone_mean = " 5 % " }',
    '[report]\ncall_url = "https://h:1/a?b={execution_id}&c={call_execution_id}#d"',
    '[report]\ncall_url = "http://h"',
    *(f'[warehouse]\nurl = "{url}"\nschema = "a_1"' for url in WAREHOUSES),
    '[api]\nca_file = "prod.toml"\nproxy = "http://proxy.example:3128"',
    '[engine]\nkind = "dask"\naddress = "tcp://scheduler:8786"',
    '[notify]\nurl = "https://hooks.slack.com/services/x"',
]


def test_it_is_a_json_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_every_setting_is_in_it_with_its_meaning_and_no_secret() -> None:
    given = {name for name, field in Settings.model_fields.items() if "SecretStr" not in str(field.annotation)}
    assert set(SCHEMA["properties"]) == given
    assert SecretStr.__name__ not in json.dumps(SCHEMA)
    for name in given - {"run_tests"}:
        annotation: Any = Settings.model_fields[name].annotation
        section = SCHEMA["properties"][name]
        assert set(section["properties"]) == {field.alias or key for key, field in annotation.model_fields.items()}
        assert section["additionalProperties"] is False
        for key in section["properties"].values():
            assert key["description"]
            assert "default" not in key or key["default"] is not None


def test_meaning_names_each_column_that_can_be_left_out() -> None:
    key = SECTIONS["export"]["leave_out"]
    assert [each for each in key["items"]["enum"] if each not in key["description"]] == []


def test_the_defaults_are_those_of_the_settings(file: Path) -> None:
    assert read_settings(file, every_default()) == read_settings(file, 'run_tests = "all"')


@pytest.mark.parametrize(
    "text",
    [
        every_default(),
        *((ROOT / "config" / name).read_text(encoding="utf-8") for name in ("example.toml", "sandbox.toml")),
    ],
    ids=["every default", "example", "sandbox"],
)
def test_it_accepts_the_settings_that_come_with_the_product(text: str) -> None:
    assert refused(text) == []


def test_every_key_of_the_schema_is_among_those_that_are_accepted() -> None:
    accepted = [in_json(text) for text in (every_default(), *ACCEPTED)]
    for name, keys in SECTIONS.items():
        assert {key for each in accepted for key in each.get(name, {})} == set(keys)


@pytest.mark.parametrize("text", ACCEPTED)
def test_it_accepts_what_the_settings_accept(file: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    text = text if text.startswith("run_tests") else f'run_tests = ["A"]\n{text}'
    read_settings(file, text)
    assert refused(text) == []


def every_mistake() -> list[str]:
    """Those that test_messages.py tells."""
    (mark,) = told_mistakes.pytestmark  # type: ignore[attr-defined]
    return [text for text, message in mark.args[1] if not any(words in message for words in NOT_TOLD)]


@pytest.mark.parametrize(
    "text",
    [
        *every_mistake(),
        "[api]\nquota_share = 0",
        "[api]\nmax_tries = 1.5",
        "[api]\nproxy = true",
        "[export]\ncommit_interval_seconds = 0",
        '[export]\ncalls = "some"',
        '[export]\ninclude_raw = "perhaps"',
        '[destination]\npath = ""',
        '[destination]\npath = "s3://b"\noptions = { region = 1 }',
        '[log]\nlevel = "loud"',
        "[log]\ncolor = true",
    ],
)
def test_it_refuses_what_the_settings_refuse(file: Path, text: str) -> None:
    text = text if not text or "run_test" in text else f'run_tests = ["A"]\n{text}'
    assert mistake(file, text)
    assert refused(text)


def test_what_a_schema_cannot_say_is_known() -> None:
    (mark,) = told_mistakes.pytestmark  # type: ignore[attr-defined]
    messages = [message for _, message in mark.args[1]]
    assert all(any(words in message for message in messages) for words in NOT_TOLD)
