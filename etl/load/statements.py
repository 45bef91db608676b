"""The SQL statements of a load: tables, comments and views; what is loaded, what is removed, what arrived.

Pure: it makes texts and runs none of them. ``sql.py`` decides which of them run, and in which order.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from etl.load.tables import ALL_TABLES, COLUMN_TYPES, GROUPS, STATE_TABLE, VIEWS, Group, View, columns_of, needed_of
from etl.load.texts import comment, sql_quoted
from etl.model import schema
from etl.model.locations import DEFAULT_NAMESPACE
from etl.model.schema import INT, STRING, Column, Table

Existing = Mapping[str, Collection[str]]
"""The tables and views that exist, each with the names of its columns."""
DATA = tuple((group, table) for group in GROUPS for table in group.tables)
"""The tables of the dataset, each with its group, in the order in which rows arrive."""
TABLE_NAMES = frozenset(table.name for _, table in DATA)
"""The names of the tables of the dataset."""
_NO_ROWS = f"'{'/'.join('0' for _ in DATA)}'"
"""The literal for the ``row_counts`` of an item without rows, see ``row_counts``."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one engine says things. The defaults fit an engine that follows the SQL standard, such as DuckDB."""

    types: tuple[str, ...]
    """Its types in the order of ``COLUMN_TYPES``, as its information_schema spells them."""
    json: str = ""
    """Its type of JSON; empty where JSON is stored as text."""
    columns: str = (
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = {schema} ORDER BY table_name, ordinal_position"
    )
    """A query for table, column and type of all columns of tables and views in the ``{schema}``."""
    schemas: str = "SELECT schema_name FROM information_schema.schemata WHERE schema_name = {schema}"
    """A query with one row if the ``{schema}`` exists."""
    views: str = "SELECT '' AS name, '' AS definition"
    """A query for name and definition of the views in the ``{schema}``; for none if an alteration would not show."""
    key: str = ""
    """How a table declares its primary key of ``{columns}``; empty where it declares none."""
    indexes: Callable[[Table], Mapping[str, str]] = lambda _table: {}
    """The indexes of a table: by name, the columns of each."""
    quoted: Callable[[str], str] = lambda name: f'"{name}"'
    """A name, quoted."""
    literal: Callable[[str], str] = sql_quoted
    """A text as a literal."""
    column_comment: str = ""
    """The ``{comment}`` inside the declaration of a column; empty where comments are statements of their own."""
    table_comment: str = ""
    """The ``{comment}`` at the end of the statement that creates a table; empty as above."""
    view_comment: str = ""
    """The ``{comment}`` after the name of a view; empty as above."""
    table_options: Callable[[Table], str] = lambda _table: ""
    """What else follows a table's columns: partitions and the like."""
    schema: str = "CREATE SCHEMA IF NOT EXISTS {schema}"
    """Creates the ``{schema}``; empty where somebody else has to."""
    temporary: str = "CREATE TEMPORARY TABLE"
    """How a temporary table begins."""
    on_commit: str = ""
    """How a temporary table ends: what becomes of it at the end of the transaction."""
    before: tuple[str, ...] = ()
    """Statements that precede the temporary tables; they may name the ``{schema}``."""
    begin: tuple[str, ...] = ()
    """Statements after the temporary tables, where DDL would end a transaction; they may name the ``{schema}``."""

    def type_of(self, column: Column) -> str:
        """The engine's type of the column."""
        return self.json if self.json and column.is_json else self.types[COLUMN_TYPES.index(column.type)]

    def takes(self, column: Column, type_: str) -> bool:
        """Whether the column may have this type. In tables of older versions, JSON is text."""
        return type_ == self.type_of(column) or (column.is_json and type_ == self.text)

    @property
    def text(self) -> str:
        """The engine's type of texts."""
        return self.types[COLUMN_TYPES.index(STRING)]


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements of one engine for the tables in one schema."""

    dialect: Dialect
    """The engine."""
    namespace: str
    """The schema."""

    def name(self, table: str) -> str:
        """The name of a table or view with its schema, quoted."""
        return f"{self.dialect.quoted(self.namespace)}.{self.dialect.quoted(table)}"

    @property
    def _state(self) -> str:
        """The name of the table of what was loaded."""
        return self.name(STATE_TABLE.name)

    def names(self, columns: Iterable[Column]) -> str:
        """The names of columns, quoted, separated by commas."""
        return ", ".join(self.dialect.quoted(column.name) for column in columns)

    def is_item_of(self, items: str, group: Group) -> str:
        """A condition: the row belongs to an item of the group that the table ``items`` lists."""
        return f"{self.dialect.quoted(group.item)} IN (SELECT item FROM {items} WHERE kind = {sql_quoted(group.kind)})"

    # what is there

    def counted(self, existing: Collection[str] = TABLE_NAMES, *, wanted: str = "") -> str:
        """A query for kind, item and the item's ``row_counts``, from the ``existing`` tables.

        ``wanted`` names a table that lists items: then only these are counted.
        """
        counts = " UNION ALL ".join(
            f"SELECT {sql_quoted(group.kind)} AS kind, {self.dialect.quoted(group.item)} AS item, "
            + ", ".join(f"{'COUNT(*)' if other is table else '0'} AS {other.name}" for _, other in DATA)
            + f" FROM {self.name(table.name)}"
            + (f" WHERE {self.is_item_of(wanted, group)}" if wanted else "")
            + f" GROUP BY {self.dialect.quoted(group.item)}"
            for group, table in DATA
            if table.name in existing
        )
        number, text = (self.dialect.types[COLUMN_TYPES.index(type_)] for type_ in (INT, STRING))
        each = " || '/' || ".join(f"CAST(CAST(SUM({table.name}) AS {number}) AS {text})" for _, table in DATA)
        return f"SELECT kind, item, {each} AS row_counts FROM ({counts}) AS counts GROUP BY kind, item"

    def loaded(self, existing: Existing | None = None) -> str:
        """A query for kind, item and digest of what was loaded, and, as kind ``defined``, for the definitions of views.

        The digest is null if a table has more or fewer rows of the item than were loaded, and empty if nobody counted
        what was loaded. If some tables or columns are missing, ``existing`` says which are there.
        """
        tables = TABLE_NAMES if existing is None else existing.keys() & TABLE_NAMES
        if existing is not None and not (tables and "row_counts" in existing[STATE_TABLE.name]):
            return f"SELECT kind, item, digest FROM {self._state} UNION ALL {self._defined()}"
        return (
            "SELECT COALESCE(s.kind, c.kind) AS kind, COALESCE(s.item, c.item) AS item, "
            f"CASE WHEN s.kind IN ('dataset', 'view') OR s.row_counts = COALESCE(c.row_counts, {_NO_ROWS}) "
            "THEN s.digest "
            "WHEN s.kind IS NOT NULL AND s.row_counts IS NULL THEN '' END AS digest "
            f"FROM {self._state} AS s FULL OUTER JOIN ({self.counted(tables)}) AS c "
            f"ON s.kind = c.kind AND s.item = c.item UNION ALL {self._defined()}"
        )

    def loaded_if_whole(self) -> str:
        """As ``loaded``, and, as kind ``column``, for the types of columns. It fails if a table is missing."""
        columns = self._of_schema(self.dialect.columns.partition(" ORDER BY ")[0])
        types = f"SELECT 'column', table_name || '.' || column_name, data_type FROM ({columns}) AS declared"
        return f"{self.loaded()} UNION ALL {types}"

    def views(self) -> str:
        """A query for definitions of views: as kind ``view`` those that were noted, as kind ``defined`` those now."""
        return f"SELECT kind, item, digest FROM {self._state} WHERE kind = 'view' UNION ALL {self._defined()}"

    def _defined(self) -> str:
        """A query for the definitions of our views, as kind ``defined``."""
        views = self._of_schema(self.dialect.views)
        ours = ", ".join(sql_quoted(view.name) for view in VIEWS)
        return f"SELECT 'defined', name, definition FROM ({views}) AS views WHERE name IN ({ours})"

    def _of_schema(self, query: str) -> str:
        """A query of the dialect, for our schema."""
        return query.format(schema=sql_quoted(self.namespace))

    def note(self, arrived: str) -> str:
        """Note the items in the table ``arrived``; without a digest if more or fewer rows arrived than were sent."""
        return (
            f"INSERT INTO {self._state} (kind, item, digest, row_counts) SELECT a.kind, a.item, "
            f"CASE WHEN a.row_counts = COALESCE(c.row_counts, {_NO_ROWS}) THEN a.digest END, a.row_counts "
            f"FROM {arrived} AS a LEFT JOIN ({self.counted(wanted=arrived)}) AS c "
            "ON a.kind = c.kind AND a.item = c.item"
        )

    def not_noted(self) -> str:
        """A query for the items that ``note`` left without a digest."""
        missed = "digest IS NULL AND row_counts IS NOT NULL"
        return f"SELECT kind, item FROM {self._state} WHERE {missed} ORDER BY kind, item"

    def note_views(self) -> Iterator[str]:
        """Note how the views are defined now."""
        yield f"DELETE FROM {self._state} WHERE kind = 'view'"
        yield f"INSERT INTO {self._state} (kind, item, digest) {self._defined().replace('defined', 'view', 1)}"

    def delete(self, gone: str) -> Iterator[str]:
        """Delete all rows of the items that the table ``gone`` lists, and what was noted of them."""
        for group, table in reversed(DATA):
            yield f"DELETE FROM {self.name(table.name)} WHERE {self.is_item_of(gone, group)}"
        for group in GROUPS:
            of_kind = f"kind = {sql_quoted(group.kind)}"
            yield f"DELETE FROM {self._state} WHERE {of_kind} AND item IN (SELECT item FROM {gone} WHERE {of_kind})"

    # what to make

    def create_all(self, tables: Collection[Table]) -> Iterator[str]:
        """Create what a first load creates, or what is missing: schema, tables, and, if these are all, the views."""
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
        """Create the schema if it does not exist; no statement where somebody else has to."""
        return [self.dialect.schema.format(schema=self.dialect.quoted(self.namespace))] if self.dialect.schema else []

    def begin(self, *temporary: str) -> Iterator[str]:
        """Create temporary tables that list items, and begin the transaction, in which only rows change."""
        schema_name = self.dialect.quoted(self.namespace)
        columns = ", ".join(f"{column.name} {self.dialect.type_of(column)}" for column in STATE_TABLE.columns)
        yield from (statement.format(schema=schema_name) for statement in self.dialect.before)
        yield from (f"{self.dialect.temporary} {name} ({columns}){self.dialect.on_commit}" for name in temporary)
        yield from (statement.format(schema=schema_name) for statement in self.dialect.begin)

    def create(self, table: Table) -> str:
        """Create a table with its key if it does not exist."""
        needed = needed_of(table)
        lines = [self._declared(column, " NOT NULL" if column.name in needed else "") for column in columns_of(table)]
        if self.dialect.key:
            key = (column for column in table.columns if column.name in table.key)
            lines.append(self.dialect.key.format(columns=self.names(key)))
        options = self.dialect.table_options(table)
        options += self.dialect.table_comment.format(comment=self.dialect.literal(_meaning(table)))
        return f"CREATE TABLE IF NOT EXISTS {self.name(table.name)} (\n  " + ",\n  ".join(lines) + f"\n){options}"

    def add_columns(self, table: Table, existing: Collection[str]) -> Iterator[str]:
        """Add the columns that the table does not have; ``existing`` are those that it has."""
        for column in columns_of(table):
            if column.name not in existing:
                yield f"ALTER TABLE {self.name(table.name)} ADD COLUMN IF NOT EXISTS {self._declared(column)}"

    def drop_unknown(self, existing: Iterable[str]) -> Iterator[str]:
        """Drop the columns that the table of what was loaded has, as ``existing``, and that this version does not."""
        for name in existing:
            if name not in STATE_TABLE.names:
                yield f"ALTER TABLE {self._state} DROP COLUMN {self.dialect.quoted(name)}"

    def drop_all_unknown(self) -> Iterator[str]:
        """As ``drop_unknown``, in PostgreSQL, whatever columns the table has."""
        ours = ", ".join(map(sql_quoted, STATE_TABLE.names))
        yield (
            "DO $$ BEGIN EXECUTE (SELECT COALESCE("
            f"string_agg(format('ALTER TABLE {self._state} DROP COLUMN %I', column_name), '; '), '') "
            f"FROM information_schema.columns WHERE table_schema = {sql_quoted(self.namespace)} "
            f"AND table_name = {sql_quoted(STATE_TABLE.name)} AND column_name NOT IN ({ours})); END $$"
        )

    def describe(self, table: Table) -> Iterator[str]:
        """Comment on the table and its columns, unless the statements that create did, and create its indexes."""
        if not self.dialect.table_comment:
            yield f"COMMENT ON TABLE {self.name(table.name)} IS {sql_quoted(_meaning(table))}"
            for column in columns_of(table):
                yield self._comment(table.name, column.name, column)
        for name, columns in self.dialect.indexes(table).items():
            yield f"CREATE INDEX IF NOT EXISTS {name} ON {self.name(table.name)} ({columns})"

    def create_view(self, view: View, existing: Iterable[str]) -> Iterator[str]:
        """Create or replace the view. ``existing`` are the columns that it has, in order.

        These keep their order and new ones come last: otherwise, the view would have to be dropped, and its grants with
        it. Columns stay that only the table has, because an older version loaded them.
        """
        quoted = self.dialect.quoted
        own = self._alias(view.table.name)
        sources = {
            name: f"{self._alias(table)}.{quoted(column.name)}" for name, (table, column) in view.columns.items()
        }
        names = dict.fromkeys([*existing, *view.columns])
        shown = ", ".join(f"{sources.get(name, f'{own}.{quoted(name)}')} AS {quoted(name)}" for name in names)
        joined = ""
        is_living = ""
        if view.of_execution:
            joined = f" JOIN {self._aliased(schema.EXECUTIONS.name)} ON {own}.execution_id = e.execution_id"
            is_living = " AND e.deleted_at IS NULL"
        commented = self.dialect.view_comment.format(comment=self.dialect.literal(view.meaning))
        yield (
            f"CREATE OR REPLACE VIEW {self.name(view.name)}{commented} AS SELECT {shown} "
            f"FROM {self._aliased(view.table.name)}{joined} WHERE {own}.deleted_at IS NULL{is_living}"
        )
        if not self.dialect.view_comment:
            yield f"COMMENT ON VIEW {self.name(view.name)} IS {sql_quoted(view.meaning)}"
            for name, (_, column) in view.columns.items():
                yield self._comment(view.name, name, column)

    def _alias(self, table: str) -> str:
        """What a view calls the table."""
        return "e" if table == schema.EXECUTIONS.name else "t"

    def _aliased(self, table: str) -> str:
        """The table as it stands after FROM or JOIN in a view."""
        return f"{self.name(table)} AS {self._alias(table)}"

    def _declared(self, column: Column, needed: str = "") -> str:
        """A column as the statement that creates it has it."""
        commented = self.dialect.column_comment.format(comment=self.dialect.literal(comment(column)))
        return f"{self.dialect.quoted(column.name)} {self.dialect.type_of(column)}{needed}{commented}"

    def _comment(self, relation: str, name: str, column: Column) -> str:
        """Comment on a column of a table or view, where it is called ``name``."""
        return f"COMMENT ON COLUMN {self.name(relation)}.{self.dialect.quoted(name)} IS {sql_quoted(comment(column))}"


def _indexes(table: Table) -> dict[str, str]:
    """One index for what a load replaces, unless the key has it, and one for questions about a run test and a time."""
    indexed = [[group.item] for group, own in DATA if own.name == table.name and (group.item,) != table.key]
    if {"run_test", table.start} <= {column.name for column in columns_of(table)}:
        indexed.append(["run_test", table.start])
    return {"_".join([table.name, *columns, "idx"]): ", ".join(columns) for columns in indexed}


def row_counts(rows: Mapping[str, int]) -> str:
    """How many rows an item has, by table, as the table of what was loaded has it: in the order of ``DATA``."""
    return "/".join(str(rows.get(table.name, 0)) for _, table in DATA)


POSTGRESQL = Dialect(
    types=("text", "bigint", "double precision", "boolean", "timestamp with time zone"),
    json="jsonb",
    # PostgreSQL puts the schema into a definition unless it is in the search path of the user who asks: it is taken
    # out.
    views=(
        "SELECT CAST(viewname AS text) AS name, replace(definition, quote_ident(schemaname) || '.', '') AS definition "
        "FROM pg_views WHERE schemaname = {schema}"
    ),
    key="PRIMARY KEY ({columns})",
    indexes=_indexes,
    on_commit=" ON COMMIT DROP",  # behind a pooler the next load may be in the same session of the server
)
"""PostgreSQL. It stands here and not in ``postgresql.py``, since ``schema --ddl`` prints it without the driver."""


def postgresql_tables(tables: Collection[Table]) -> str:
    """The script of ``schema --ddl postgresql``: it creates what a first load creates, or adds what is missing of it.

    A load accepts these tables as its own if they are all there. Only then are the views created, and noted.
    """
    sql = Statements(POSTGRESQL, DEFAULT_NAMESPACE)
    is_all = {table.name for table in tables} >= TABLE_NAMES
    statements = ["BEGIN", *sql.create_all(ALL_TABLES if is_all else tables)]
    if is_all:
        statements += [*sql.drop_all_unknown(), *sql.note_views()]
    return "\n\n".join(f"{statement};" for statement in [*statements, "COMMIT"])


def _meaning(table: Table) -> str:
    """A table's comment."""
    return f"One row per {table.one_row_per}."
