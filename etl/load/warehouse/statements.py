"""What a load says to an SQL engine: tables, comments, the view, and the query that tells what is there. Pure."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from etl.load.warehouse.dialect import KINDS, comment, sql_quoted
from etl.load.warehouse.tables import ALL_TABLES, CURRENT_CALLS, GROUPS, STATE, Group, columns_of, current_calls
from etl.model import schema
from etl.model.schema import Column, Table

MARK = "Loaded by metrics-etl from dataset "
"""Stands in the comment of what the exporter made, before the dataset's id."""
DATA = tuple((group, table) for group in GROUPS for table in group.tables)
"""The tables of the dataset, in the order in which rows arrive."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an engine says things.

    ``types`` in the order of ``KINDS``, as its information_schema spells them. ``row_hash`` is an expression for a whole number
    that depends on each value of the row ``t``. ``comments`` asks for the comments of tables and views in a ``{schema}``.
    ``constraints`` are made of a table once its first rows are there.
    """

    types: tuple[str, ...]
    row_hash: str
    comments: str
    constraints: Callable[[str, Table], Iterable[str]] = lambda _name, _table: ()

    def type_of(self, column: Column) -> str:
        """The engine's type of the column."""
        return self.types[KINDS.index(column.type)]


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements for the tables in one schema."""

    dialect: Dialect
    namespace: str

    def name(self, table: str) -> str:
        """The whole name of a table."""
        return f"{quoted(self.namespace)}.{quoted(table)}"

    # what is there

    def held(self, tables: Sequence[tuple[Group, Table]] = DATA, *, wanted: str = "") -> str:
        """A query for kind, item and checksum of the rows that are there; of the items in the table ``wanted`` if it is given."""
        hashes = " UNION ALL ".join(
            f"SELECT {sql_quoted(group.kind)} AS kind, {quoted(group.item)} AS item, {self.dialect.row_hash} AS row_hash "
            f"FROM {self.name(table.name)} AS t" + (f" WHERE {is_item_of(wanted, group)}" if wanted else "")
            for group, table in tables
        )
        return f"SELECT kind, item, CAST(SUM(row_hash) AS VARCHAR) AS checksum FROM ({hashes}) AS hashes GROUP BY kind, item"

    def loaded(self) -> str:
        """A query for kind, item and the digest with which it was loaded, null where its rows are other ones now."""
        return (
            "SELECT COALESCE(s.kind, h.kind) AS kind, COALESCE(s.item, h.item) AS item, "
            "CASE WHEN s.checksum IS NOT DISTINCT FROM h.checksum THEN s.digest END AS digest "
            f"FROM {self.name(STATE)} AS s FULL OUTER JOIN ({self.held()}) AS h ON s.kind = h.kind AND s.item = h.item"
        )

    def loaded_if_whole(self) -> str:
        """The same, which fails where a table or the view is missing."""
        return f"{self.loaded()} UNION ALL SELECT NULL, NULL, NULL FROM {self.name(CURRENT_CALLS)} WHERE FALSE"

    def loaded_of(self, existing: Collection[str]) -> str | None:
        """As much of the same as can be told if only these tables are there; None when none is."""
        there = [each for each in DATA if each[1].name in existing]
        if STATE in existing and len(there) == len(DATA):
            return self.loaded()
        # What was loaded is unknown, so that whatever is there counts as altered.
        return self.held(there) if there else None

    def note(self, arrived: str) -> str:
        """Notes that the items in the table ``arrived`` are loaded, with the checksums of their rows."""
        return (
            f"INSERT INTO {self.name(STATE)} (kind, item, digest, checksum) SELECT a.kind, a.item, a.digest, h.checksum "
            f"FROM {arrived} AS a LEFT JOIN ({self.held(wanted=arrived)}) AS h ON a.kind = h.kind AND a.item = h.item"
        )

    def delete(self, gone: str) -> Iterator[str]:
        """Delete all rows of the items in the table ``gone``, and what is noted of them."""
        for group, table in reversed(DATA):
            yield f"DELETE FROM {self.name(table.name)} WHERE {is_item_of(gone, group)}"
        state = self.name(STATE)
        yield (
            f"DELETE FROM {state} WHERE EXISTS "
            f"(SELECT 1 FROM {gone} AS g WHERE g.kind = {state}.kind AND g.item = {state}.item)"
        )

    # what to make

    def create_all(self, dataset_id: str) -> Iterator[str]:
        """The whole schema, as a first load makes it."""
        yield f"CREATE SCHEMA IF NOT EXISTS {quoted(self.namespace)}"
        for table in ALL_TABLES:
            yield from self.create(table, dataset_id)
            yield from self.dialect.constraints(self.name(table.name), table)
        yield from self.create_view((), dataset_id)

    def create(self, table: Table, dataset_id: str) -> Iterator[str]:
        """A table, with comments."""
        columns = ",\n  ".join(
            f"{quoted(column.name)} {self.dialect.type_of(column)}{' NOT NULL' if column.is_key else ''}"
            for column in columns_of(table)
        )
        yield f"CREATE TABLE {self.name(table.name)} (\n  {columns}\n)"
        meaning = f"One row per {table.one_row_per}. {MARK}{dataset_id}."
        yield f"COMMENT ON TABLE {self.name(table.name)} IS {sql_quoted(meaning)}"
        for column in columns_of(table):
            yield self._comment(table, column)

    def add_columns(self, table: Table, existing: Collection[str]) -> Iterator[str]:
        """Those columns that an existing table does not have."""
        for column in columns_of(table):
            if column.name not in existing:
                added = f"{quoted(column.name)} {self.dialect.type_of(column)}"
                yield f"ALTER TABLE {self.name(table.name)} ADD COLUMN {added}"
                yield self._comment(table, column)

    def create_view(self, existing: Iterable[str], dataset_id: str) -> Iterator[str]:
        """Make or replace it. Existing columns keep their order, and new ones come last: else grants would have to go."""
        columns: Mapping[str, tuple[str, str]] = current_calls()
        alias = {schema.CALLS.name: "c", schema.EXECUTIONS.name: "e"}
        shown = ", ".join(
            f"{alias[columns[name][0]]}.{quoted(columns[name][1])} AS {quoted(name)}"
            for name in dict.fromkeys([*(name for name in existing if name in columns), *columns])
        )
        yield (
            f"CREATE OR REPLACE VIEW {self.name(CURRENT_CALLS)} AS SELECT {shown} FROM {self.name(schema.CALLS.name)} AS c "
            f"JOIN {self.name(schema.EXECUTIONS.name)} AS e ON c.execution_id = e.execution_id WHERE e.deleted_at IS NULL"
        )
        meaning = f"Calls of executions that are not deleted, with their execution. {MARK}{dataset_id}."
        yield f"COMMENT ON VIEW {self.name(CURRENT_CALLS)} IS {sql_quoted(meaning)}"

    def _comment(self, table: Table, column: Column) -> str:
        return f"COMMENT ON COLUMN {self.name(table.name)}.{quoted(column.name)} IS {sql_quoted(comment(column))}"


def is_item_of(items: str, group: Group) -> str:
    """Whether a row is of an item in this table."""
    return f"{quoted(group.item)} IN (SELECT item FROM {items} WHERE kind = {sql_quoted(group.kind)})"


def quoted(name: str) -> str:
    """A name as it is."""
    return f'"{name}"'
