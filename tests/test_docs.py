"""README, docs, help, example settings and code say the same."""

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

import etl
from etl.cli.commands import app
from etl.cli.show_schema import schema_markdown
from etl.errors import ExitCode
from etl.extract.plan import REASON_MEANINGS, Reason
from etl.extract.purpose import Purpose
from etl.inspect.reconcile import SKIPPED_MEANINGS, Comparison, Skipped
from etl.inspect.rules import FIXES, Finding, Kind
from etl.inspect.status import LetterStatus, RunStatus, RunTestStatus, Status, TableStatus
from etl.inspect.verify import Report
from etl.inspect.warehouse import Day, WarehouseReport
from etl.load.warehouse.ddl import ENGINES, ddl
from etl.load.warehouse.engines import EngineName
from etl.model.locations import BUCKETS
from etl.model.schema import EXECUTIONS, TABLES
from etl.pipeline.preflight import Subject
from etl.pipeline.progress import Progress
from etl.settings import RunTest, Settings
from etl.transform.aggregates import CAUSE_MEANINGS, Cause
from tests.bundles import execution, plan_of

ROOT = Path(__file__).parents[1]
SECRETS = {"api_key", "secret_key", "proxy_user", "proxy_password"}


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_data_dictionary_is_what_the_schema_says() -> None:
    """Mend it with: metrics-etl schema --format markdown."""
    _, _, generated = text("docs/data-dictionary.md").partition("\n\n## ")
    assert "## " + generated.strip() == "\n".join(schema_markdown(list(TABLES.values()))).strip()


@pytest.mark.parametrize("engine", sorted(ENGINES.keys() - {"snowflake-direct"}))
def test_reading_shows_what_the_command_prints(engine: str) -> None:
    """Mend it with: metrics-etl schema executions --ddl ENGINE."""
    documented = text("docs/reading.md")
    heading = re.search(rf"^## ({engine})$", documented, re.MULTILINE | re.IGNORECASE)
    assert heading
    assert f"| [{heading[1]}](#{engine}) |" in documented
    shown = documented[heading.end() :].split("```")[1].splitlines()[1:]
    printed = ddl([EXECUTIONS], engine).splitlines()
    (at,) = (number for number, line in enumerate(shown) if "…" in line)
    left_out = re.search(r"… (\d+) more columns$", shown[at])
    assert left_out
    columns = int(left_out[1])
    assert shown == [*printed[:at], shown[at], *printed[at + columns :]]
    assert columns < len(EXECUTIONS.columns)


def test_reading_shows_what_opens_the_dataset_in_snowflake_in_place() -> None:
    """Mend it with: metrics-etl schema executions --ddl snowflake-direct."""
    documented = text("docs/reading.md")
    section = documented.partition("\n## Snowflake, in place\n")[2].partition("\n## ")[0]
    assert section.split("```")[1] == f"sql\n{ddl([EXECUTIONS], 'snowflake-direct')}\n"
    assert "| [Snowflake, in place](#snowflake-in-place) |" in documented


def test_every_engine_is_named_where_the_option_is_documented() -> None:
    (row,) = re.findall(r"^\| `--ddl` ENGINE \|.*$", text("docs/commands.md"), re.MULTILINE)
    assert [name for name in re.findall(r"`([a-z-]+)`", row) if name != "--ddl"] == list(EngineName)


def commands() -> dict[str, Any]:
    group = typer.main.get_command(app)
    return dict(group.commands)  # type: ignore[attr-defined]


def test_every_command_and_option_is_documented_and_has_an_example() -> None:
    documented = text("docs/commands.md")
    for name, command in commands().items():
        section = documented.partition(f"\n## {name}")[2].partition("\n## ")[0]
        assert section, name
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
        assert options - {"--help", "-h"} == set(re.findall(r"`(--?[a-z-]+)`", section)), name
        assert "Example: metrics-etl " in command.help or not command.params, name


def test_every_reason_is_documented_in_its_words() -> None:
    documented = text("docs/commands.md")
    for reason, meaning in REASON_MEANINGS.items():
        assert f"| `{reason.value}` | {meaning}" in documented


def test_every_purpose_is_documented_with_the_reasons_that_it_is_for() -> None:
    [item] = plan_of([execution()], {})
    reasons: dict[str, set[str]] = {purpose.value: set() for purpose in Purpose}
    for reason in Reason:
        if (planned := replace(item, reason=reason)).is_fetched:
            reasons[planned.purpose.value].add(reason.value)
    rows = text("docs/commands.md").partition("| purpose |")[2].partition("\n\n")[0]
    documented = re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", rows, re.MULTILINE)
    assert {purpose: set(re.findall(r"`([a-z]+)`", meaning)) for purpose, meaning in documented} == reasons


def test_everything_that_verify_may_say_is_documented_in_its_words() -> None:
    documented = text("docs/commands.md").partition("\n## verify")[2].partition("\n## ")[0]
    assert set(CAUSE_MEANINGS) == set(Cause)
    assert set(SKIPPED_MEANINGS) == set(Skipped)
    for name, meaning in (*CAUSE_MEANINGS.items(), *SKIPPED_MEANINGS.items()):
        assert f"| `{name}` | {meaning} |" in documented
    for kind in Kind:
        assert re.search(rf"^\| `{kind}` \| .+ \| {re.escape(FIXES[kind])} \|$", documented, re.MULTILINE), kind


def test_every_field_of_the_report_is_documented() -> None:
    documented = (
        text("docs/commands.md").partition("\n## verify")[2].partition("\n## ")[0].partition("`--json` prints")[2]
    )
    warehouse = WarehouseReport("a warehouse", rows=Counter(calls=1), days=[Day("calls", "a", "2026-11-01", 1, 0)])
    finding = Finding(Kind.DAMAGED, "place", "text")
    report = Report("data", findings=[finding], comparison=Comparison(), warehouse=warehouse).as_json()
    fields = {*report, *report["tables"][0], *report["findings"][0], *report["against_api"], *report["warehouse"]}
    fields |= {*report["warehouse"]["tables"][0], *report["warehouse"]["days"][0]}
    assert fields == set(re.findall(r"[a-z_]+", documented)) - {"is", "null", "or", "execution_id", "count"}


def test_every_subject_of_the_check_is_documented_in_order() -> None:
    section = text("docs/commands.md").partition("\n## check")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z ]+)` \|", section, re.MULTILINE) == [subject.value for subject in Subject]


def test_every_field_of_the_status_is_documented() -> None:
    section = text("docs/commands.md").partition("\n## status")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`([a-z_]+)`", section.partition("| JSON field")[2]))
    values = (Status, RunTestStatus, TableStatus, RunStatus, LetterStatus)
    assert {field.name for value in values for field in fields(value)} <= documented


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("README.md", "## Exit codes"),
        ("docs/operations.md", "## What does the exit code ask me to do?"),
        ("docs/deploy.md", "# Deploy"),
    ],
)
def test_every_exit_code_is_documented(path: str, title: str) -> None:
    table = text(path).partition(title)[2].partition("\n## ")[0]
    found = {int(code) for cell in re.findall(r"^\| ([0-9, ]+) \|", table, re.MULTILINE) for code in cell.split(",")}
    assert found == set(ExitCode)


def settings_with_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Every key with its default, sections nested."""
    return {
        field.alias or name: settings_with_defaults(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        else field.default
        for name, field in model.model_fields.items()
        if name not in SECRETS
    }


def test_example_settings_hold_every_key_with_its_default() -> None:
    example = text("config/example.toml")
    uncommented = re.sub(
        r"^# ((ca_file|proxy|max_runtime_minutes|path|options|url) = )", r"\1", example, flags=re.MULTILINE
    )
    found = tomllib.loads(uncommented)
    expected = settings_with_defaults(Settings)
    assert found.pop("run_tests") == ["My Agent Test"]
    del expected["run_tests"]
    assert {section: set(keys) for section, keys in found.items()} == {
        section: set(keys) for section, keys in expected.items()
    }
    assert found["api"].pop("requests_per_minute") == "auto"
    assert found["api"].pop("ca_file")
    assert found["api"].pop("proxy")
    assert found["export"].pop("max_runtime_minutes")
    assert found["destination"].pop("path")
    assert found["destination"].pop("options")
    assert found["warehouse"].pop("url")
    for section, keys in found.items():
        assert keys == {name: expected[section][name] for name in keys}, section
    for name in RunTest.model_fields:
        assert f"{name} = " in example


def test_every_option_of_a_bucket_is_in_the_example() -> None:
    told = text("config/example.toml").partition("# options = ")[2].partition("[warehouse]")[0]
    for scheme, options in BUCKETS.items():
        assert f"{scheme}:" in told
        for option in options:
            assert option in told


def test_example_settings_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("METRICS_ETL_", "FI_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("FI_API_KEY", "key")
    monkeypatch.setenv("FI_SECRET_KEY", "secret")
    assert Settings.load(ROOT / "config/example.toml").run_tests[0].name == "My Agent Test"


def test_every_log_event_is_documented() -> None:
    modules = [*(ROOT / "etl/pipeline").glob("*.py"), ROOT / "etl/cli/run.py"]
    source = "".join(path.read_text(encoding="utf-8") for path in modules)
    documented = text("docs/operations.md").partition("## Log events")[2]
    assert set(re.findall(r"notify\(\s*\"([a-z_]+)\"", source)) == set(
        re.findall(r"^\| `([a-z_]+)` \|", documented, re.MULTILINE)
    )


def test_every_prometheus_metric_is_documented() -> None:
    documented = text("docs/operations.md").partition("## Monitoring")[2].partition("\n## ")[0]
    told = re.findall(r'set_gauge\(\s*"([a-z_]+)"', text("etl/pipeline/metrics_file.py"))
    assert {f"metrics_etl_{name}" for name in told} == set(re.findall(r"`(metrics_etl_[a-z_]+)`", documented))


def test_every_field_of_the_summary_is_documented() -> None:
    documented = text("docs/operations.md").partition("## Did last night work?")[2].partition("\n## ")[0]
    fields = set(
        re.findall(
            r'^            "([a-z_]+)": ', text("etl/pipeline/summary.py").partition("def as_row")[0], re.MULTILINE
        )
    )
    assert fields == set(re.findall(r"`([a-z_]+)`", documented.partition("| field")[2])) & fields


def test_everything_public_can_be_imported_and_is_described() -> None:
    for name in etl.__all__:
        value = getattr(etl, name)
        assert name == "__version__" or value.__doc__
    assert Progress.__doc__


def test_everything_public_is_listed_where_a_shell_completes_names() -> None:
    """In a fresh process: here the names may have been used before."""
    code = "import etl, rlcompleter; c = rlcompleter.Completer({'etl': etl}); print(*map(c.complete, ['etl.'] * 99, range(99)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {f"etl.{name}" for name in etl.__all__ if not name.startswith("_")} <= set(re.findall(r"etl\.\w+", shown))


def test_changelog_names_the_version() -> None:
    assert re.search(r"^## (Unreleased|\[?" + re.escape(etl.__version__) + ")", text("CHANGELOG.md"), re.MULTILINE)


def test_local_links_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), (path, target)


def test_readme_can_be_read_in_five_minutes() -> None:
    assert len(text("README.md").split()) <= 900


def test_index_leads_to_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\]\(([a-z-]+\.md)\)", text("docs/index.md")))
    assert "(docs/index.md)" in text("README.md")


def test_nothing_names_a_registry() -> None:
    for path in ("requirements.lock", "requirements-dev.lock", "tests/readers.lock", "pyproject.toml"):
        assert "://" not in text(path).replace("https://api.futureagi.com", ""), path
