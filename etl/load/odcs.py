"""The dataset as a contract of the Open Data Contract Standard (ODCS).

Pure: made from the declared tables, not from the files. The contract has only rules that every file keeps. A column
that an older version did not have is null in the rows of that version. So only the keys and the partition columns are
required.
"""

from collections.abc import Sequence
from typing import Any

from etl.load.ddl import dataset_root
from etl.model import schema
from etl.model.schema import Column, Table
from etl.version import __version__

API_VERSION = "v3.1.0"
"""The version of the standard; tools of a later 3.x read it."""
PLACEHOLDER = "data"
"""Stands for the location if none is given."""
_ID = "simulation-metrics"
_SERVERS = {"": "local", "s3": "s3", "gs": "custom", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""By URL scheme that a location may have, the standard's type of server; it has none for Google's buckets. The empty
scheme means a path.
"""
_TYPES: dict[Any, tuple[str, str, dict[str, Any]]] = {
    schema.STRING: ("string", "string", {}),
    schema.INT: ("integer", "int64", {"format": "i64"}),
    schema.FLOAT: ("number", "double", {"format": "f64"}),
    schema.BOOL: ("boolean", "boolean", {}),
    schema.TIMESTAMP: ("timestamp", "timestamp", {"timezone": True}),
}
"""Logical type, physical type and options of the logical type, in the standard's words."""
_IN_EXECUTIONS = {(schema.CALLS.name, "execution_id"), (schema.EVALS.name, "execution_id")}
"""The ids that refer to a row of ``executions`` once a run has ended.

Others may not: an eval may arrive before its call, and a run that was killed has no row.
"""
_DESCRIPTION = {
    "purpose": "Metrics of Future AGI simulations: every execution, call and eval output of the exported run tests, "
    "and the export runs.",
    "usage": "Read each table as one Hive-partitioned folder of Parquet files. Leave out rows that have a deleted_at, "
    "unless you are looking for what was deleted at the source.",
    "limitations": "Null means that the API gave no value that fits: a missing metric is never zero. "
    "In rows that an older version of the exporter wrote, columns that it did not have are null. "
    "The averages in executions are the API's, which gives 0.0 where no call had data. "
    "While an export runs, calls and evals appear before their execution.",
}


def contract(tables: Sequence[Table], location: str | None = None) -> dict[str, Any]:
    """The contract for the tables, as a JSON object.

    ``location`` is the dataset's path or URL; by default, a placeholder stands for it. ``errors`` is left out unless it
    is the only table: without dead letters it has no folder, which tools call a broken contract.

    Raises:
        ConfigurationError: readers of the contract cannot read this location.
    """
    root = PLACEHOLDER if location is None else dataset_root(location, "odcs", [*_SERVERS])
    promised = [table for table in tables if table.name != schema.ERRORS.name] or tables
    names = {table.name for table in promised}
    return {
        "apiVersion": API_VERSION,
        "kind": "DataContract",
        "id": _ID,
        "name": _ID,
        "version": __version__,
        "status": "active",
        "description": _DESCRIPTION,
        "servers": [_server(root)],
        "schema": [_table(table, names) for table in promised],
    }


def _server(root: str) -> dict[str, Any]:
    scheme = root.partition("://")[0] if "://" in root else ""
    # Tools replace {model} with the name of a table.
    files = f"{root}/{{model}}/**/*.parquet"
    place = "location" if scheme else "path"
    return {"server": "dataset", "type": _SERVERS[scheme], place: files, "format": "parquet"}


def _table(table: Table, promised: set[str]) -> dict[str, Any]:
    """One table of the contract; ``promised`` are the names of all its tables."""
    partitions = [
        _property(column) | {"required": True, "partitioned": True, "partitionKeyPosition": position}
        for position, column in enumerate(table.partitions, start=1)
    ]
    key_is_unique = _quality(f"{table.name}_key_is_unique", "duplicateValues", "uniqueness", properties=list(table.key))
    return {
        "name": table.name,
        "physicalName": table.name,
        "physicalType": "table",
        "logicalType": "object",
        "description": f"One row per {table.one_row_per}.",
        "dataGranularityDescription": f"One row per {table.one_row_per}; its key is {', '.join(table.key)}.",
        "properties": [*(_property(column) | _rules(column, table, promised) for column in table.columns), *partitions],
        "quality": [key_is_unique],
        **({"customProperties": [_custom("source", f"GET {table.endpoint}")]} if table.endpoint else {}),
    }


def _property(column: Column) -> dict[str, Any]:
    """A column, with what holds for every column: types, meaning, unit, source."""
    logical, physical, options = _TYPES[column.type]
    options = options | ({"format": "json"} if column.is_json else {})
    details = {"unit": column.unit, "source": column.source, "nullRule": column.null_rule}
    return {
        "name": column.name,
        "logicalType": logical,
        "physicalType": physical,
        **({"logicalTypeOptions": options} if options else {}),
        "description": column.meaning,
        "required": False,
        "customProperties": [_custom(name, value) for name, value in details.items() if value],
    }


def _rules(column: Column, table: Table, promised: set[str]) -> dict[str, Any]:
    """What holds for the values of a column of the files, where the contract promises the tables of these names."""
    rules: dict[str, Any] = {}
    if column.is_key:
        rules = {
            "required": True,
            "unique": len(table.key) == 1,
            "primaryKey": True,
            "primaryKeyPosition": table.key.index(column.name) + 1,
            "quality": [_quality(f"{table.name}_{column.name}_is_given", "nullValues", "completeness")],
        }
    if (table.name, column.name) in _IN_EXECUTIONS and schema.EXECUTIONS.name in promised:
        rules["relationships"] = [{"type": "foreignKey", "to": f"{schema.EXECUTIONS.name}.{column.name}"}]
    return rules


def _quality(name: str, metric: str, dimension: str, **arguments: Any) -> dict[str, Any]:
    """A rule of the standard's library: the metric, with these arguments, must be 0."""
    rule = {"name": name, "type": "library", "metric": metric, **({"arguments": arguments} if arguments else {})}
    return rule | {"mustBe": 0, "dimension": dimension, "severity": "error"}


def _custom(name: str, value: str) -> dict[str, str]:
    """A property that the standard does not have."""
    return {"property": name, "value": value}
