"""PostgreSQL's own forms of SQL, and the script of ``schema --ddl postgresql``. Pure, and without the driver.

The script makes what a first load makes, or completes what an older version made; it can be run again and again. It
drops nothing that others may use: views are replaced, so that their grants and what depends on them stay.
"""

from collections.abc import Collection, Iterator

from etl.load.statements import DATA, Dialect, Statements
from etl.load.tables import ALL_TABLES, STATE_TABLE, VIEWS, View, columns_of
from etl.load.texts import sql_quoted
from etl.model import schema
from etl.model.locations import DEFAULT_NAMESPACE
from etl.model.schema import Table

LOADER, READERS = "metrics_loader", "metrics_readers"
"""Roles that the script grants what they need, if they exist."""


def _indexes(table: Table) -> dict[str, str]:
    """One index for what a load replaces, and those for questions about a run test and a time, and about a scenario.

    None whose columns are the first ones of the key, or of another index. None of ``deleted_at``: most rows have none.
    """
    items: list[tuple[str, ...]] = [(group.item,) for group, own in DATA if own.name == table.name]
    asked = (("run_test", table.start), ("scenario_id",))
    indexed = items + [columns for columns in asked if {*columns} <= {column.name for column in columns_of(table)}]
    longer = [table.key, *indexed]
    kept = [
        columns
        for columns in indexed
        if not any(columns == other[: len(columns)] for other in longer if other is not columns)
    ]
    return {"_".join([table.name, *columns, "idx"]): ", ".join(columns) for columns in kept}


POSTGRESQL = Dialect(
    types=("text", "bigint", "double precision", "boolean", "timestamp with time zone"),
    json="jsonb",
    # PostgreSQL puts the schema into a definition unless it is in the search path of the user who asks: it is taken
    # out.
    views=(
        "SELECT CAST(viewname AS text) AS name, replace(definition, quote_ident(schemaname) || '.', '') AS definition "
        "FROM pg_views WHERE schemaname = {schema}"
    ),
    # Unlike those of information_schema, columns that the user may not read, and materialized views, are among these.
    columns=(
        "SELECT CAST(c.relname AS text) AS table_name, CAST(a.attname AS text) AS column_name, "
        "format_type(a.atttypid, a.atttypmod) AS data_type FROM pg_class AS c JOIN pg_namespace AS n "
        "ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid WHERE n.nspname = {schema} AND "
        "c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum"
    ),
    rehearsal=("SET LOCAL lock_timeout = '5s'",),  # who waits for a lock holds up everybody who comes later
    key="PRIMARY KEY ({columns})",
    indexes=_indexes,
    block="DO $metrics_etl$ BEGIN\n{statements};\nEND $metrics_etl$",
    on_commit=" ON COMMIT DROP",  # behind a pooler the next load may be in the same session of the server
)
"""PostgreSQL. It stands here and not in ``postgresql.py``, since ``schema --ddl`` prints it without the driver."""
_SQL = Statements(POSTGRESQL, DEFAULT_NAMESPACE)


def postgresql_tables(tables: Collection[Table]) -> str:
    """The script, for these tables. A load accepts them as its own if they are all there.

    Only then are the views created, and noted, and roles granted what they need.
    """
    is_all = {table.name for table in tables} >= schema.TABLES.keys()
    statements = ["BEGIN", "SET LOCAL client_min_messages = warning", *_SQL.create_schema()]
    for table in ALL_TABLES if is_all else tables:
        statements += [_SQL.create(table), _add_columns(table), *_SQL.describe(table)]
    if is_all:
        statements.append(_drop_unknown())
        for view in VIEWS:
            statements += [_replace_view(view), *_SQL.describe_view(view)]
        statements += [*_SQL.note_views(), _grant()]
    script = "\n\n".join(f"{statement};" for statement in [*statements, "COMMIT"])
    return "\n".join([f"{script}\n", *_foreign_keys()]) if is_all else script


def _add_columns(table: Table) -> str:
    """Add the columns that an older version did not have."""
    added = ",\n  ".join(_SQL.add(column) for column in columns_of(table))
    return f"ALTER TABLE {_SQL.name(table.name)}\n  {added}"


def _drop_unknown() -> str:
    """Drop the columns that an older version had in the table of what was loaded."""
    state = _SQL.name(STATE_TABLE.name)
    ours = ", ".join(map(sql_quoted, STATE_TABLE.names))
    return (
        f"DO $$ BEGIN EXECUTE (SELECT COALESCE(string_agg(format('ALTER TABLE {state} DROP COLUMN %I', column_name), "
        f"'; '), '') FROM information_schema.columns WHERE table_schema = {sql_quoted(DEFAULT_NAMESPACE)} "
        f"AND table_name = {sql_quoted(STATE_TABLE.name)} AND column_name NOT IN ({ours})); END $$"
    )


def _replace_view(view: View) -> str:
    """Create or replace the view; as in ``Statements.create_view``, columns that it has keep their order."""
    names, sources = (
        f"ARRAY[{', '.join(map(sql_quoted, texts))}]" for texts in zip(*_SQL.sources(view).items(), strict=True)
    )
    return f"""\
DO $metrics_etl$ BEGIN EXECUTE (
  SELECT format({sql_quoted(_SQL.replace_view(view, "%s"))}, string_agg(
    coalesce(source, '{_SQL.alias(view.table.name)}.' || quote_ident(name)) || ' AS ' || quote_ident(name),
    ', ' ORDER BY attnum, position
  ))
  FROM unnest({names}, {sources}) WITH ORDINALITY AS wanted (name, source, position)
  FULL JOIN (
    SELECT CAST(attname AS text) AS name, attnum FROM pg_attribute
    WHERE attrelid = to_regclass({sql_quoted(_SQL.name(view.name))}) AND attnum > 0 AND NOT attisdropped
  ) AS existing USING (name)
); END $metrics_etl$"""


def _grant() -> str:
    """Grant the roles what they need, if they exist."""
    usage = f"GRANT USAGE ON SCHEMA {_SQL.dialect.quoted(DEFAULT_NAMESPACE)} TO"
    loaded = ", ".join(_SQL.name(table.name) for table in ALL_TABLES)
    read = ", ".join(map(_SQL.name, [*schema.TABLES, *(view.name for view in VIEWS)]))
    return f"""\
DO $metrics_etl$ BEGIN
IF to_regrole('{LOADER}') IS NOT NULL THEN
  IF NOT has_database_privilege('{LOADER}', current_database(), 'TEMPORARY') THEN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO {LOADER}', current_database());
  END IF;
  {usage} {LOADER};
  GRANT SELECT, INSERT, DELETE ON {loaded} TO {LOADER};
END IF;
IF to_regrole('{READERS}') IS NOT NULL THEN
  {usage} {READERS};
  GRANT SELECT ON {read} TO {READERS};
END IF;
END $metrics_etl$"""


def _foreign_keys() -> Iterator[str]:
    """Foreign keys, as comments: a load checks each of their rows, and readers need none."""
    yield "-- Optional foreign keys. Each load keeps them, but takes longer:"
    for table in schema.OF_CALLS:
        yield (
            f"-- ALTER TABLE {_SQL.name(table.name)} ADD FOREIGN KEY (execution_id) "
            f"REFERENCES {_SQL.name(schema.EXECUTIONS.name)} DEFERRABLE INITIALLY DEFERRED NOT VALID;"
        )
