"""What opens the dataset in each engine: as recorded for small tables, and as the engine parses it for the real ones.

pandas, Polars and DuckDB are executed in test_ddl_opens.py, Spark there too by make test-all. The others
are parsed by sqlglot in their dialect, which has no syntax for MSCK, CALL and REFRESH. Write the records, of which a
person has to read what changed, with: python -m tests.load.test_ddl
"""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest
import sqlglot
from sqlglot import exp

from etl.errors import ConfigurationError
from etl.load.ddl import QUERY_ENGINES, ddl
from etl.model import schema
from etl.model.locations import QueryEngineName

TABLES = list(schema.TABLES.values())
LOCATIONS = {"bigquery": 'gs://my-bucket/it\'s "mine"/übung'} | dict.fromkeys(
    ("snowflake", "athena", "trino"), 's3://my-bucket/it\'s "mine"/übung'
)
SQL = [name for name in QUERY_ENGINES if name not in {"pandas", "polars"}]
RECORDS = Path(__file__).parent / "ddl"


def small_tables():
    """A column of each type, in two tables: of a month alone, and of a run test."""
    columns = (
        schema.Column("id", schema.STRING, "Who's who.", is_key=True),
        schema.Column("number", schema.INT, "A number.", "ms"),
        schema.Column("share", schema.FLOAT, "A share."),
        schema.Column("is_so", schema.BOOL, "Whether it is so."),
        schema.Column("at", schema.TIMESTAMP, "When it was."),
    )
    return [schema.Table(each.name, "", "", columns, each.partitions) for each in (schema.RUNS_TABLE, schema.ERRORS)]


def location(engine):
    return LOCATIONS.get(engine, '/srv/it\'s "mine"/übung')


def parsed(engine, text):
    """The statements; BigQuery's partition columns become plain ones first, for sqlglot knows no such clause."""
    if engine == "bigquery":
        text = text.replace("\n)\nWITH PARTITION COLUMNS (", ",")
    return [statement for statement in sqlglot.parse(text, dialect=engine) if statement]


def literals(statement):
    return {literal.this for literal in statement.find_all(exp.Literal) if literal.is_string}


def test_the_command_offers_every_engine():
    assert list(get_args(QueryEngineName)) == [*QUERY_ENGINES, "postgresql"]


@pytest.mark.parametrize("engine", QUERY_ENGINES)
def test_statements_are_as_recorded(engine):
    """Errors come last: they stop no other table."""
    assert f"{ddl(small_tables(), engine)}\n" == (RECORDS / f"{engine}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("engine", SQL)
def test_nothing_is_opaque_to_the_parser_but_what_it_has_no_syntax_for(engine):
    known = ("MSCK REPAIR TABLE ", "CALL hive.system.sync_partition_metadata(", "ALTER EXTERNAL TABLE ")
    for statement in parsed(engine, ddl(TABLES, engine)):
        text = statement.sql(engine, comments=False)
        assert not isinstance(statement, exp.Command) or text.startswith(known), text[:200]


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


@pytest.mark.parametrize(
    ("engine", "bad", "reason"),
    [
        *(("duckdb", f"da{character}ta", "engines read as patterns") for character in "*?[]{}\\\n\0\x1b\u2028"),
        ("duckdb", "", "must name the folder of a dataset"),
        ("duckdb", "/", "must name the folder of a dataset"),
        ("athena", "s3://", "must name the folder of a dataset"),
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
    ],
)
def test_location_is_said_as_the_engine_says_it(engine, root, text):
    assert text in ddl([schema.CALLS], engine, root)


if __name__ == "__main__":
    for name in QUERY_ENGINES:
        (RECORDS / f"{name}.txt").write_text(f"{ddl(small_tables(), name)}\n", encoding="utf-8")
