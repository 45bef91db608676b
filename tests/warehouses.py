"""Real warehouses for the tests: DuckDB in a file, PostgreSQL on loopback; what lies in them, and sessions that die."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from etl.load.dataset import Dataset
from etl.load.files.open import open_files
from etl.load.layout import parse_part_path, parse_run_path
from etl.load.warehouse.contents import Contents, read_contents
from etl.load.warehouse.load import Result, load
from etl.load.warehouse.sql import SqlWarehouse
from etl.load.warehouse.tables import ALL_TABLES
from etl.load.warehouse.target import open_warehouse
from etl.model import schema
from tests.stores import free_ports

Row = dict[str, Any]


@dataclass
class Place:
    """Where a test's tables lie. It keeps a connection of its own until it is closed."""

    url: str
    namespace: str = "simulation_metrics"
    _own: SqlWarehouse | None = None

    @property
    def settings(self) -> dict[str, str]:
        """As in ``[warehouse]``."""
        return {"url": self.url, "schema": self.namespace}

    def open(self) -> SqlWarehouse:
        warehouse = open_warehouse(self.url, self.namespace)
        assert isinstance(warehouse, SqlWarehouse)
        return warehouse

    def query(self, sql: str) -> list[Row]:
        """Rows of a query of the tests' own; ``{s}`` in it is the schema."""
        self._own = self._own or self.open()
        try:
            rows: list[Row] = self._own._session.query(sql.format(s=self.namespace)).to_pylist()
            return rows
        finally:
            self._own._session.rollback()

    def edit(self, *statements: str) -> None:
        """Change something by hand."""
        self._own = self._own or self.open()
        try:
            for statement in statements:
                self._own._session.execute(statement.format(s=self.namespace))
            self._own._session.commit()
        finally:
            self._own._session.rollback()

    def has_tables(self) -> bool:
        sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = '{s}'"
        return bool(self.query(sql))

    def dump(self) -> dict[str, pa.Table]:
        """The rows of all tables."""
        self._own = self._own or self.open()
        tables = {
            table.name: self._own._session.query(f"SELECT * FROM {self.namespace}.{table.name}") for table in ALL_TABLES
        }
        self._own._session.rollback()
        return tables

    def restore(self, dump: dict[str, pa.Table]) -> None:
        """Nothing but the rows of this dump."""
        self._own = self._own or self.open()
        for name, rows in dump.items():
            self._own._session.execute(f"DELETE FROM {self.namespace}.{name}")
            if len(rows):
                self._own._session.append(self.namespace, name, [rows])
        self._own._session.commit()

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None

    def drop(self) -> None:
        """Leave no tables in a server: with each that it has, every connection to it gets dearer."""
        if self.url.startswith("postgresql://"):
            self.edit("DROP SCHEMA IF EXISTS {s} CASCADE")
        self.close()

    def rows(self, table: schema.Table) -> list[Row]:
        """All rows, in the order of their keys."""
        return by_key(table, self.query(f"SELECT * FROM {{s}}.{table.name}"))


def by_key(table: schema.Table, rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: tuple(str(row[name]) for name in table.key))


def load_into(place: Place, data: Path, **options: Any) -> Result:
    """One load."""
    with closing(place.open()) as warehouse:
        return load(contents_of(data), warehouse, **options)


def contents_of(data: Path) -> Contents:
    return read_contents(Dataset(open_files(str(data))))


def rows_of_dataset(data: Path, table: schema.Table) -> list[Row]:
    """All rows of the files, with what their paths say, in the order of their keys; of executions that have a row of their own."""
    rows: list[Row] = []
    for path in sorted((data / table.name).rglob("*.parquet")):
        place = path.relative_to(data).as_posix()
        if part := parse_part_path(place):
            added = {"run_test": part[1].run_test_key, "month": part[1].folder.partition("=")[2][:7]}
        else:
            run = parse_run_path(place)
            assert run is not None
            added = {"month": run[0].partition("=")[2][:7]}
        rows += [row | added for row in pq.ParquetFile(path).read().to_pylist()]
    return by_key(table, rows)


def assert_equals_dataset(place: Place, data: Path) -> None:
    """Every cell of the warehouse is that of the dataset, and the view shows the calls of what is not deleted."""
    executions = {row["execution_id"]: row for row in rows_of_dataset(data, schema.EXECUTIONS)}
    for table in schema.TABLES.values():
        expected = rows_of_dataset(data, table)
        if table in (schema.CALLS, schema.EVALS):
            expected = [row for row in expected if row["execution_id"] in executions]
        assert place.rows(table) == expected, table.name
    living = {execution_id for execution_id, row in executions.items() if row["deleted_at"] is None}
    current = place.query("SELECT call_execution_id FROM {s}.calls_current")
    calls = [row["call_execution_id"] for row in place.rows(schema.CALLS) if row["execution_id"] in living]
    assert sorted(row["call_execution_id"] for row in current) == sorted(calls)


class Died(BaseException):
    """The process is dead."""


class DyingSession:
    """A session that ends, without a word to the engine but the end of its connection, at the nth thing that it is asked."""

    def __init__(self, session: Any, *, nth: int, is_after: bool = False) -> None:
        self._session, self._left, self._is_after = session, nth, is_after
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def query(self, sql: str) -> pa.Table:
        self.asked.append("query")
        return self._session.query(sql)

    def execute(self, sql: str) -> None:
        self._ask("execute", sql)

    def append(self, namespace: str, table: str, pieces: Iterable[pa.Table]) -> None:
        self._ask("append", namespace, table, pieces)

    def commit(self) -> None:
        self._ask("commit")

    def rollback(self) -> None:
        if self._left >= 0:
            self._session.rollback()  # else the end of the connection does it

    def _ask(self, name: str, *arguments: Any) -> None:
        self.asked.append(name)
        self._left -= 1
        if self._left < 0 and not self._is_after:
            raise Died
        getattr(self._session, name)(*arguments)
        if self._left < 0:
            raise Died


def load_and_die(place: Place, data: Path, *, nth: int, is_after: bool = False) -> bool:
    """One load that dies at its nth statement; whether it got so far."""
    with closing(place.open()) as warehouse:
        warehouse._session = DyingSession(warehouse._session, nth=nth, is_after=is_after)
        try:
            load(contents_of(data), warehouse)
        except Died:
            return True
    return False


def new_duckdb(folder: Path) -> Place:
    return Place(f"duckdb://{folder}/{secrets.token_hex(4)}.duckdb")


def new_postgresql(url: str) -> Place:
    return Place(url, f"metrics_{secrets.token_hex(4)}")


def postgresql_folder() -> Path | None:
    """Where the server's programs are; None where it is not installed."""
    found = [Path(each).parent for each in [shutil.which("initdb")] if each]
    return max([*found, *Path("/usr/lib/postgresql").glob("*/bin")], default=None)


@contextmanager
def postgresql() -> Iterator[str]:
    """A server of the tests' own, as another user where this one is root, whom it refuses; gives its URL."""
    programs = postgresql_folder()
    assert programs is not None
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        if user:
            shutil.chown(folder, "nobody", "nogroup")
        data = Path(folder) / "data"
        made: list[str | Path] = [
            programs / "initdb",
            f"--pgdata={data}",
            "--auth=trust",
            "--username=tests",
            "--no-sync",
            "--encoding=UTF8",
        ]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **user)
        options = {
            "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off",
            "full_page_writes": "off", "synchronous_commit": "off", "shared_buffers": "32MB",
        }  # fmt: skip
        command: list[str | Path] = [
            programs / "postgres",
            "-D",
            data,
            *(f"--{name}={value}" for name, value in options.items()),
        ]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, **user)
        try:
            assert server.stderr is not None
            next(line for line in server.stderr if "ready to accept connections" in line)
            log = Thread(target=server.stderr.read)  # a server whose log nobody reads stops
            log.start()
            yield f"postgresql://tests@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # end at once, in order
            server.wait()
        log.join()
        server.stderr.close()
