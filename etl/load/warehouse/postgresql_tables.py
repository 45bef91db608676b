"""How PostgreSQL says things, and the statements that make its tables, for who may not let a loader make them. Pure."""

from collections.abc import Collection, Iterable

from etl.load.warehouse.statements import ANY_DATASET, Dialect, Statements
from etl.load.warehouse.tables import ALL_TABLES, GROUPS, STATE_TABLE, VIEWS
from etl.model.locations import DEFAULT_NAMESPACE
from etl.model.schema import Table

_INDEXED = {table.name: group.item for group in GROUPS for table in group.tables if (group.item,) != table.key}


def _constraints(name: str, table: Table) -> Iterable[str]:
    """The primary key, and an index on what its rows are replaced by."""
    yield f"ALTER TABLE {name} ADD PRIMARY KEY ({', '.join(table.key)})"
    if item := _INDEXED.get(table.name):
        yield f"CREATE INDEX ON {name} ({item})"


_OURS = ", ".join(f"'{table.name}'" for table in ALL_TABLES)
_VIEWS = ", ".join(f"'{view.name}'" for view in VIEWS)
_DENIED = f"""
WITH ours AS (
    SELECT c.oid, relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
    WHERE nspname = {{schema}} AND relname IN ({_OURS})
)
SELECT 'a transaction that is not read-only' AS denied WHERE current_setting('transaction_read_only') = 'on'
UNION ALL SELECT 'TEMPORARY on the database' WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')
UNION ALL SELECT 'CREATE on the database, or a schema of this name' WHERE NOT has_database_privilege(current_database(), 'CREATE')
AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = {{schema}})
UNION ALL SELECT 'USAGE on the schema' FROM pg_namespace WHERE nspname = {{schema}} AND NOT has_schema_privilege(oid, 'USAGE')
UNION ALL SELECT 'CREATE on the schema' FROM pg_namespace AS n
WHERE nspname = {{schema}} AND NOT has_schema_privilege(oid, 'CREATE')
AND {len(ALL_TABLES) + len(VIEWS)} > (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid AND relname IN ({_OURS}, {_VIEWS}))
UNION ALL SELECT 'INSERT and DELETE on ' || relname FROM ours
WHERE NOT (has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'DELETE'))
UNION ALL SELECT 'BYPASSRLS, for the row-level security on ' || relname FROM ours WHERE row_security_active(oid)
"""
_READS = ", ".join(f"('{view.name}', '{table}')" for view in VIEWS for table in sorted(view.reads))
_ASTRAY = f"""
WITH RECURSIVE there AS (
    SELECT c.oid, relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = {{schema}}
), read AS (
    SELECT relname AS view_name, oid FROM there WHERE relname IN ({_VIEWS})
    UNION SELECT view_name, refobjid FROM read JOIN pg_rewrite ON ev_class = read.oid
    JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid AND refclassid = 'pg_class'::regclass
)
SELECT view_name FROM (VALUES {_READS}) AS wanted (view_name, relname) JOIN there USING (relname)
WHERE view_name IN (SELECT view_name FROM read) AND (view_name, oid) NOT IN (SELECT view_name, oid FROM read)
"""

DIALECT = Dialect(
    types=("text", "bigint", "double precision", "boolean", "timestamp with time zone"),
    row_hash="hash_record_extended(ROW({columns}), 0)",
    comments=(
        "SELECT c.relname::text AS table_name, obj_description(c.oid, 'pg_class') AS comment FROM pg_class AS c "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = {schema} AND c.relkind IN ('r', 'p', 'v')"
    ),
    denied=_DENIED,
    astray=_ASTRAY,
    constraints=_constraints,
)


def create_tables(tables: Collection[Table]) -> str:
    """Statements that make the tables and views as a first load makes them; it then takes them for its own."""
    statements = Statements(DIALECT, DEFAULT_NAMESPACE)
    is_all = {table.name for table in tables} >= {table.name for table in ALL_TABLES} - {STATE_TABLE.name}
    made = statements.create_all(ALL_TABLES if is_all else tables, ANY_DATASET)
    return "\n\n".join(f"{statement};" for statement in made)
