"""The tables and views of a warehouse as sources of a dbt project. Pure: made from the declared tables."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from etl.errors import ExitCode
from etl.load.tables import LAST_LOAD, VIEWS, columns_of, needed_of
from etl.model import schema
from etl.model.lifecycle import ExportState
from etl.model.locations import DEFAULT_NAMESPACE
from etl.model.records import FROM_BOTH, FROM_DETAIL, FROM_LISTS, FROM_METRICS
from etl.model.schema import Column, Table

_VALUES: dict[str, list[str]] = {
    "export_state": [*map(str, ExportState)],
    "metrics_from": [FROM_METRICS, FROM_LISTS, FROM_DETAIL, FROM_BOTH],
    "outcome": sorted({code.outcome for code in ExitCode if code.outcome} | {str(ExportState.FORGOTTEN)}),
}
"""Values of columns that have no others."""
_WRITTEN_AT = {schema.ERRORS.name: "last_seen_at", schema.RUNS_TABLE.name: "finished_at", LAST_LOAD.name: "loaded_at"}
"""The column that says when a row was written, where it is not ``exported_at``."""
_NIGHTLY = (schema.RUNS_TABLE.name, LAST_LOAD.name)
"""What each night changes, even one in which nothing happened at the source."""
_LATE = {"warn_after": {"count": 26, "period": "hour"}, "error_after": {"count": 50, "period": "hour"}}


def sources(tables: Sequence[Table]) -> str:
    """The ``sources.yml`` for these tables and, if they are all, for the views; for dbt 1.10.5 or later."""
    described = [*map(_table, tables)]
    if len(tables) == len(schema.TABLES):
        for view in VIEWS:
            columns = [{"name": name, "description": _meaning(column)} for name, (_, column) in view.columns.items()]
            described.append(_relation(view.name, view.meaning) | {"columns": columns})
    source = {"name": DEFAULT_NAMESPACE, "schema": DEFAULT_NAMESPACE, "tables": described}
    return "\n".join(_yaml({"version": 2, "sources": [source]}))


def _relation(name: str, meaning: str) -> dict[str, Any]:
    """A table or view, without its columns."""
    late = {"freshness": _LATE} if name in _NIGHTLY else {}
    return {
        "name": name,
        "description": meaning,
        "config": {"loaded_at_field": _WRITTEN_AT.get(name, "exported_at"), **late},
    }


def _table(table: Table) -> dict[str, Any]:
    """A table, with what holds for its key."""
    described = _relation(table.name, f"One row per {table.one_row_per}.")
    if len(table.key) > 1:
        key = " || '/' || ".join(table.key)
        described["data_tests"] = [{"unique": {"name": f"{table.name}_key", "arguments": {"column_name": key}}}]
    return described | {"columns": [_column(column, table) for column in columns_of(table)]}


def _column(column: Column, table: Table) -> dict[str, Any]:
    """A column, with what holds for its values."""
    tests: list[Any] = ["unique"] if (column.name,) == table.key else []
    if column.name in needed_of(table):
        tests.append("not_null")
    if values := _VALUES.get(column.name):
        tests.append({"accepted_values": {"arguments": {"values": values}}})
    if table in schema.OF_CALLS and column.name == "execution_id":
        to = f"source('{DEFAULT_NAMESPACE}', '{schema.EXECUTIONS.name}')"
        tests.append({"relationships": {"arguments": {"to": to, "field": column.name}}})
    return {"name": column.name, "description": _meaning(column)} | ({"data_tests": tests} if tests else {})


def _meaning(column: Column) -> str:
    return f"{column.meaning} Unit: {column.unit}." if column.unit else column.meaning


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """The lines of an object or list as YAML. Texts are quoted as in JSON, which YAML reads alike."""
    for name, each in value.items() if isinstance(value, dict) else enumerate(value):
        start = f"{indent}{name}:" if isinstance(value, dict) else f"{indent}-"
        if isinstance(each, dict | list):
            lines = [*_yaml(each, f"{indent}  ")]
            is_in_list = isinstance(value, list)
            yield f"{start} {lines[0].lstrip()}" if is_in_list else start
            yield from lines[is_in_list:]
        else:
            yield f"{start} {json.dumps(each, ensure_ascii=False)}"
