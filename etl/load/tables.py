"""The tables of a warehouse: those of the dataset, with the columns of their path; one of what was loaded; and views.

Pure: it declares them, and says nothing of how an engine creates them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from etl.model import schema
from etl.model.digest import fingerprint
from etl.model.schema import INT, STRING, Column, Table

COLUMN_TYPES = (schema.STRING, schema.INT, schema.FLOAT, schema.BOOL, schema.TIMESTAMP)
"""The types that columns of files have. Every engine lists its own names of them in this order."""
Types = Mapping[pa.DataType, str]
"""An engine's name of each of ``COLUMN_TYPES``."""
STATE = "metrics_etl_state"
"""The name of the table of what was loaded."""
Place = tuple[str | None, ...]
"""The values of a table's partition columns; null where somebody else has written the row."""


@dataclass(frozen=True, slots=True)
class Group:
    """Tables whose rows are replaced together, item by item."""

    kind: str
    """What an item of the group is, as the table of what was loaded calls it."""
    item: str
    """The column that holds the item's id in each of the tables."""
    tables: tuple[Table, ...]
    """The tables, in the order in which their rows arrive."""


GROUPS = (
    Group("execution", "execution_id", (schema.CALLS, schema.EVALS, schema.EXECUTIONS)),
    Group("errors", "run_test", (schema.ERRORS,)),
    Group("run", "export_run_id", (schema.RUNS_TABLE,)),
)
"""All kinds of items. A warehouse compares, removes and loads an item as a whole."""
STATE_TABLE = Table(
    STATE,
    "item that was loaded, which only the next load needs",
    "",
    (
        Column("kind", STRING, "dataset, execution, errors, run, view, load, or (in Delta only) table.", is_key=True),
        Column(
            "item",
            STRING,
            "The id of a dataset, execution or run, the key of a run test, or the name of a view, table or time.",
            is_key=True,
        ),
        Column("digest", STRING, "Hash of the item when it was loaded, definition of a view, or time of a load."),
        Column(
            "row_counts", STRING, "How many rows were loaded into calls/evals/executions/errors/runs (not in Delta)."
        ),
    ),
    (),
)


@dataclass(frozen=True, slots=True)
class View:
    """A view of the rows of a table that the source still has, or of one row that is computed."""

    name: str
    """What the view is called."""
    meaning: str
    """The view's comment."""
    table: Table
    """Whose rows it shows, except those that have a ``deleted_at``; or from which the one row is computed."""
    of_execution: tuple[str, ...] = ()
    """Columns of the row's execution, as ``execution_<name>``. If any, rows of deleted executions are left out."""
    computed: tuple[tuple[Column, str], ...] = ()
    """Columns that no table has, each with the SQL of its value; ``t`` is the table, ``{calls}`` another one."""
    is_one_row: bool = False
    """Whether it has the computed columns alone, and one row: its values are aggregates."""

    @property
    def columns(self) -> dict[str, tuple[str, Column]]:
        """By name in the view, the table that each column comes from, and the column there."""
        stored = {column.name: column for column in schema.EXECUTIONS.columns}
        own = [*(() if self.is_one_row else columns_of(self.table))]
        columns = {column.name: (self.table.name, column) for column in own}
        columns |= {f"execution_{name}": (schema.EXECUTIONS.name, stored[name]) for name in self.of_execution}
        return columns | {column.name: (self.table.name, column) for column, _ in self.computed}


_DOLLARS = Column("cost_total_dollars", schema.FLOAT, "Total cost of the call.", "US dollars")
_LOADED_AT = Column("loaded_at", schema.TIMESTAMP, "When the last load that changed anything began.")
_COMPLETE_AT = Column(
    "complete_at", schema.TIMESTAMP, "When a run last exported everything that was configured, as known at that load."
)
_ROWS = Column("rows", INT, "Total number of rows in all tables.", "rows")
_NOTED = "MAX(CASE WHEN t.item = '{}' THEN t.digest END)"
"""A time that the last load has noted."""
LAST_LOAD = View(
    "last_load",
    "One row that tells how fresh the tables are.",
    STATE_TABLE,
    computed=(
        (_LOADED_AT, _NOTED.format(_LOADED_AT.name)),
        (_COMPLETE_AT, _NOTED.format(_COMPLETE_AT.name)),
        (_ROWS, " + ".join(f"(SELECT COUNT(*) FROM {{{name}}})" for name in schema.TABLES)),
    ),
    is_one_row=True,
)
CURRENT_VIEWS = (
    View("executions_current", "Executions that are not deleted.", schema.EXECUTIONS),
    View(
        "calls_current",
        "Calls that are not deleted, with columns of their execution.",
        schema.CALLS,
        ("status", "completed_at", "export_state"),
        ((_DOLLARS, "t.cost_total_cost_cents / 100.0"),),
    ),
    View("evals_current", "Evals that are not deleted.", schema.EVALS),
)
"""The views of what the source has."""
VIEWS = (*CURRENT_VIEWS, LAST_LOAD)


def columns_of(table: Table) -> tuple[Column, ...]:
    """The columns of the table in a warehouse: those of the files, then the partition columns."""
    return (*table.columns, *table.partitions)


def needed_of(table: Table) -> set[str]:
    """The columns that may not be null: the key, and the item and place by which a load finds the row again."""
    items = {group.item for group in GROUPS if table in group.tables}
    return {*table.key, *items, *(column.name for column in table.partitions)}


def arrow_schema_of(table: Table) -> pa.Schema:
    """The columns of the table in a warehouse, with their Arrow types."""
    return pa.schema([pa.field(column.name, column.type) for column in columns_of(table)])


def shape(tables: Sequence[Table]) -> str:
    """A hash of all columns, types and views. If a warehouse noted another one, its tables may be incomplete."""
    columns = {table.name: [(column.name, str(column.type)) for column in columns_of(table)] for table in tables}
    return fingerprint(columns | {view.name: [*view.columns] for view in VIEWS})


def with_places(rows: pa.Table, table: Table, places: Mapping[str, str]) -> pa.Table:
    """The rows of a file, with its partition columns; ``places`` are their values, by name."""
    added = [pa.repeat(pa.scalar(places[column.name], column.type), len(rows)) for column in table.partitions]
    return pa.Table.from_arrays([*rows.columns, *added], schema=arrow_schema_of(table))


ALL_TABLES = (STATE_TABLE, *(table for group in GROUPS for table in group.tables))
"""All tables, in the order in which they are created: if the first is missing, the others are somebody else's."""
