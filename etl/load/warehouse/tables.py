"""The tables of a warehouse: those of the dataset with run_test and month as columns, one of what was loaded, and a view. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from etl.model import schema
from etl.model.digest import fingerprint
from etl.model.schema import STRING, Column, Table

STATE = "metrics_etl_state"
CURRENT_CALLS = "calls_current"


@dataclass(frozen=True, slots=True)
class Group:
    """Tables of which the rows of one ``item`` are replaced together, in the order in which they arrive."""

    kind: str
    item: str
    tables: tuple[Table, ...]


GROUPS = (
    Group("execution", "execution_id", (schema.CALLS, schema.EVALS, schema.EXECUTIONS)),
    Group("errors", "run_test", (schema.ERRORS,)),
    Group("run", "export_run_id", (schema.RUNS_TABLE,)),
)
STATE_TABLE = Table(
    STATE,
    "item that was loaded, for the next load; of no use to readers",
    "",
    (
        Column("kind", STRING, "dataset, execution, errors, run, or table (Delta only).", is_key=True),
        Column(
            "item",
            STRING,
            "Id of the dataset, execution or export run; key of the run test; name of the table.",
            is_key=True,
        ),
        Column("digest", STRING, "Hash of what the dataset held when the item was loaded."),
        Column("checksum", STRING, "The warehouse's own hash of the item's rows, as they were loaded."),
    ),
    (),
)
_OF_EXECUTION = ("status", "completed_at", "export_state")
"""What the view says of a call's execution, each as ``execution_<name>``."""


def columns_of(table: Table) -> tuple[Column, ...]:
    """The columns of the table in a warehouse: those of the files, then those that stand in their path."""
    return (*table.columns, *table.partitions)


def needed_of(table: Table) -> set[str]:
    """The columns that no row may lack: one of no item could not be replaced, and one of no place not be found."""
    items = {group.item for group in GROUPS if table in group.tables}
    return {*table.key, *items, *(column.name for column in table.partitions)}


def arrow_schema_of(table: Table) -> pa.Schema:
    """Their Arrow types."""
    return pa.schema([pa.field(column.name, column.type) for column in columns_of(table)])


def current_calls() -> dict[str, tuple[str, str]]:
    """The columns of the view: of each its table and its name there."""
    of_execution = {f"execution_{name}": (schema.EXECUTIONS.name, name) for name in _OF_EXECUTION}
    return {column.name: (schema.CALLS.name, column.name) for column in columns_of(schema.CALLS)} | of_execution


def shape(tables: Sequence[Table]) -> str:
    """A hash of all columns, their types and the view: another one means that a table must be looked at before it is filled."""
    columns = {table.name: [(column.name, str(column.type)) for column in columns_of(table)] for table in tables}
    return fingerprint(columns | {CURRENT_CALLS: [*current_calls()]})


def with_places(rows: pa.Table, table: Table, places: Mapping[str, str]) -> pa.Table:
    """The rows of a file, with the columns that stand in its path."""
    added = [pa.repeat(pa.scalar(places[column.name], column.type), len(rows)) for column in table.partitions]
    return pa.Table.from_arrays([*rows.columns, *added], schema=arrow_schema_of(table))


ALL_TABLES = (*(table for group in GROUPS for table in group.tables), STATE_TABLE)
