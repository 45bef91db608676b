"""Every statement names exactly the declared columns and types, in words that its engine parses.

pandas, Polars and DuckDB are executed in test_ddl_opens.py, Spark and ClickHouse there too by make test-all. The
others are parsed by sqlglot in their dialect. It has no syntax for MSCK, CALL, REFRESH and BigQuery's WITH PARTITION
COLUMNS: of these the text itself is compared.
"""

import ast
import re

import pytest
import sqlglot
from sqlglot import exp

from etl.errors import ConfigurationError
from etl.load import layout
from etl.load.warehouse.ddl import QUERY_ENGINES, ddl
from etl.load.warehouse.tables import comment
from etl.model import schema
from etl.model.locations import QueryEngineName

TABLES = list(schema.TABLES.values())
KINDS = (schema.STRING, schema.INT, schema.FLOAT, schema.BOOL, schema.TIMESTAMP)
SQL_TYPES = {
    "spark": ("STRING", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP"),
    "bigquery": ("STRING", "INT64", "FLOAT64", "BOOL", "TIMESTAMP"),
    "snowflake": ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP_NTZ"),
    "athena": ("STRING", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP"),
    "redshift": ("VARCHAR(65535)", "BIGINT", "DOUBLE PRECISION", "BOOLEAN", "TIMESTAMP"),
    "trino": ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP(6)"),
}
LOCATIONS = {"bigquery": 'gs://my-bucket/it\'s "mine"/übung'} | dict.fromkeys(
    ("snowflake", "athena", "redshift", "trino", "clickhouse"), 's3://my-bucket/it\'s "mine"/übung'
)
SQL = [name for name in QUERY_ENGINES if name not in {"pandas", "polars"}]
RESERVED = """
account all alter and any as between by case cast check column connect connection constraint create cross
current current_date current_time current_timestamp current_user database delete distinct drop else exists false
following for from full grant group gscluster having ilike in increment inner insert intersect into is issue join
lateral left like localtime localtimestamp minus natural not null of on or order organization qualify regexp
revoke right rlike row rows sample schema select set some start table tablesample then to trigger true try_cast
union unique update using values view when whenever where with
"""  # Snowflake's list
every_table = pytest.mark.parametrize("table", TABLES, ids=schema.TABLES)
every_engine = pytest.mark.parametrize("engine", QUERY_ENGINES)


def declared(table):
    return [*((column.name, column.type) for column in table.columns), *partitions(table)]


def partitions(table):
    return (
        [("month", schema.STRING)] if table.name == "runs" else [("run_test", schema.STRING), ("month", schema.STRING)]
    )


def location(engine):
    return LOCATIONS.get(engine, '/srv/it\'s "mine"/übung')


def parsed(engine, text):
    """The statements; BigQuery's partition columns become plain ones first, for sqlglot knows no such clause."""
    if engine == "bigquery":
        text = text.replace("\n)\nWITH PARTITION COLUMNS (", ",")
    return [statement for statement in sqlglot.parse(text, dialect=engine) if statement]


def created(engine, text):
    """What CREATE TABLE says."""
    (create,) = (each for each in parsed(engine, text) if isinstance(each, exp.Create) and each.kind == "TABLE")
    return create


def literals(statement):
    return {literal.this for literal in statement.find_all(exp.Literal) if literal.is_string}


def test_the_command_offers_every_engine():
    assert list(QueryEngineName) == [*QUERY_ENGINES, "postgresql"]


@every_table
def test_partition_columns_are_those_of_the_layout(table):
    path = layout.run_path("month=2026-11", "id")
    if table.name != "runs":
        path = layout.part_path(table.name, layout.Part("checkout", "month=2026-11/part-0"))
    assert [column.name for column in table.partitions] == re.findall(r"/([a-z_]+)=", path)


@pytest.mark.parametrize("engine", SQL_TYPES)
@every_table
def test_table_has_the_declared_columns_and_types(engine, table):
    types = dict(zip(KINDS, SQL_TYPES[engine], strict=True))
    expected = [(name, exp.DataType.build(types[kind], dialect=engine)) for name, kind in declared(table)]
    create = created(engine, ddl([table], engine))
    columns = [column for column in create.find_all(exp.ColumnDef) if column.kind]
    assert [(column.name, column.kind) for column in columns] == expected


@pytest.mark.parametrize("engine", ["spark", "snowflake", "athena", "redshift", "trino"])
@every_table
def test_table_is_partitioned_by_what_stands_in_the_path(engine, table):
    clause = created(engine, ddl([table], engine)).find(exp.PartitionedByProperty)
    found = re.findall(r"run_test|month(?! AS| COMMENT)\b", clause.sql(engine).lower())
    assert list(dict.fromkeys(found)) == [name for name, _ in partitions(table)]


def test_bigquery_takes_what_stands_in_the_path_by_its_own_clause():
    for table in TABLES:
        clause = re.search(r"\nWITH PARTITION COLUMNS \(\n(.*?)\n\)\n", ddl([table], "bigquery"), re.DOTALL)
        assert clause
        words = {"run_test": "  `run_test` STRING", "month": "  `month` STRING"}
        assert clause[1] == ",\n".join(words[name] for name, _ in partitions(table))


@every_table
def test_duckdb_view_has_the_declared_columns_and_types(table):
    types = dict(zip(KINDS, ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMPTZ"), strict=True))
    (view,) = parsed("duckdb", ddl([table], "duckdb"))
    first = view.expression.left
    assert [(column.alias, column.this.to) for column in first.expressions] == [
        (name, exp.DataType.build(types[kind], dialect="duckdb")) for name, kind in declared(table)
    ]


@every_table
def test_clickhouse_structure_has_the_declared_columns_and_types(table):
    """The structure is a text within the statement, of the form that CREATE TABLE has."""
    (view,) = parsed("clickhouse", ddl([table], "clickhouse"))
    _, kind, structure = (each.this for each in view.find(exp.Anonymous, exp.From).find_all(exp.Literal))
    assert kind == "Parquet"
    create = sqlglot.parse_one(f"CREATE TABLE t ({structure})", dialect="clickhouse")
    types = dict(zip(KINDS, ("String", "Int64", "Float64", "Bool", "DateTime64(6, 'UTC')"), strict=True))
    assert [(column.name, column.args["kind"].sql("clickhouse")) for column in create.find_all(exp.ColumnDef)] == [
        (column.name, types[column.type] if column.is_key else f"Nullable({types[column.type]})")
        for column in table.columns
    ]
    assert [each.name for each in view.expression.expressions[1:]] == [name for name, _ in partitions(table)]


@pytest.mark.parametrize("engine", SQL)
def test_nothing_is_opaque_to_the_parser_but_what_it_has_no_syntax_for(engine):
    known = ("MSCK REPAIR TABLE ", "CALL hive.system.sync_partition_metadata(", "ALTER EXTERNAL TABLE ")
    for statement in parsed(engine, ddl(TABLES, engine)):
        text = statement.sql(engine, comments=False)
        is_schema = engine == "redshift" and text.startswith("CREATE EXTERNAL SCHEMA")
        assert not isinstance(statement, exp.Command) or text.startswith(known) or is_schema, text[:200]


@pytest.mark.parametrize("engine", SQL)
def test_location_is_one_text_in_every_statement(engine):
    """Quotes in it end no text, and nothing of it is read as SQL."""
    root = location(engine)
    text = ddl(TABLES, engine, f"{root}/")
    names = {table.name for table in TABLES}
    whole = [literals(each) for each in parsed(engine, text) if isinstance(each, exp.Create)]
    found = {each for literal in whole for each in literal if each.startswith(root)}
    if engine == "snowflake":
        assert found == {f"{root}/"}
    else:
        assert {each.removeprefix(f"{root}/").partition("/")[0] for each in found} == names
    for literal in found:
        assert "//" not in literal.removeprefix(root)


@pytest.mark.parametrize("engine", ["pandas", "polars"])
def test_location_is_one_text_in_python(engine):
    root = location(engine)
    tree = ast.parse(ddl(TABLES, engine, root))
    found = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and str(node.value).startswith(root)
    }
    rest = "/**/*.parquet" if engine == "polars" else ""
    assert found == {f"{root}/{table.name}{rest}" for table in TABLES}


@every_engine
def test_without_a_location_a_placeholder_stands_there(engine):
    text = ddl(TABLES, engine)
    root = "data/" if engine in {"pandas", "polars", "duckdb"} else "://BUCKET/PREFIX/"
    assert root in text
    assert text == ddl(TABLES, engine, QUERY_ENGINES[engine].placeholder)


@every_engine
def test_errors_come_last_for_their_folder_may_be_missing(engine):
    found = re.findall(r"\b(executions|calls|evals|errors|runs)/?[\"'* (/]", ddl(TABLES, engine))
    assert found[-1] == "errors"
    assert "errors" not in ddl([schema.RUNS_TABLE], engine)


@pytest.mark.parametrize(
    ("engine", "bad", "reason"),
    [
        *(("duckdb", f"da{character}ta", "engines read them as patterns") for character in "*?[]{}\\\n\0\x1b\u2028"),
        ("duckdb", "", "does not name a folder"),
        ("duckdb", "/", "does not name a folder"),
        ("athena", "s3://", "does not name a folder"),
        ("athena", "gs://bucket/data", "cannot be read by athena, which reads s3://"),
        ("bigquery", "data", "cannot be read by bigquery, which reads gs://"),
        ("duckdb", "ftp://host/data", "which reads paths, s3://"),
        ("duckdb", "://data", "which reads paths, s3://"),
    ],
)
def test_location_that_an_engine_would_misread_is_refused(engine, bad, reason):
    with pytest.raises(ConfigurationError, match=re.escape(reason)) as caught:
        ddl(TABLES, engine, bad)
    assert str(caught.value).isprintable()
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize(
    ("engine", "root", "text"),
    [
        ("spark", "/data", "'/data/calls"),
        ("spark", "hdfs://n/data", "'hdfs://n/data/calls"),
        ("snowflake", "gs://bucket/data", "URL = 'gcs://bucket/data/'"),
        ("clickhouse", "data", "\nFROM file(\n  'data/calls"),
        ("clickhouse", "s3://b/p", "\nFROM s3(\n"),
        ("clickhouse", "https://h/b/p", "\nFROM s3(\n"),
    ],
)
def test_location_is_said_as_the_engine_says_it(engine, root, text):
    assert text in ddl([schema.CALLS], engine, root)


@every_table
def test_snowflake_takes_values_by_the_names_in_the_files_and_words_from_the_path(table):
    """Names in the files are lower-case, and times are microseconds."""
    text = ddl([table], "snowflake")
    for column in table.columns:
        value = f'value:"{column.name}"'
        if column.type == schema.TIMESTAMP:
            value = f"TO_TIMESTAMP_NTZ({value}::NUMBER(38, 0), 6)"
        assert re.search(rf"^  {column.name} ([A-Z_]+) AS \({re.escape(value)}::\1\),$", text, re.MULTILINE), (
            column.name
        )
    for name, _ in partitions(table):
        word = f"SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/{name}=', 2), '/', 1)"
        assert re.search(rf"^  {name} ([A-Z_]+) AS \({re.escape(word)}::\1\),?$", text, re.MULTILINE), name


@pytest.mark.parametrize("engine", ["spark", "bigquery", "athena", "trino"])
@every_table
def test_columns_carry_their_meaning(engine, table):
    found = literals(created(engine, ddl([table], engine)))
    assert {comment(column) for column in table.columns} <= found


@every_table
def test_athena_computes_the_partitions(table):
    found = {
        each.this.this: each.args["value"].this
        for each in created("athena", ddl([table], "athena")).find_all(exp.Property)
        if type(each) is exp.Property
    }
    words = "".join(f"{name}=${{{name}}}/" for name, _ in partitions(table))
    assert found.pop("storage.location.template") == f"s3://BUCKET/PREFIX/{table.name}/{words}"
    assert found.pop("projection.run_test.type", None) == (None if table.name == "runs" else "injected")
    assert found == {
        "projection.enabled": "true",
        "projection.month.type": "date",
        "projection.month.format": "yyyy-MM",
        "projection.month.range": "2020-01,NOW",
        "projection.month.interval": "1",
        "projection.month.interval.unit": "MONTHS",
    }


@pytest.mark.parametrize(
    ("engine", "refresh"),
    [
        ("spark", "MSCK REPAIR TABLE {};"),
        ("trino", "CALL hive.system.sync_partition_metadata('simulation_metrics', '{}', 'FULL');"),
        ("snowflake", "ALTER EXTERNAL TABLE {} REFRESH;"),
    ],
)
@every_table
def test_a_catalog_is_told_of_new_files(engine, refresh, table):
    assert ddl([table], engine).rpartition("\n")[2] == refresh.format(table.name)


def test_redshift_shows_how_a_partition_is_added():
    (statement,) = re.findall(r"(-- ALTER .*?;)\n", ddl([schema.CALLS], "redshift"), re.DOTALL)
    (alter,) = sqlglot.parse(statement.replace("-- ", ""), dialect="redshift")
    assert isinstance(alter, exp.Alter)
    assert "s3://BUCKET/PREFIX/calls/run_test=KEY/month=YYYY-MM/" in literals(alter)


def test_names_that_are_not_quoted_are_no_reserved_words():
    """In the other dialects, columns are quoted."""
    assert not set(RESERVED.split()) & {*schema.TABLES, *(name for table in TABLES for name, _ in declared(table))}


@every_table
def test_a_comment_is_whole_sentences_that_a_catalog_keeps(table):
    for column in (*table.columns, *table.partitions):
        text = comment(column)
        assert len(text.encode()) <= 255
        assert text.endswith(f" Unit: {column.unit}." if column.unit else ".")
        assert column.meaning.startswith(text.removesuffix(f" Unit: {column.unit}."))


def test_a_long_comment_loses_its_last_sentences_and_not_its_unit():
    column = schema.Column("name", schema.INT, f"{'First.'} {'x' * 240}. Last.", "ms")
    assert comment(column) == "First. Unit: ms."
    assert comment(schema.Column("name", schema.INT, "First. Last.", "ms")) == "First. Last. Unit: ms."
