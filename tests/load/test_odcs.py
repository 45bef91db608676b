"""The contract is one of the standard, and says of every table what the declared schema says.

tests/load/test_ddl_opens.py holds a real dataset against it.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from etl.errors import ConfigurationError
from etl.load.odcs import contract
from etl.load.tables import COLUMN_TYPES
from etl.model import schema
from etl.version import __version__

TABLES = list(schema.TABLES.values())
STANDARD = json.loads((Path(__file__).parents[1] / "odcs" / "odcs-3.1.0.schema.json").read_text(encoding="utf-8"))
LOGICAL = dict(zip(COLUMN_TYPES, ("string", "integer", "number", "boolean", "timestamp"), strict=True))
OPTIONS = {schema.INT: {"format": "i64"}, schema.FLOAT: {"format": "f64"}, schema.TIMESTAMP: {"timezone": True}}
LOCATIONS = [None, "/srv/data", "s3://bucket/metrics", "gs://bucket/metrics", "az://c/metrics"]
every_table = pytest.mark.parametrize("table", TABLES, ids=schema.TABLES)


def mistakes(document: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft201909Validator(STANDARD).iter_errors(document)]


def properties(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (table,) = document["schema"]
    return {each["name"]: each for each in table["properties"]}


def custom(element: dict[str, Any]) -> dict[str, str]:
    return {each["property"]: each["value"] for each in element.get("customProperties", ())}


@pytest.mark.parametrize("location", LOCATIONS)
def test_the_standard_accepts_the_contract(location: str | None) -> None:
    assert mistakes(contract(TABLES, location)) == []


@every_table
def test_the_standard_accepts_the_contract_of_one_table(table: schema.Table) -> None:
    assert mistakes(contract([table])) == []


def test_the_standard_refuses_what_is_missing_or_of_our_own() -> None:
    """Else the test above could not fail."""
    document = contract([schema.CALLS])
    assert document.pop("version") == __version__
    document["schema"][0]["properties"][0]["unit"] = "ms"
    assert {each.partition(" ")[0] for each in mistakes(document)} == {"Unevaluated", "'version'"}


@every_table
def test_every_column_has_its_types_and_its_meaning(table: schema.Table) -> None:
    found = properties(contract([table]))
    assert list(found) == [column.name for column in (*table.columns, *table.partitions)]
    for column in (*table.columns, *table.partitions):
        told = found[column.name]
        assert told["logicalType"] == LOGICAL[column.type]
        assert told["physicalType"] == column.type_name.replace("bool", "boolean").partition("[")[0]
        assert told["description"] == column.meaning
        texts = {"unit": column.unit, "source": column.source, "nullRule": column.null_rule}
        assert custom(told) == {name: text for name, text in texts.items() if text}
        assert told.get("logicalTypeOptions") == ({"format": "json"} if column.is_json else OPTIONS.get(column.type))


@every_table
def test_the_key_is_given_and_unique_and_no_other_column_of_the_files_is_promised(table: schema.Table) -> None:
    """A column that an older version did not have is null in its rows."""
    document = contract([table])
    found = properties(document)
    (unique,) = document["schema"][0]["quality"]
    assert (unique["metric"], unique["mustBe"]) == ("duplicateValues", 0)
    assert unique["arguments"] == {"properties": list(table.key)}
    for column in table.columns:
        told = found[column.name]
        assert told["required"] == column.is_key
        assert told.get("primaryKey", False) == column.is_key
        assert told.get("unique", False) == (table.key == (column.name,))
        rules = [(each["metric"], each["mustBe"]) for each in told.get("quality", ())]
        assert rules == ([("nullValues", 0)] if column.is_key else [])
    positions = {name: found[name]["primaryKeyPosition"] for name in table.key}
    assert positions == {name: position for position, name in enumerate(table.key, start=1)}


@every_table
def test_what_stands_in_the_path_is_told_as_partitions(table: schema.Table) -> None:
    found = properties(contract([table]))
    told = {name: prop["partitionKeyPosition"] for name, prop in found.items() if prop.get("partitioned")}
    assert told == {column.name: position for position, column in enumerate(table.partitions, start=1)}
    assert all(found[name]["required"] for name in told)


def test_calls_and_evals_refer_to_their_execution_where_the_contract_has_it() -> None:
    def references(*tables: schema.Table) -> dict[str, str]:
        return {
            f"{table['name']}.{each['name']}": relation["to"]
            for table in contract(tables)["schema"]
            for each in table["properties"]
            for relation in each.get("relationships", ())
        }

    of_execution = "executions.execution_id"
    assert references(*TABLES) == {"calls.execution_id": of_execution, "evals.execution_id": of_execution}
    assert references(schema.CALLS, schema.EVALS) == {}


def test_errors_stand_in_a_contract_of_their_own_for_their_folder_may_be_missing() -> None:
    assert [table["name"] for table in contract(TABLES)["schema"]] == ["executions", "calls", "evals", "runs"]
    assert [table["name"] for table in contract([schema.ERRORS])["schema"]] == ["errors"]


@pytest.mark.parametrize(
    ("location", "kind", "key"),
    [
        (None, "local", "path"),
        ("/srv/data/", "local", "path"),
        ("s3://b/p", "s3", "location"),
        ("az://c/p", "azure", "location"),
        ("abfss://c@a.dfs.core.windows.net/p", "azure", "location"),
        ("gs://b/p", "custom", "location"),
    ],
)
def test_the_server_is_the_dataset_with_a_folder_for_each_table(location: str | None, kind: str, key: str) -> None:
    (server,) = contract(TABLES, location)["servers"]
    root = (location or "data").rstrip("/")
    assert server == {"server": "dataset", "type": kind, key: f"{root}/{{model}}/**/*.parquet", "format": "parquet"}


@pytest.mark.parametrize("bad", ["ftp://host/data", "data/{model}", "s3://"])
def test_location_that_a_contract_cannot_name_is_refused(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="--location"):
        contract(TABLES, bad)
