"""The tables of a warehouse: those of the dataset with run_test and month as columns, one of what was loaded, and views. Pure.

And how SQL says their columns, whatever the engine.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from etl.model import schema
from etl.model.digest import fingerprint
from etl.model.schema import INT, STRING, Column, Table

KINDS = (schema.STRING, schema.INT, schema.FLOAT, schema.BOOL, schema.TIMESTAMP)
Types = Mapping[pa.DataType, str]
"""An engine's names of them."""
STATE = "metrics_etl_state"
Place = tuple[str | None, ...]
"""The values of a table's partition columns."""
_COMMENT_MAX_BYTES = 255  # what Glue and the Hive metastore keep of a column's comment


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
    "item that was loaded, kept for the next load; readers do not need it",
    "",
    (
        Column("kind", STRING, "dataset, execution, errors, run, view, or table (Delta only).", is_key=True),
        Column(
            "item",
            STRING,
            "Id of the dataset, execution or export run; key of the run test; name of the view or table.",
            is_key=True,
        ),
        Column("digest", STRING, "Hash of what the dataset held when the item was loaded; definition of the view."),
        Column("row_count", INT, "How many rows of the item were loaded (not in Delta)."),
    ),
    (),
)


@dataclass(frozen=True, slots=True)
class View:
    """What the source has of a table; with columns ``of_execution``, as ``execution_<name>``, only of executions that it has."""

    name: str
    table: Table
    of_execution: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, tuple[str, Column]]:
        """Of each of its columns the table and the column there."""
        of_execution = {column.name: column for column in schema.EXECUTIONS.columns}
        own = {column.name: (self.table.name, column) for column in columns_of(self.table)}
        return own | {f"execution_{name}": (schema.EXECUTIONS.name, of_execution[name]) for name in self.of_execution}

    @property
    def meaning(self) -> str:
        """What its comment says."""
        return f"{self.table.name.title()} that are not deleted{', with their execution' if self.of_execution else ''}."


VIEWS = (
    View("executions_current", schema.EXECUTIONS),
    View("calls_current", schema.CALLS, ("status", "completed_at", "export_state")),
    View("evals_current", schema.EVALS),
)


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


def shape(tables: Sequence[Table]) -> str:
    """A hash of all columns, their types and the views: another one means that a table must be looked at before it is filled."""
    columns = {table.name: [(column.name, str(column.type)) for column in columns_of(table)] for table in tables}
    return fingerprint(columns | {view.name: [*view.columns] for view in VIEWS})


def with_places(rows: pa.Table, table: Table, places: Mapping[str, str]) -> pa.Table:
    """The rows of a file, with the columns that stand in its path."""
    added = [pa.repeat(pa.scalar(places[column.name], column.type), len(rows)) for column in table.partitions]
    return pa.Table.from_arrays([*rows.columns, *added], schema=arrow_schema_of(table))


ALL_TABLES = (STATE_TABLE, *(table for group in GROUPS for table in group.tables))
"""In the order in which they are made: where the first is missing, the others are somebody else's."""


def comment(column: Column) -> str:
    """Meaning and unit, cut to the whole sentences that a catalog keeps."""
    unit = f" Unit: {column.unit}." if column.unit else ""
    sentences = re.split(r"(?<=\.) ", column.meaning)
    while len(sentences) > 1 and len((" ".join(sentences) + unit).encode()) > _COMMENT_MAX_BYTES:
        sentences.pop()
    return " ".join(sentences) + unit


def sql_quoted(text: str) -> str:
    """An SQL string literal, for engines that double quotes."""
    return "'" + text.replace("'", "''") + "'"


def backslash_quoted(text: str) -> str:
    """An SQL string literal, for engines that escape with a backslash."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
