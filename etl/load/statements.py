"""The SQL statements of a load: tables, comments and views; what is loaded, what is removed, what arrived.

Pure: it makes texts and runs none of them. ``sql.py`` decides which of them run, and in which order.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from etl.load.tables import ALL_TABLES, COLUMN_TYPES, GROUPS, STATE_TABLE, VIEWS, Group, View, columns_of, needed_of
from etl.load.texts import comment, sql_quoted
from etl.model import schema
from etl.model.schema import INT, STRING, Column, Table

Existing = Mapping[str, Collection[str]]
"""The tables and views that exist, each with the names of its columns."""
DATA = tuple((group, table) for group in GROUPS for table in group.tables)
"""The tables of the dataset, each with its group, in the order in which rows arrive."""
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
    block: str = ""
    """Runs the ``{statements}`` as one; empty where there is no such thing."""
    on_commit: str = ""
    """How a temporary table ends: what becomes of it at the end of the transaction."""
    before: tuple[str, ...] = ()
    """Statements that precede the temporary tables; they may name the ``{schema}``."""
    rehearsal: tuple[str, ...] | None = ()
    """Statements that begin a load that is going to be undone; None where DDL would end its transaction."""
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

    def counted(self, existing: Collection[str] = schema.TABLES.keys(), *, wanted: str = "") -> str:
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
        whole = self.dialect.types[COLUMN_TYPES.index(INT)]
        each = " || '/' || ".join(
            f"CAST(CAST(SUM({table.name}) AS {whole}) AS {self.dialect.text})" for _, table in DATA
        )
        return f"SELECT kind, item, {each} AS row_counts FROM ({counts}) AS counts GROUP BY kind, item"

    def loaded(self, existing: Existing) -> str:
        """A query for kind, item and digest of what was loaded, and, as kind ``defined``, for the definitions of views.

        The digest is null if a table has more or fewer rows of the item than were loaded, and empty if nobody counted
        what was loaded. ``existing`` says which tables and columns are there.
        """
        tables = existing.keys() & schema.TABLES.keys()
        if not (tables and "row_counts" in existing[STATE_TABLE.name]):
            return f"SELECT kind, item, digest FROM {self._state} UNION ALL {self._defined()}"
        return (
            "SELECT COALESCE(s.kind, c.kind) AS kind, COALESCE(s.item, c.item) AS item, "
            f"CASE WHEN s.kind IN ('dataset', 'view') OR s.row_counts = COALESCE(c.row_counts, {_NO_ROWS}) "
            "THEN s.digest WHEN s.kind IS NOT NULL AND s.row_counts IS NULL THEN '' END AS digest "
            f"FROM {self._state} AS s FULL OUTER JOIN ({self.counted(tables)}) AS c "
            f"ON s.kind = c.kind AND s.item = c.item UNION ALL {self._defined()}"
        )

    def views(self) -> str:
        """A query for definitions of views: as kind ``view`` those that were noted, as kind ``defined`` those now."""
        return f"SELECT kind, item, digest FROM {self._state} WHERE kind = 'view' UNION ALL {self._defined()}"

    def _defined(self) -> str:
        """A query for the definitions of our views, as kind ``defined``."""
        views = self.dialect.views.format(schema=sql_quoted(self.namespace))
        ours = ", ".join(sql_quoted(view.name) for view in VIEWS)
        return f"SELECT 'defined', name, definition FROM ({views}) AS views WHERE name IN ({ours})"

    def note(self, arrived: str) -> str:
        """Note the items in the table ``arrived``; without a digest if more or fewer rows arrived than were sent."""
        return (
            f"INSERT INTO {self._state} (kind, item, digest, row_counts) SELECT a.kind, a.item, "
            f"CASE WHEN a.row_counts = COALESCE(c.row_counts, {_NO_ROWS}) THEN a.digest END, a.row_counts FROM "
            f"{arrived} AS a LEFT JOIN ({self.counted(wanted=arrived)}) AS c ON a.kind = c.kind AND a.item = c.item"
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
                yield f"ALTER TABLE {self.name(table.name)} {self.add(column)}"

    def add(self, column: Column) -> str:
        """What a statement that alters a table says to add the column."""
        return f"ADD COLUMN IF NOT EXISTS {self._declared(column)}"

    def drop_unknown(self, existing: Iterable[str]) -> Iterator[str]:
        """Drop the columns that the table of what was loaded has, as ``existing``, and that this version does not."""
        for name in existing:
            if name not in STATE_TABLE.names:
                yield f"ALTER TABLE {self._state} DROP COLUMN {self.dialect.quoted(name)}"

    def describe(self, table: Table) -> Iterator[str]:
        """Comment on the table and its columns, unless the statements that create did, and create its indexes."""
        if not self.dialect.table_comment:
            comments = [f"COMMENT ON TABLE {self.name(table.name)} IS {sql_quoted(_meaning(table))}"]
            comments += [self._comment(table.name, column.name, column) for column in columns_of(table)]
            yield from self._together(comments)
        for name, columns in self.dialect.indexes(table).items():
            yield f"CREATE INDEX IF NOT EXISTS {name} ON {self.name(table.name)} ({columns})"

    def create_view(self, view: View, existing: Iterable[str]) -> Iterator[str]:
        """Create or replace the view. ``existing`` are the columns that it has, in order.

        These keep their order and new ones come last: otherwise, the view would have to be dropped, and its grants with
        it. Columns stay that only the table has, because an older version loaded them.
        """
        quoted = self.dialect.quoted
        own = self.alias(view.table.name)
        sources = self.sources(view)
        names = dict.fromkeys([*existing, *sources])
        yield self.replace_view(
            view, ", ".join(f"{sources.get(name, f'{own}.{quoted(name)}')} AS {quoted(name)}" for name in names)
        )
        yield from self.describe_view(view)

    def sources(self, view: View) -> dict[str, str]:
        """By name, the SQL of each column of the view."""
        tables = {table.name: self.name(table.name) for table in ALL_TABLES}
        sources = {
            name: f"{self.alias(table)}.{self.dialect.quoted(column.name)}"
            for name, (table, column) in view.columns.items()
        }
        return sources | {
            column.name: f"CAST({source.format(**tables)} AS {self.dialect.type_of(column)})"
            for column, source in view.computed
        }

    def replace_view(self, view: View, shown: str) -> str:
        """Create or replace the view, so that it shows these columns: the text between SELECT and FROM."""
        own = self.alias(view.table.name)
        joined = ""
        is_shown = f"{own}.kind = 'load'" if view.is_one_row else f"{own}.deleted_at IS NULL"
        if view.of_execution:
            joined = f" JOIN {self._aliased(schema.EXECUTIONS.name)} ON {own}.execution_id = e.execution_id"
            is_shown += " AND e.deleted_at IS NULL"
        commented = self.dialect.view_comment.format(comment=self.dialect.literal(view.meaning))
        return (
            f"CREATE OR REPLACE VIEW {self.name(view.name)}{commented} AS SELECT {shown} "
            f"FROM {self._aliased(view.table.name)}{joined} WHERE {is_shown}"
        )

    def describe_view(self, view: View) -> Iterator[str]:
        """Comment on the view and its columns, unless the statement that creates it did."""
        if not self.dialect.view_comment:
            comments = [f"COMMENT ON VIEW {self.name(view.name)} IS {sql_quoted(view.meaning)}"]
            comments += [self._comment(view.name, name, column) for name, (_, column) in view.columns.items()]
            yield from self._together(comments)

    def _together(self, statements: list[str]) -> list[str]:
        """The statements as one, where the engine can run them so."""
        block = self.dialect.block
        return [block.format(statements=";\n".join(statements))] if block else statements

    def alias(self, table: str) -> str:
        """What a view calls the table of this name."""
        return "e" if table == schema.EXECUTIONS.name else "t"

    def _aliased(self, table: str) -> str:
        """The table as it stands after FROM or JOIN in a view."""
        return f"{self.name(table)} AS {self.alias(table)}"

    def _declared(self, column: Column, needed: str = "") -> str:
        """A column as the statement that creates it has it."""
        commented = self.dialect.column_comment.format(comment=self.dialect.literal(comment(column)))
        return f"{self.dialect.quoted(column.name)} {self.dialect.type_of(column)}{needed}{commented}"

    def _comment(self, relation: str, name: str, column: Column) -> str:
        """Comment on a column of a table or view, where it is called ``name``."""
        return f"COMMENT ON COLUMN {self.name(relation)}.{self.dialect.quoted(name)} IS {sql_quoted(comment(column))}"


def row_counts(rows: Mapping[str, int]) -> str:
    """How many rows an item has, by table, as the table of what was loaded has it: in the order of ``DATA``."""
    return "/".join(str(rows.get(table.name, 0)) for _, table in DATA)


def _meaning(table: Table) -> str:
    """A table's comment."""
    return f"One row per {table.one_row_per}."
