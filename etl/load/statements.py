"""What a load says to an SQL engine: tables, comments, views, and the query that tells what is there. Pure."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from etl.load.tables import (
    ALL_TABLES,
    GROUPS,
    KINDS,
    STATE,
    STATE_TABLE,
    VIEWS,
    Group,
    View,
    arrow_schema_of,
    columns_of,
    comment,
    needed_of,
    sql_quoted,
)
from etl.model import schema
from etl.model.locations import DEFAULT_NAMESPACE
from etl.model.schema import INT, STRING, Column, Table

Existing = Mapping[str, Collection[str]]
"""The tables and views that are there, each with its columns."""
DATA = tuple((group, table) for group in GROUPS for table in group.tables)
"""The tables of the dataset, in the order in which rows arrive."""
TABLE_NAMES = frozenset(table.name for _, table in DATA)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an engine says things.

    ``types`` in the order of ``KINDS``, as its information_schema spells them, and ``json`` for texts that are JSON, if it has such
    a type. ``columns`` asks for the columns of tables and views in a ``{schema}``, ``schemas`` for its name if it is there, and
    ``views`` for the definitions of views, where they tell whether somebody has changed one. ``key`` declares a key of
    ``{columns}``, and ``indexes`` are those of a table: names, each with its columns.

    Where DDL ends a transaction, each thing is made by one statement, with its comment inside; ``begin`` follows the last of them.
    ``before`` stands before the temporary tables; both may name the ``{schema}``.
    """

    types: tuple[str, ...]
    json: str = ""
    columns: str = (
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = {schema} ORDER BY table_name, ordinal_position"
    )
    schemas: str = "SELECT schema_name FROM information_schema.schemata WHERE schema_name = {schema}"
    views: str = "SELECT '' AS name, '' AS definition"
    key: str = ""
    indexes: Callable[[Table], Mapping[str, str]] = lambda _table: {}
    quoted: Callable[[str], str] = lambda name: f'"{name}"'
    literal: Callable[[str], str] = sql_quoted
    inside: "Inside | None" = None
    schema: str = "CREATE SCHEMA IF NOT EXISTS {schema}"
    temporary: str = "CREATE TEMPORARY TABLE"
    on_commit: str = ""
    before: tuple[str, ...] = ()
    begin: tuple[str, ...] = ()

    def type_of(self, column: Column) -> str:
        """The engine's type of the column."""
        return self.json if self.json and column.is_json else self.types[KINDS.index(column.type)]

    def takes(self, column: Column, type_: str) -> bool:
        """Whether the column may have this type; older versions made JSON texts."""
        return type_ == self.type_of(column) or (column.is_json and type_ == self.text)

    @property
    def text(self) -> str:
        """Its type of texts."""
        return self.types[KINDS.index(STRING)]


@dataclass(frozen=True, slots=True)
class Inside:
    """What stands inside the statement that makes a table, column or view: a ``{comment}``, options."""

    column: str
    table: str
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

    def counted(self, existing: Collection[str] = TABLE_NAMES, *, wanted: str = "") -> str:
        """A query for kind, item and number of rows: of ``existing`` tables, and of the items in the table ``wanted`` if given."""
        counts = " UNION ALL ".join(
            f"SELECT {sql_quoted(group.kind)} AS kind, {self.dialect.quoted(group.item)} AS item, COUNT(*) AS row_count "
            f"FROM {self.name(table.name)}"
            + (f" WHERE {self.is_item_of(wanted, group)}" if wanted else "")
            + f" GROUP BY {self.dialect.quoted(group.item)}"
            for group, table in DATA
            if table.name in existing
        )
        total = f"CAST(SUM(row_count) AS {self.dialect.types[KINDS.index(INT)]}) AS row_count"
        return f"SELECT kind, item, {total} FROM ({counts}) AS counts GROUP BY kind, item"

    def loaded(self, existing: Existing | None = None) -> str:
        """A query for kind, item and the digest with which it was loaded, null where it has more or fewer rows now.

        With ``existing`` only these tables and columns are there. As kind ``defined`` it gives the views.
        """
        tables = TABLE_NAMES if existing is None else existing.keys() & TABLE_NAMES
        if existing is not None and not (tables and "row_count" in existing[STATE]):
            return f"SELECT kind, item, digest FROM {self.name(STATE)} UNION ALL {self._defined()}"
        return (
            "SELECT COALESCE(s.kind, c.kind) AS kind, COALESCE(s.item, c.item) AS item, "
            "CASE WHEN COALESCE(s.row_count, 0) = COALESCE(c.row_count, 0) THEN s.digest "
            "WHEN s.kind IS NOT NULL AND s.row_count IS NULL THEN '' END AS digest "
            f"FROM {self.name(STATE)} AS s FULL OUTER JOIN ({self.counted(tables)}) AS c ON s.kind = c.kind AND s.item = c.item "
            f"UNION ALL {self._defined()}"
        )

    def loaded_if_whole(self) -> str:
        """The same, and as kind ``column`` the type of each column. Fails where a table is missing."""
        columns = self._of_schema(self.dialect.columns.partition(" ORDER BY ")[0])
        looked_up = f"SELECT 'column', table_name || '.' || column_name, data_type FROM ({columns}) AS declared"
        return f"{self.loaded()} UNION ALL {looked_up}"

    def views(self) -> str:
        """A query for what views are defined as, as kind ``defined``, and for what was noted of them."""
        return f"SELECT kind, item, digest FROM {self.name(STATE)} WHERE kind = 'view' UNION ALL {self._defined()}"

    def _defined(self) -> str:
        views, ours = self._of_schema(self.dialect.views), ", ".join(sql_quoted(view.name) for view in VIEWS)
        return f"SELECT 'defined', name, definition FROM ({views}) AS views WHERE name IN ({ours})"

    def _of_schema(self, query: str) -> str:
        return query.format(schema=sql_quoted(self.namespace))

    def note(self, arrived: str) -> str:
        """Notes the items in the table ``arrived``, without a digest where not as many rows arrived as were sent."""
        return (
            f"INSERT INTO {self.name(STATE)} (kind, item, digest, row_count) SELECT a.kind, a.item, "
            "CASE WHEN a.row_count = COALESCE(c.row_count, 0) THEN a.digest END, a.row_count "
            f"FROM {arrived} AS a LEFT JOIN ({self.counted(wanted=arrived)}) AS c ON a.kind = c.kind AND a.item = c.item"
        )

    def not_noted(self) -> str:
        """A query for the items that arrived in part."""
        return f"SELECT kind, item FROM {self.name(STATE)} WHERE digest IS NULL AND row_count IS NOT NULL ORDER BY kind, item"

    def note_views(self) -> Iterator[str]:
        """Notes what the views are defined as."""
        yield f"DELETE FROM {self.name(STATE)} WHERE kind = 'view'"
        yield f"INSERT INTO {self.name(STATE)} (kind, item, digest) {self._defined().replace('defined', 'view', 1)}"

    def delete(self, gone: str) -> Iterator[str]:
        """Delete all rows of the items in the table ``gone``, and what is noted of them."""
        for group, table in reversed(DATA):
            yield f"DELETE FROM {self.name(table.name)} WHERE {self.is_item_of(gone, group)}"
        for group in GROUPS:
            of_kind = f"kind = {sql_quoted(group.kind)}"
            yield f"DELETE FROM {self.name(STATE)} WHERE {of_kind} AND item IN (SELECT item FROM {gone} WHERE {of_kind})"

    # what to make

    def create_all(self, tables: Collection[Table]) -> Iterator[str]:
        """The schema with these tables, and with all of them the views, or what they lack, as a first load makes them."""
        yield from self.create_schema()
        for table in tables:
            yield self.create(table)
            yield from self.add_columns(table, needed_of(table))
            yield from self.describe(table)
        if len(tables) == len(ALL_TABLES):
            for view in VIEWS:
                yield f"DROP VIEW IF EXISTS {self.name(view.name)}"
                yield from self.create_view(view, ())

    def create_schema(self) -> list[str]:
        """Make the schema, unless there is one, or the engine wants it to be there."""
        return [self.dialect.schema.format(schema=self.dialect.quoted(self.namespace))] if self.dialect.schema else []

    def begin(self, *temporary: str) -> Iterator[str]:
        """Temporary tables of items; what follows changes rows alone."""
        place = self.dialect.quoted(self.namespace)
        columns = ", ".join(f"{column.name} {self.dialect.type_of(column)}" for column in STATE_TABLE.columns)
        yield from (each.format(schema=place) for each in self.dialect.before)
        yield from (f"{self.dialect.temporary} {name} ({columns}){self.dialect.on_commit}" for name in temporary)
        yield from (each.format(schema=place) for each in self.dialect.begin)

    def create(self, table: Table) -> str:
        """A table with its key, unless it is there."""
        needed = needed_of(table)
        lines = [self._declared(column, " NOT NULL" if column.name in needed else "") for column in columns_of(table)]
        if self.dialect.key:
            key = (column for column in table.columns if column.name in table.key)
            lines.append(self.dialect.key.format(columns=self.names(key)))
        options = ""
        if inside := self.dialect.inside:
            options = inside.options(table) + inside.table.format(comment=self.dialect.literal(_meaning(table)))
        return f"CREATE TABLE IF NOT EXISTS {self.name(table.name)} (\n  " + ",\n  ".join(lines) + f"\n){options}"

    def add_columns(self, table: Table, existing: Collection[str]) -> Iterator[str]:
        """Those columns that an existing table does not have."""
        for column in columns_of(table):
            if column.name not in existing:
                yield f"ALTER TABLE {self.name(table.name)} ADD COLUMN IF NOT EXISTS {self._declared(column)}"

    def describe(self, table: Table) -> Iterator[str]:
        """Comments where they are statements, and indexes."""
        if self.dialect.inside is None:
            yield f"COMMENT ON TABLE {self.name(table.name)} IS {sql_quoted(_meaning(table))}"
            for column in columns_of(table):
                yield self._comment(table.name, column.name, column)
        for name, columns in self.dialect.indexes(table).items():
            yield f"CREATE INDEX IF NOT EXISTS {name} ON {self.name(table.name)} ({columns})"

    def create_view(self, view: View, existing: Iterable[str]) -> Iterator[str]:
        """Make or replace it. Existing columns keep their order, and new ones come last: else grants would have to go.

        So do those that only the table has, which were loaded by an older version.
        """
        quoted, columns = self.dialect.quoted, view.columns
        own, joined, is_living = self._alias(view.table.name), "", ""
        sources = {name: f"{self._alias(table)}.{quoted(column.name)}" for name, (table, column) in columns.items()}
        names = dict.fromkeys([*existing, *columns])
        shown = ", ".join(f"{sources.get(name, f'{own}.{quoted(name)}')} AS {quoted(name)}" for name in names)
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
            for name, (_, column) in columns.items():
                yield self._comment(view.name, name, column)

    def _alias(self, table: str) -> str:
        return "e" if table == schema.EXECUTIONS.name else "t"

    def _aliased(self, table: str) -> str:
        return f"{self.name(table)} AS {self._alias(table)}"

    def _declared(self, column: Column, needed: str = "") -> str:
        commented = ""
        if inside := self.dialect.inside:
            commented = inside.column.format(comment=self.dialect.literal(comment(column)))
        return f"{self.dialect.quoted(column.name)} {self.dialect.type_of(column)}{needed}{commented}"

    def _comment(self, place: str, name: str, column: Column) -> str:
        """That of a column of a table or view."""
        return f"COMMENT ON COLUMN {self.name(place)}.{self.dialect.quoted(name)} IS {sql_quoted(comment(column))}"


_REPLACED_BY = {table.name: group.item for group, table in DATA if (group.item,) != table.key}


def _indexes(table: Table) -> dict[str, str]:
    """One on what its rows are replaced by, and one for questions about a time."""
    by_time = ["run_test", table.start] if {"run_test", table.start} <= {*arrow_schema_of(table).names} else []
    indexed = [each for each in ([_REPLACED_BY.get(table.name, "")], by_time) if any(each)]
    return {"_".join([table.name, *columns, "idx"]): ", ".join(columns) for columns in indexed}


POSTGRESQL = Dialect(
    types=("text", "bigint", "double precision", "boolean", "timestamp with time zone"),
    json="jsonb",
    # Whether a definition names the schema depends on who asks for it.
    views=(
        "SELECT CAST(viewname AS text) AS name, replace(definition, quote_ident(schemaname) || '.', '') AS definition "
        "FROM pg_views WHERE schemaname = {schema}"
    ),
    key="PRIMARY KEY ({columns})",
    indexes=_indexes,
    on_commit=" ON COMMIT DROP",  # behind a pooler the next load may be in the same session of the server
)
"""Here, and not beside its driver, since ``schema --ddl`` prints it where no driver is."""


def postgresql_tables(tables: Collection[Table]) -> str:
    """Statements that make the tables and views as a first load does, or add what they lack; a load takes them for its own."""
    sql, is_all = Statements(POSTGRESQL, DEFAULT_NAMESPACE), {table.name for table in tables} >= TABLE_NAMES
    made = ["BEGIN", *sql.create_all(ALL_TABLES if is_all else tables)]
    return "\n\n".join(f"{each};" for each in [*made, *(sql.note_views() if is_all else ()), "COMMIT"])


def _meaning(table: Table) -> str:
    return f"One row per {table.one_row_per}."
