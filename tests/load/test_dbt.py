"""The sources for dbt are those of a real load, and dbt's own tests of them pass on it.

dbt itself runs in an environment of its own, which make test-all makes.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from etl.load.dbt import sources
from etl.load.tables import VIEWS, columns_of
from etl.model import schema
from tests.loads import next_export
from tests.support import run_to_end
from tests.warehouses import Place, load_into

DBT = Path(__file__).parents[2] / ".venv-dbt" / "bin" / "dbt"
TABLES = [*schema.TABLES.values()]


def parsed(tables: list[schema.Table]) -> dict[str, Any]:
    """The tables and views of the source, by name."""
    (source,) = yaml.safe_load(sources(tables))["sources"]
    return {table["name"]: table for table in source["tables"]}


def test_every_table_view_and_column_has_its_meaning_and_each_table_its_key() -> None:
    found = parsed(TABLES)
    declared = {table.name: [column.name for column in columns_of(table)] for table in TABLES}
    declared |= {view.name: [*view.columns] for view in VIEWS}
    assert {name: [each["name"] for each in table["columns"]] for name, table in found.items()} == declared
    assert all(each["description"] for table in found.values() for each in [table, *table["columns"]])
    for table in TABLES:
        columns = {each["name"]: each.get("data_tests", []) for each in found[table.name]["columns"]}
        unique = [name for name, tests in columns.items() if "unique" in tests]
        unique += [test["unique"]["arguments"]["column_name"] for test in found[table.name].get("data_tests", [])]
        assert unique == [" || '/' || ".join(table.key)]
        assert all("not_null" in columns[name] for name in table.key)
    for table in found.values():
        assert table["config"]["loaded_at_field"] in declared[table["name"]]
    assert [name for name, table in found.items() if "freshness" in table["config"]] == ["runs", "last_load"]


def test_one_table_comes_without_views() -> None:
    assert [*parsed([schema.CALLS])] == ["calls"]


@pytest.mark.slow
def test_dbt_parses_the_sources_and_its_tests_pass_on_a_load(data: Path, in_duckdb: Place, tmp_path: Path) -> None:
    if not DBT.exists():
        pytest.skip(".venv-dbt is missing: make test-all makes it")
    load_into(in_duckdb, data)
    next_export(data)
    load_into(in_duckdb, data)
    in_duckdb.close()
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    (project / "models" / "sources.yml").write_text(sources(TABLES))
    (project / "dbt_project.yml").write_text("name: ours\nprofile: ours\nflags: {send_anonymous_usage_stats: false}\n")
    output = f"{{type: duckdb, path: '{in_duckdb.url.removeprefix('duckdb://')}'}}"
    (project / "profiles.yml").write_text(f"ours: {{target: it, outputs: {{it: {output}}}}}\n")

    def dbt(*command: str) -> str:
        ended = run_to_end([DBT, "--warn-error", "--no-use-colors", *command], cwd=project)
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    dbt("parse")
    described = [each for table in parsed(TABLES).values() for each in [table, *table["columns"]]]
    tests = sum(len(each.get("data_tests", ())) for each in described)
    assert f"PASS={tests} WARN=0 ERROR=0" in dbt("test")
    assert "PASS freshness of simulation_metrics.last_load" in dbt("source", "freshness", "-s", "source:*.last_load")
