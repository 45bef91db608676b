"""The laws of loads on an emulator of BigQuery, and what is particular to it: load jobs, and one script for all.

local-bigquery translates them to DuckDB. That it takes a statement does not prove that BigQuery does, nor what it costs
there.
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
from etl.load import bigquery
from etl.load.bigquery import _dialect
from etl.load.synchronize import synchronize
from etl.load.tables import ALL_TABLES, VIEWS, columns_of
from tests.load.test_laws import *  # noqa: F403 the laws, with the place of this module
from tests.load.test_laws import contents
from tests.loads import assert_settled, made_by, next_export, spooled_with_one_more
from tests.stores import free_ports
from tests.warehouses import Died, Place, contents_of, load_into

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def emulator(tmp_path_factory) -> Iterator[str]:
    """Its URL; the extensions of DuckDB that it needs come from packages, not from the network."""
    home = tmp_path_factory.mktemp("bigquery")
    extensions = "lib/python3*/site-packages/duckdb_extension_*/extensions/v*/*.duckdb_extension"
    for found in Path(sys.prefix).glob(extensions):
        place = home / ".duckdb" / "extensions" / found.parent.name / "linux_amd64" / found.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(found)
    port, other = free_ports(2)
    command: list[str | Path] = [
        Path(sys.executable).with_name("local-bigquery"), "--host", "127.0.0.1", "--port", str(port), "--grpc-port",
        str(other), "--project", "project", "--dataset", "default", "--data-dir", str(home / "data"),
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


class Project(Place):
    """A dataset of BigQuery's."""

    client: Any
    is_emulated = True
    can_rehearse = False
    tells_views = False

    def die(self, data: Path, *, nth: int) -> bool:
        """At its nth request for a job or table; what is staged then expires."""
        done = 0

        def dying(work: Any) -> Any:
            def step(*args: Any, **kw: Any) -> Any:
                nonlocal done
                done += 1
                if done > nth:
                    raise Died
                return work(*args, **kw)

            return step

        with closing(self.open()) as opened, pytest.MonkeyPatch.context() as patch:
            for name in ("query", "create_table", "load_table_from_file", "delete_table"):
                patch.setattr(library.Client, name, dying(getattr(library.Client, name)))
            try:
                synchronize(contents_of(data), opened)
            except Died:
                patch.undo()
                self.expire()
                return True
        return False

    def drop_column(self, table: str, name: str) -> None:
        """With its views, as in PostgreSQL: the emulator cannot list the columns of one that reads what is gone."""
        views = [view.name for view in VIEWS if table in {name for name, _ in view.columns.values()}]
        self.edit(*(f"DROP VIEW IF EXISTS {{s}}.{name}" for name in views))
        super().drop_column(table, name)

    def staged(self) -> list[Any]:
        tables = self.client.list_tables(f"project.{self.namespace}")
        return [self.client.get_table(table) for table in tables if "staged" in table.table_id]

    def expire(self) -> None:
        for table in self.staged():
            assert table.expires is not None
            self.client.delete_table(table)


@pytest.fixture
def empty(emulator, monkeypatch):
    """An empty dataset."""

    class Client(library.Client):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(credentials=AnonymousCredentials(), client_options={"api_endpoint": emulator}, **options)

    monkeypatch.setattr(library, "Client", Client)
    name = re.sub(r"\W+", "_", f"d_{time.time_ns()}")
    with closing(Project(f"bigquery://project/{name}", name)) as project:
        project.client = Client(project="project")
        project.client.create_dataset(f"project.{name}")
        yield project
        project.client.close()


def test_tables_are_partitioned_and_clustered_and_nothing_stays_staged(target):
    calls = target.client.get_table(f"project.{target.namespace}.calls")

    assert calls.time_partitioning.type_ == "MONTH"
    assert calls.clustering_fields == ["run_test", "execution_id"]
    assert calls.description == "One row per call."
    assert all(field.description for field in calls.schema)
    assert target.staged() == []


def test_bigquery_dataset_that_is_not_there_is_one_line(empty, data):
    with pytest.raises(DestinationError, match=r"bigquery://project/nowhere: 404 .*nowhere"):
        load_into(Place("bigquery://project/nowhere"), data)


UNREACHABLE = [RetryError("timeout of 600 s exceeded", None), ConnectionResetError("reset by peer")]


@pytest.mark.parametrize("error", UNREACHABLE)
def test_bigquery_that_cannot_be_reached_is_one_line(empty, data, monkeypatch, error):
    def fail(*_args, **_kw):
        raise error

    monkeypatch.setattr(library.Client, "query", fail)
    with pytest.raises(DestinationError, match=r"^bigquery://project/.*(exceeded|reset)"):
        load_into(empty, data)


def test_script_that_fails_changes_nothing(target, data, monkeypatch):
    next_export(data)
    before = contents(target)
    with monkeypatch.context() as patch:
        patch.setattr(bigquery, "_COMMIT", "SELECT ERROR('no')")
        with pytest.raises(DestinationError, match=r"400 .* no Location"):
            load_into(target, data)
    assert contents(target) == before
    load_into(target, data)
    assert_settled(target, data)


def test_load_job_that_brings_too_few_rows_ends_the_load(target, data, monkeypatch):
    next_export(data)

    with monkeypatch.context() as patch:
        patch.setattr(bigquery, "spooled", spooled_with_one_more)
        with pytest.raises(DestinationError, match="metrics_etl_gone accepted 6 of 7 rows"):
            load_into(target, data)
    load_into(target, data)
    assert_settled(target, data)


def test_every_bigquery_table_is_made_by_one_statement():
    for table, statement in zip(ALL_TABLES, made_by(_dialect("d")), strict=False):
        (parsed,) = sqlglot.parse(statement, dialect="bigquery")
        assert parsed is not None
        assert statement.count("OPTIONS (description = ") == len(columns_of(table)) + 1
        assert f"PRIMARY KEY ({', '.join(table.key)}) NOT ENFORCED" in statement.replace("`", "")
