"""What a load says to an SQL engine: tables, comments, views, and the query that tells what is there. Pure."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from etl.load.warehouse.tables import (
    ALL_TABLES,
    GROUPS,
    KINDS,
    STATE,
    VIEWS,
    Group,
    View,
    columns_of,
    comment,
    needed_of,
    sql_quoted,
)
from etl.model import schema
from etl.model.locations import DEFAULT_NAMESPACE
from etl.model.schema import STRING, Column, Table

Existing = Mapping[str, Collection[str]]
"""The tables and views that are there, each with its columns."""
DATA = tuple((group, table) for group in GROUPS for table in group.tables)
"""The tables of the dataset, in the order in which rows arrive."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an engine says things.

    ``types`` in the order of ``KINDS``, as its information_schema spells them. ``row_hash`` is an expression for a whole number
    that depends on each value of the row ``t``, or of its ``{columns}``. ``columns`` asks for the columns of tables and views in a
    ``{schema}``, and ``schemas`` for its name if it is there. ``constraints`` are statements for a table.

    Where DDL ends a transaction, each thing is made by one statement, with its comment inside; ``begin`` follows the last of them.
    ``before`` stands before the temporary tables; both may name the ``{schema}``.
    """

    types: tuple[str, ...]
    row_hash: str
    columns: str = (
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = {schema} ORDER BY table_name, ordinal_position"
    )
    schemas: str = "SELECT schema_name FROM information_schema.schemata WHERE schema_name = {schema}"
    constraints: Callable[[str, Table], Iterable[str]] = lambda _name, _table: ()
    total: str = "SUM(row_hash)"
    quoted: Callable[[str], str] = lambda name: f'"{name}"'
    literal: Callable[[str], str] = sql_quoted
    inside: "Inside | None" = None
    schema: str = "CREATE SCHEMA IF NOT EXISTS {schema}"
    temporary: str = "CREATE TEMPORARY TABLE"
    before: tuple[str, ...] = ()
    begin: tuple[str, ...] = ()

    def type_of(self, column: Column) -> str:
        """The engine's type of the column."""
        return self.types[KINDS.index(column.type)]

    @property
    def text(self) -> str:
        """Its type of texts."""
        return self.types[KINDS.index(STRING)]


@dataclass(frozen=True, slots=True)
class Inside:
    """What stands inside the statement that makes a table, column or view: a ``{comment}``, a key of ``{columns}``, options."""

    column: str
    table: str
    key: str
    view: str
    options: Callable[[Table], str] = lambda _table: ""


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements for the tables in one schema."""

    dialect: Dialect
    namespace: str

    def name(self, table: str) -> str:
        """The whole name of a table."""
        return f"{self.dialect.quoted(self.namespace)}.{self.dialect.quoted(table)}"

    def names(self, columns: Iterable[Column]) -> str:
        """The names of columns, separated by commas."""
        return ", ".join(self.dialect.quoted(column.name) for column in columns)

    def is_item_of(self, items: str, group: Group) -> str:
        """Whether a row is of an item in this table."""
        return f"{self.dialect.quoted(group.item)} IN (SELECT item FROM {items} WHERE kind = {sql_quoted(group.kind)})"

    # what is there

    def held(self, existing: Existing | None = None, *, wanted: str = "") -> str:
        """A query for kind, item and checksum of the rows that are there; of the items in the table ``wanted`` if it is given.

        With ``existing`` only these tables and columns are there.
        """
        hashes = " UNION ALL ".join(
            f"SELECT {sql_quoted(group.kind)} AS kind, {self.dialect.quoted(group.item)} AS item, "
            f"{self._row_hash(table, existing)} AS row_hash FROM {self.name(table.name)} AS t"
            + (f" WHERE {self.is_item_of(wanted, group)}" if wanted else "")
            for group, table in DATA
            if existing is None or table.name in existing
        )
        checksum = f"CAST({self.dialect.total} AS {self.dialect.text}) AS checksum"
        return f"SELECT kind, item, {checksum} FROM ({hashes}) AS hashes GROUP BY kind, item"

    def _row_hash(self, table: Table, existing: Existing | None) -> str:
        columns = (column for column in columns_of(table) if existing is None or column.name in existing[table.name])
        return self.dialect.row_hash.format(columns=self.names(columns))

    def loaded(self, existing: Existing | None = None) -> str:
        """A query for kind, item and the digest with which it was loaded, null where its rows are other ones now."""
        if existing is not None and not any(table.name in existing for _, table in DATA):
            return f"SELECT kind, item, digest FROM {self.name(STATE)} WHERE kind = 'dataset'"
        return (
            "SELECT COALESCE(s.kind, h.kind) AS kind, COALESCE(s.item, h.item) AS item, "
            "CASE WHEN s.checksum IS NOT DISTINCT FROM h.checksum THEN s.digest END AS digest "
            f"FROM {self.name(STATE)} AS s FULL OUTER JOIN ({self.held(existing)}) AS h ON s.kind = h.kind AND s.item = h.item"
        )

    def loaded_if_whole(self) -> str:
        """The same, which fails where a table or view is missing."""
        views = (f"SELECT NULL, NULL, NULL FROM {self.name(view.name)} WHERE FALSE" for view in VIEWS)
        return " UNION ALL ".join([self.loaded(), *views])

    def note(self, arrived: str) -> str:
        """Notes that the items in the table ``arrived`` are loaded, with the checksums of their rows."""
        return (
            f"INSERT INTO {self.name(STATE)} (kind, item, digest, checksum) SELECT a.kind, a.item, a.digest, h.checksum "
            f"FROM {arrived} AS a LEFT JOIN ({self.held(wanted=arrived)}) AS h ON a.kind = h.kind AND a.item = h.item"
        )

    def distrust(self, existing: Existing) -> str:
        """Forgets the digests of items whose rows are not as they were loaded, since ``note_again`` takes rows as they are."""
        return (
            f"UPDATE {self.name(STATE)} AS s SET digest = NULL FROM ({self.loaded(existing)}) AS l "
            "WHERE s.kind = l.kind AND s.item = l.item AND l.digest IS NULL"
        )

    def note_again(self) -> str:
        """Notes the checksums of what is loaded anew, since the rows have other columns now."""
        return (
            f"UPDATE {self.name(STATE)} AS s SET checksum = h.checksum FROM ({self.held()}) AS h "
            "WHERE s.kind = h.kind AND s.item = h.item"
        )

    def delete(self, gone: str) -> Iterator[str]:
        """Delete all rows of the items in the table ``gone``, and what is noted of them."""
        for group, table in reversed(DATA):
            yield f"DELETE FROM {self.name(table.name)} WHERE {self.is_item_of(gone, group)}"
        for group in GROUPS:
            of_kind = f"kind = {sql_quoted(group.kind)}"
            yield f"DELETE FROM {self.name(STATE)} WHERE {of_kind} AND item IN (SELECT item FROM {gone} WHERE {of_kind})"

    # what to make

    def create_all(self, tables: Collection[Table]) -> Iterator[str]:
        """The schema with these tables, and with all of them the views, as a first load makes it."""
        yield from self.create_schema()
        for table in tables:
            yield from self.create(table)
        if len(tables) == len(ALL_TABLES):
            for view in VIEWS:
                yield from self.create_view(view, ())

    def create_schema(self) -> list[str]:
        """Make the schema, unless there is one, or the engine wants it to be there."""
        return [self.dialect.schema.format(schema=self.dialect.quoted(self.namespace))] if self.dialect.schema else []

    def begin(self, *temporary: str) -> Iterator[str]:
        """Temporary tables of items; what follows changes rows alone."""
        place, text = self.dialect.quoted(self.namespace), self.dialect.text
        yield from (each.format(schema=place) for each in self.dialect.before)
        yield from (f"{self.dialect.temporary} {name} (kind {text}, item {text}, digest {text})" for name in temporary)
        yield from (each.format(schema=place) for each in self.dialect.begin)

    def create(self, table: Table) -> Iterator[str]:
        """A table, with comments and keys."""
        meaning = f"One row per {table.one_row_per}."
        needed = needed_of(table)
        lines = [self._declared(column, " NOT NULL" if column.name in needed else "") for column in columns_of(table)]
        inside = self.dialect.inside
        options = ""
        if inside is not None:
            key = (column for column in table.columns if column.name in table.key)
            lines.append(inside.key.format(columns=self.names(key)))
            options = inside.options(table) + inside.table.format(comment=self.dialect.literal(meaning))
        yield f"CREATE TABLE {self.name(table.name)} (\n  " + ",\n  ".join(lines) + f"\n){options}"
        if inside is None:
            yield f"COMMENT ON TABLE {self.name(table.name)} IS {sql_quoted(meaning)}"
            for column in columns_of(table):
                yield self._comment(table, column)
        yield from self.dialect.constraints(self.name(table.name), table)

    def add_columns(self, table: Table, existing: Collection[str]) -> Iterator[str]:
        """Those columns that an existing table does not have."""
        for column in columns_of(table):
            if column.name not in existing:
                yield f"ALTER TABLE {self.name(table.name)} ADD COLUMN {self._declared(column)}"
                if self.dialect.inside is None:
                    yield self._comment(table, column)

    def create_view(self, view: View, existing: Iterable[str]) -> Iterator[str]:
        """Make or replace it. Existing columns keep their order, and new ones come last: else grants would have to go."""
        quoted, columns = self.dialect.quoted, view.columns
        shown = ", ".join(
            f"{self._alias(columns[name][0])}.{quoted(columns[name][1])} AS {quoted(name)}"
            for name in dict.fromkeys([*(name for name in existing if name in columns), *columns])
        )
        own, joined, is_living = self._alias(view.table.name), "", ""
        if view.of_execution:
            joined = f" JOIN {self._aliased(schema.EXECUTIONS.name)} ON {own}.execution_id = e.execution_id"
            is_living = " AND e.deleted_at IS NULL"
        inside = self.dialect.inside
        options = inside.view.format(comment=self.dialect.literal(view.meaning)) if inside else ""
        yield (
            f"CREATE OR REPLACE VIEW {self.name(view.name)}{options} AS SELECT {shown} "
            f"FROM {self._aliased(view.table.name)}{joined} WHERE {own}.deleted_at IS NULL{is_living}"
        )
        if inside is None:
            yield f"COMMENT ON VIEW {self.name(view.name)} IS {sql_quoted(view.meaning)}"

    def _alias(self, table: str) -> str:
        return "e" if table == schema.EXECUTIONS.name else "t"

    def _aliased(self, table: str) -> str:
        return f"{self.name(table)} AS {self._alias(table)}"

    def _declared(self, column: Column, needed: str = "") -> str:
        commented = ""
        if inside := self.dialect.inside:
            commented = inside.column.format(comment=self.dialect.literal(comment(column)))
        return f"{self.dialect.quoted(column.name)} {self.dialect.type_of(column)}{needed}{commented}"

    def _comment(self, table: Table, column: Column) -> str:
        name = self.dialect.quoted(column.name)
        return f"COMMENT ON COLUMN {self.name(table.name)}.{name} IS {sql_quoted(comment(column))}"


_INDEXED = {table.name: group.item for group, table in DATA if (group.item,) != table.key}


def _constraints(name: str, table: Table) -> Iterable[str]:
    """The primary key, and an index on what its rows are replaced by."""
    yield f"ALTER TABLE {name} ADD PRIMARY KEY ({', '.join(table.key)})"
    if item := _INDEXED.get(table.name):
        yield f"CREATE INDEX ON {name} ({item})"


POSTGRESQL = Dialect(
    types=("text", "bigint", "double precision", "boolean", "timestamp with time zone"),
    row_hash="hash_record_extended(ROW({columns}), 0)",
    constraints=_constraints,
)
"""Here, and not beside its driver, since ``schema --ddl`` prints it where no driver is."""


def postgresql_tables(tables: Collection[Table]) -> str:
    """Statements that make the tables and views as a first load makes them; it then takes them for its own."""
    is_all = {table.name for table in tables} >= {table.name for _, table in DATA}
    made = Statements(POSTGRESQL, DEFAULT_NAMESPACE).create_all(ALL_TABLES if is_all else tables)
    return "\n\n".join(f"{statement};" for statement in made)
