"""A load into BigQuery, as far as an emulator of it knows: load jobs, the script, and what becomes of a load that dies.

local-bigquery translates them to DuckDB. That it takes a statement does not prove that BigQuery does, nor what it costs there.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlglot

pytest.importorskip("local_bigquery", reason="local-bigquery is in an environment of its own: see tests/bigquery.in")

from google.api_core.exceptions import RetryError
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery as library

from etl.errors import DestinationError
from etl.load.warehouse import bigquery
from etl.load.warehouse.bigquery import _dialect, connect
from etl.load.warehouse.load import load
from etl.load.warehouse.spool import Spool
from etl.load.warehouse.statements import Statements
from etl.load.warehouse.tables import ALL_TABLES, columns_of
from etl.model import schema
from tests.loads import NAMESPACE, differences, first_export, load_once, next_export
from tests.stores import free_ports
from tests.warehouses import Died, by_key, contents_of, rows_of_dataset

pytestmark = pytest.mark.slow
AFTER = ["c1", "c4", "c5", "c6", "c7", "c8", "c9"]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory) -> Iterator[str]:
    """Its URL; the extensions of DuckDB that it needs come from packages, not from the network."""
    home = tmp_path_factory.mktemp("bigquery")
    for found in Path(sys.prefix).glob(
        "lib/python3*/site-packages/duckdb_extension_*/extensions/v*/*.duckdb_extension"
    ):
        place = home / ".duckdb" / "extensions" / found.parent.name / "linux_amd64" / found.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(found)
    port, other = free_ports(2)
    command: list[str | Path] = [
        Path(sys.executable).with_name("local-bigquery"), "--host", "127.0.0.1", "--port", str(port), "--grpc-port", str(other),
        "--project", "project", "--dataset", "default", "--data-dir", str(home / "data"),
    ]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert server.stdout is not None
        begun = list(takewhile(lambda line: "Uvicorn running" not in line, server.stdout))
        assert server.poll() is None, "".join(begun)
        log = Thread(target=server.stdout.read)  # a server whose log nobody reads stops
        log.start()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()
    log.join()
    server.stdout.close()


class Project:
    """A dataset of BigQuery's, and the one that is loaded into it."""

    def __init__(self, client: Any, name: str, data: Path) -> None:
        self.client, self.name, self.data = client, name, data
        self.url = f"bigquery://project/{name}"

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        for statement in statements:
            config = library.QueryJobConfig(default_dataset=f"project.{self.name}")
            rows = [tuple(row.values()) for row in self.client.query(statement, job_config=config).result()]
        return rows

    def load(self, **options: Any) -> Any:
        return load_once(self.url, self.data, **options)

    def assert_settled(self) -> None:
        for table in schema.TABLES.values():
            with closing(connect(self.url, NAMESPACE)) as opened:
                session: Any = opened._session
                rows = session.query(f"SELECT * FROM {self.name}.{table.name}").to_pylist()
            assert by_key(table, rows) == rows_of_dataset(self.data, table), table.name
        assert differences(self.url, self.data) == []
        assert not self.load().is_changed
        assert not [table for table in self.client.list_tables(f"project.{self.name}") if "staged" in table.table_id]


@pytest.fixture
def project(emulator, tmp_path, monkeypatch, request):
    """An empty dataset."""

    class Client(library.Client):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(credentials=AnonymousCredentials(), client_options={"api_endpoint": emulator}, **options)

    monkeypatch.setattr(library, "Client", Client)
    client = Client(project="project")
    name = re.sub(r"\W+", "_", f"d_{time.time_ns()}")
    client.create_dataset(f"project.{name}")
    yield Project(client, name, first_export(tmp_path / "data"))
    client.close()


@pytest.fixture
def loaded(project):
    project.load()
    return project


def test_first_load_into_bigquery_brings_every_cell(project):
    result = project.load()

    assert (result.new, result.rows["calls"]) == (6, 6)
    project.assert_settled()
    calls = project.client.get_table(f"project.{project.name}.calls")
    assert calls.time_partitioning.type_ == "MONTH"
    assert calls.clustering_fields == ["run_test", "execution_id"]
    assert calls.description.startswith("One row per call. Loaded by metrics-etl from dataset ")
    assert all(field.description for field in calls.schema)


def test_next_load_into_bigquery_replaces_what_changed(loaded):
    next_export(loaded.data)
    result = loaded.load()

    assert (result.new, result.changed, result.altered, result.removed) == (1, 3, 0, 0)
    loaded.assert_settled()
    assert loaded.sql("SELECT COUNT(*) FROM calls_current") == [(7,)]


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE calls SET duration_seconds = 99.5 WHERE call_execution_id = 'c3'",
        "UPDATE executions SET status = NULL WHERE TRUE",
        "DELETE FROM evals WHERE execution_id = 'e4'",
        "DELETE FROM executions WHERE TRUE",
        "DELETE FROM runs WHERE TRUE",
        "DELETE FROM metrics_etl_state WHERE TRUE",
        "DELETE FROM metrics_etl_state WHERE kind = 'dataset'",
        "DROP TABLE metrics_etl_state",
        "DROP TABLE evals",
        "DROP TABLE runs",
        "DROP VIEW calls_current",
        "ALTER TABLE evals DROP COLUMN reason",
    ],
)
def test_what_was_edited_by_hand_in_bigquery_is_made_equal_again(loaded, edit):
    loaded.sql(edit)
    assert loaded.load().is_changed
    loaded.assert_settled()


def test_older_copy_of_bigquery_tables_is_brought_up_to_date(loaded):
    names = [table.name for table in ALL_TABLES]
    loaded.sql(*(f"CREATE TABLE {name}_before AS SELECT * FROM {name}" for name in names))
    next_export(loaded.data)
    loaded.load()
    for name in names:
        loaded.sql(f"DELETE FROM {name} WHERE TRUE", f"INSERT INTO {name} SELECT * FROM {name}_before")
    loaded.load()

    loaded.assert_settled()


def test_another_dataset_in_bigquery_is_refused(loaded, tmp_path):
    with pytest.raises(DestinationError, match=r"holds another dataset .*: name another \[warehouse\] schema or url"):
        load_once(loaded.url, first_export(tmp_path / "other"))


def test_bigquery_table_of_somebody_else_is_refused(project):
    project.sql("CREATE TABLE evals (a INT64)")
    with pytest.raises(DestinationError, match="evals was not made by metrics-etl: name another"):
        project.load()


def test_column_of_another_type_in_bigquery_is_refused(loaded):
    loaded.sql(
        "DROP VIEW calls_current",
        "ALTER TABLE calls DROP COLUMN duration_seconds",
        "ALTER TABLE calls ADD COLUMN duration_seconds STRING",
    )
    with pytest.raises(DestinationError, match=r"calls\.duration_seconds is STRING, expected FLOAT64"):
        loaded.load()


def test_bigquery_dataset_that_is_not_there_is_one_line(project):
    with pytest.raises(DestinationError, match=r"bigquery://project/nowhere: 404 .*nowhere"):
        load_once("bigquery://project/nowhere", project.data)


@pytest.mark.parametrize(
    "error", [RetryError("timeout of 600 s exceeded", None), ConnectionResetError("reset by peer")]
)
def test_bigquery_that_cannot_be_reached_is_one_line(project, monkeypatch, error):
    def fail(*_args, **_kw):
        raise error

    monkeypatch.setattr(library.Client, "query", fail)
    with pytest.raises(DestinationError, match=r"^bigquery://project/.*(exceeded|reset)"):
        project.load()


def test_where_nothing_differs_bigquery_is_asked_one_query(loaded, monkeypatch):
    asked: list[str] = []
    query = library.Client.query

    def recorded(client, sql, **options):
        asked.append(sql)
        return query(client, sql, **options)

    monkeypatch.setattr(library.Client, "query", recorded)
    loaded.load()

    assert len(asked) == 1


def die(monkeypatch, project, *, until):
    """A load whose process ends at its nth request for a job or table; whether it got so far."""
    done = 0

    def dying(work):
        def step(*args, **kw):
            nonlocal done
            done += 1
            if done > until:
                raise Died
            return work(*args, **kw)

        return step

    with closing(connect(project.url, NAMESPACE)) as opened, monkeypatch.context() as patch:
        for name in ("query", "create_table", "load_table_from_file", "delete_table"):
            patch.setattr(library.Client, name, dying(getattr(library.Client, name)))
        try:
            load(contents_of(project.data), opened)
        except Died:
            return True
    return False


def test_bigquery_load_that_dies_at_any_request_is_made_up_for(loaded, monkeypatch):
    next_export(loaded.data)
    before, until = loaded.sql("SELECT call_execution_id FROM calls ORDER BY 1"), 0
    while die(monkeypatch, loaded, until=until):
        assert loaded.sql("SELECT call_execution_id FROM calls ORDER BY 1") in (before, [(each,) for each in AFTER])
        until += 5

    assert until > 10
    drop_staged(loaded)
    loaded.assert_settled()


def test_first_bigquery_load_that_dies_at_any_request_is_made_up_for(project, monkeypatch):
    until = 0
    while die(monkeypatch, project, until=until):
        until += 5

    assert until > 10
    drop_staged(project)
    project.assert_settled()


def drop_staged(project):
    """As BigQuery does when they expire."""
    for table in project.client.list_tables(f"project.{project.name}"):
        if "staged" in table.table_id:
            found = project.client.get_table(table)
            assert found.expires is not None
            project.client.delete_table(found)


def test_script_that_fails_changes_nothing(loaded, monkeypatch):
    next_export(loaded.data)
    before = loaded.sql("SELECT call_execution_id FROM calls ORDER BY 1")
    with monkeypatch.context() as patch:
        patch.setattr(bigquery, "_COMMIT", "SELECT ERROR('no')")
        with pytest.raises(DestinationError, match=r"400 .* no Location"):
            loaded.load()
    assert loaded.sql("SELECT call_execution_id FROM calls ORDER BY 1") == before
    loaded.load()
    loaded.assert_settled()


def test_load_job_that_brings_too_few_rows_ends_the_load(loaded, monkeypatch):
    next_export(loaded.data)
    take = Spool.take

    def taken(spool):
        for file in take(spool):
            file.rows += 1
            yield file

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "take", taken)
        with pytest.raises(DestinationError, match="metrics_etl_gone took 4 of 5 rows"):
            loaded.load()
    loaded.load()
    loaded.assert_settled()


def test_every_bigquery_table_is_made_by_one_statement():
    statements = [*Statements(_dialect("d"), "d").create_all(ALL_TABLES, "a" * 32)]

    assert len(statements) == len(ALL_TABLES) + 1
    for table, statement in zip(ALL_TABLES, statements, strict=False):
        (parsed,) = sqlglot.parse(statement, dialect="bigquery")
        assert parsed is not None
        assert statement.count("OPTIONS (description = ") == len(columns_of(table)) + 1
        assert "Loaded by metrics-etl from dataset aaaa" in statement
        assert f"PRIMARY KEY ({', '.join(table.unique)}) NOT ENFORCED" in statement.replace("`", "")
