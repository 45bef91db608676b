"""What ``schema --ddl`` prints opens a real dataset: every row, in the declared types, and no file too many."""

import asyncio
import datetime as dt
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from sqlglot import exp

import etl
from etl.load.ddl import ddl
from etl.load.tables import COLUMN_TYPES, columns_of
from etl.load.texts import comment
from etl.model import schema
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox
from etl.sandbox.world import listable_calls
from tests.support import settings_for
from tests.warehouses import by_key, rows_of_dataset
from tests.worlds import settled_world

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-readers" / "bin" / "python"
TABLES = list(schema.TABLES.values())
AS_IN_DUCKDB = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
}


def export(world, root, *, lost=None):
    async def run():
        def fault(request, _nth):
            return Fault(status=400) if lost and lost.call_execution_id in request.target else None

        async with Sandbox(world, fault=fault) as server:
            return await job.export(settings_for(server, root, export={"metrics": "calls"}))

    return asyncio.run(run())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """An export in a folder of a difficult name, with a dead letter."""
    world = settled_world(names=["Checkout flow", "7"], executions=12, calls=3, days=40, quirks=True)
    lost = listable_calls(world.run_tests[0].executions[0])[0]
    root = tmp_path_factory.mktemp("it's a data set, 100% ünï") / "data"
    assert export(world, root, lost=lost).exit_code == 3
    return SimpleNamespace(root=root, world=world, lost=lost)


@pytest.fixture(scope="module")
def healed(dataset, tmp_path_factory):
    """As after a night in which the last dead letter succeeded."""
    root = tmp_path_factory.mktemp("healed") / "data"
    shutil.copytree(dataset.root, root)
    assert export(dataset.world, root).exit_code == 0
    return root


def opened(engine, tables, root):
    """The variables of the Python that the command prints."""
    variables: dict[str, Any] = {}
    exec(ddl(tables, engine, str(root)), variables)
    return variables


def documented(title):
    """The code of the section of this title on the pages for readers; an engine's ends with its example."""
    paths = (ROOT / f"docs/{page}.md" for page in ("pandas", "engines"))
    pages = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    (section,) = re.split(rf"^## {title}$", pages, flags=re.MULTILINE | re.IGNORECASE)[1:]
    return re.findall(r"```(?:python|sql)\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)


def one_file_left(root, copy):
    """A copy of the dataset of which all files but one of the calls are spoilt; the partition and rows of that one."""
    shutil.copytree(root, copy)
    kept, *others = sorted((copy / "calls").rglob("*.parquet"))
    for path in others:
        path.write_bytes(b"spoilt")
    run_test, month = (part.partition("=")[2] for part in kept.parent.relative_to(copy / "calls").parts)
    return run_test, month, pq.ParquetFile(kept).metadata.num_rows


def in_pandas(table, root):
    frame = opened("pandas", [table], root)[table.name]
    types = [each.pyarrow_dtype for each in frame.dtypes]
    return list(zip(frame.columns, types, strict=True)), pa.Table.from_pandas(frame, preserve_index=False).to_pylist()


def in_polars(table, root):
    frame = opened("polars", [table], root)[table.name]
    return list(frame.collect_schema().items()), frame.collect().to_dicts()


def in_duckdb(table, root):
    with duckdb.connect() as connection:
        connection.execute(ddl([table], "duckdb", str(root)))
        described = [each[:2] for each in connection.execute(f"DESCRIBE {table.name}").fetchall()]
        return described, connection.sql(f"FROM {table.name}").to_arrow_table().to_pylist()


READERS = {
    in_pandas: COLUMN_TYPES,
    in_polars: (pl.String, pl.Int64, pl.Float64, pl.Boolean, pl.Datetime("us", "UTC")),
    in_duckdb: AS_IN_DUCKDB.values(),
}
every_reader = pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)


@every_reader
def test_every_row_is_read_in_the_declared_types(dataset, read):
    types = dict(zip(COLUMN_TYPES, READERS[read], strict=True))
    for table in TABLES:
        described, rows = read(table, dataset.root)
        assert described == [(column.name, types[column.type]) for column in columns_of(table)]
        assert by_key(table, rows) == rows_of_dataset(dataset.root, table)


def test_pandas_and_polars_read_no_file_that_a_filter_excludes(dataset, tmp_path):
    run_test, month, rows = one_file_left(dataset.root, tmp_path / "data")
    statement = ddl([schema.CALLS], "pandas", str(tmp_path / "data"))
    filters = f"    filters=[('run_test', '==', {run_test!r}), ('month', '==', {month!r})],\n)"
    variables: dict[str, Any] = {}
    exec(statement.removesuffix(")") + filters, variables)
    assert len(variables["calls"]) == rows
    with pytest.raises(pa.ArrowInvalid):
        exec(statement, {})
    calls = opened("polars", [schema.CALLS], tmp_path / "data")["calls"]
    kept = calls.filter(pl.col("run_test") == run_test, pl.col("month") == month)
    assert kept.collect().height == rows
    with pytest.raises(pl.exceptions.PolarsError):
        calls.collect()


def test_duckdb_reads_no_rows_of_a_file_that_a_filter_excludes(dataset):
    files = sorted((dataset.root / "calls").rglob("*.parquet"))
    with duckdb.connect() as connection:
        connection.execute(ddl([schema.CALLS], "duckdb", str(dataset.root)))
        connection.execute("SET explain_output = 'all'")
        run_test, month = (part.partition("=")[2] for part in files[0].parent.parts[-2:])
        query = f"EXPLAIN ANALYZE SELECT status FROM calls WHERE run_test = '{run_test}' AND month = '{month}'"
        ((_, plan),) = connection.execute(query).fetchall()
    assert re.findall(r"Scanning Files: (\d+)/(\d+)", plan) == [("1", str(len(files)))]


@every_reader
@pytest.mark.parametrize("has_newer_file", [False, True])
def test_an_older_file_has_null_in_a_column_that_came_later(dataset, tmp_path, read, has_newer_file):
    """Whether any file has it yet: after an upgrade, no export may have written anything."""
    (path,) = (dataset.root / "runs").rglob("*.parquet")
    folder = tmp_path / path.parent.relative_to(dataset.root)
    folder.mkdir(parents=True)
    rows = pq.ParquetFile(path).read()
    pq.write_table(rows.drop_columns(["requests"]), folder / "1-older.parquet")
    if has_newer_file:
        pq.write_table(rows, folder / "2-newer.parquet")
    expected = {None, rows["requests"][0].as_py()} if has_newer_file else {None}

    _, found = read(schema.RUNS_TABLE, tmp_path)
    assert {row["requests"] for row in found} == expected


@every_reader
def test_errors_are_empty_once_all_succeeded(healed, read):
    described, rows = read(schema.ERRORS, healed)
    assert (len(described), rows) == (len(columns_of(schema.ERRORS)), [])


@pytest.fixture
def executions(dataset, monkeypatch):
    """How many executions the documented examples are about; where they run, the dataset is called data."""
    monkeypatch.chdir(dataset.root.parent)
    rows = rows_of_dataset(dataset.root, schema.EXECUTIONS)
    since = dt.datetime(2026, 10, 28, tzinfo=dt.UTC)
    return sum(row["run_test"] == "checkout-flow-858f2c8d" and row["started_at"] >= since for row in rows)


def test_documented_example_for_pandas(executions):
    statement = ddl([schema.EXECUTIONS], "pandas")
    variables: dict[str, Any] = {}
    exec(f"{statement.removesuffix(')')}{documented('Without this package')[-1]})", variables)
    assert len(variables["executions"]) == executions > 0


def test_documented_example_for_polars(executions):
    quick, example = documented("polars")
    as_documented: dict[str, Any] = {}
    exec(quick, as_documented)
    for variables in (as_documented, opened("polars", [schema.EXECUTIONS], "data")):
        assert eval(f"({example})", variables)["len"].sum() == executions > 0


def test_documented_example_for_duckdb(executions):
    _, shortened, example = documented("duckdb")
    for statement in (shortened, ddl([schema.EXECUTIONS], "duckdb")):
        with duckdb.connect() as connection:
            connection.execute(statement)
            assert sum(count for _, count in connection.execute(example).fetchall()) == executions > 0


def test_documented_quick_look_counts_every_call(dataset, monkeypatch):
    monkeypatch.chdir(dataset.root.parent)
    calls = rows_of_dataset(dataset.root, schema.CALLS)
    with duckdb.connect() as connection:
        counted = dict(connection.execute(documented("duckdb")[0]).fetchall())
    assert counted == Counter(row["run_test_name"] for row in calls)


@pytest.mark.parametrize("engine", ["spark", "bigquery", "snowflake", "athena", "redshift", "trino", "clickhouse"])
def test_documented_example_is_of_the_dialect(engine):
    *_, example = documented(engine)
    (condition,) = sqlglot.parse_one(example, dialect=engine).find_all(exp.Where)
    assert {column.name for column in condition.find_all(exp.Column)} == {"run_test", "month", "started_at"}


def run_elsewhere(script, tmp_path, statements, queries):
    """The answers of an engine that lives in an environment of its own."""
    request = {"warehouse": str(tmp_path / "warehouse"), "statements": statements, "queries": queries}
    environment = {
        "LC_ALL": "C.UTF-8",  # Java takes the encoding of paths from it
        "TZ": "UTC",
        "AWS_EC2_METADATA_DISABLED": "true",
        **({"JAVA_HOME": os.environ["JAVA_HOME"]} if "JAVA_HOME" in os.environ else {}),
    }
    return run_python(Path(__file__).with_name(script), cwd=tmp_path, env=environment, input=json.dumps(request))


def run_python(*arguments, env, **options):
    """What the Python of that environment prints."""
    if not PYTHON.exists():
        pytest.skip(".venv-readers is missing: make test-all makes it")
    env = {"PATH": os.environ["PATH"]} | env
    result = subprocess.run([PYTHON, *arguments], check=False, capture_output=True, text=True, env=env, **options)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout)


def as_json(rows):
    return json.loads(json.dumps(rows, default=str))


@pytest.mark.slow
def test_dask_computes_the_documented_answer(dataset):
    """In the environment of the engines, where the exporter is only on the path."""
    opening, example = documented("pyarrow and Dask")
    code = f"{opening}\n{example}\nprint(mean.to_json())\n"
    found = run_python("-c", code, cwd=dataset.root.parent, env={"PYTHONPATH": str(ROOT)})
    calls = etl.read_table(dataset.root, "calls", deleted="include")
    truth = calls.groupby("run_test_name")["latency_avg_agent_latency_ms"].mean()
    assert found == {name: pytest.approx(value, rel=1e-9) for name, value in truth.items()}


def test_documented_pyarrow_dataset_gives_batches_of_the_files_that_match(executions):
    namespace: dict[str, Any] = {}
    exec(documented("pyarrow and Dask")[0], namespace)
    found = sum(len(batch) for batch in namespace["batches"])
    calls = etl.read_table("data", "calls", deleted="include", run_tests="checkout-flow-858f2c8d")
    assert 0 < found == (calls["execution_started_at"].dt.strftime("%Y-%m") == "2026-10").sum()


@pytest.mark.slow
def test_spark_has_every_row_in_the_declared_types(dataset, tmp_path):
    if not (shutil.which("java") or "JAVA_HOME" in os.environ):
        pytest.skip("Spark needs Java 17 or newer")
    statements = [each.strip() for each in ddl(TABLES, "spark", str(dataset.root)).split(";\n")]
    run_test, month = (part.partition("=")[2] for part in next((dataset.root / "calls").glob("*/*")).parts[-2:])
    queries = {table.name: f"SELECT * FROM {table.name}" for table in TABLES}
    queries |= {f"{table.name} columns": f"DESCRIBE {table.name}" for table in TABLES}
    queries["pruned"] = f"EXPLAIN SELECT status FROM calls WHERE run_test = '{run_test}' AND month = '{month}'"
    found = run_elsewhere("in_spark.py", tmp_path, [each.removesuffix(";") for each in statements], queries)
    types = dict(zip(COLUMN_TYPES, ("string", "bigint", "double", "boolean", "timestamp"), strict=True))
    for table in TABLES:
        assert by_key(table, found[table.name]) == as_json(rows_of_dataset(dataset.root, table))
        described = found[f"{table.name} columns"][: len(columns_of(table))]
        assert [(each["col_name"], each["data_type"], each["comment"]) for each in described] == [
            (column.name, types[column.type], comment(column)) for column in columns_of(table)
        ]
    ((plan,),) = ([row["plan"]] for row in found["pruned"])
    assert re.search(r"PartitionFilters: \[.*run_test.*month.*\]", plan), plan
    assert "InMemoryFileIndex(1 paths)" in plan


@pytest.mark.slow
def test_documented_example_for_clickhouse_reads_every_row(executions, dataset):
    (example,) = documented("ClickHouse")
    rows = re.sub("^.*(?=FROM)|WHERE.*(?=SETTINGS)", "", example, flags=re.DOTALL)
    queries = {table.name: f"SELECT * {rows.replace('executions', table.name)}" for table in TABLES}
    found = run_elsewhere("in_clickhouse.py", Path.cwd(), [], {"example": example, **queries})
    assert sum(row["count()"] for row in found.pop("example")) == executions > 0
    for table in TABLES:
        assert by_key(table, found[table.name]) == as_json(rows_of_dataset(dataset.root, table))
