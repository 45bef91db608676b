"""Real warehouses for the tests: DuckDB in a file, PostgreSQL on loopback; what lies in them, and sessions that die."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from etl.dataset.layout import parse_part_path
from etl.dataset.parts import Dataset
from etl.files.open import open_files
from etl.load.contents import Contents, read_contents
from etl.load.ddl import ddl
from etl.load.open import open_warehouse
from etl.load.synchronize import LoadResult, synchronize
from etl.load.tables import ALL_TABLES, CURRENT_VIEWS, columns_of
from etl.model import schema
from tests.stores import free_ports

Row = dict[str, Any]


@dataclass
class Place:
    """Where a test's tables lie, in an engine that speaks SQL. It keeps a connection of its own until it is closed.

    What the laws of loads do to a warehouse by hand is said by ``delete`` and the like, which ``tests.lakes.Lake`` has,
    too.
    """

    url: str
    namespace: str = "simulation_metrics"
    _own: Any = None
    has_views = tells_views = is_atomic = counts_rows = can_rehearse = True
    is_emulated = False
    """Then the end of its connection undoes nothing."""

    @property
    def has_keys(self) -> bool:
        """Whether the engine refuses a row that stands twice."""
        return "postgresql" in self.url

    @property
    def settings(self) -> dict[str, str]:
        """As in ``[warehouse]``."""
        return {"url": self.url, "schema": self.namespace}

    def open(self) -> Any:
        return open_warehouse(self.url, self.namespace)

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

    def delete(self, table: str, where: str = "TRUE") -> None:
        self.edit(f"DELETE FROM {{s}}.{table} WHERE {where}")

    def update(self, table: str, column: str, value: str, where: str = "TRUE") -> None:
        self.edit(f"UPDATE {{s}}.{table} SET {column} = {value} WHERE {where}")

    def copy(self, table: str, where: str = "TRUE", **changes: str | None) -> None:
        """Insert rows that are there once more, with other values in some columns."""
        declared = next(each for each in ALL_TABLES if each.name == table)
        names = [column.name for column in columns_of(declared)]
        values = {name: "NULL" if value is None else f"'{value}'" for name, value in changes.items()}
        shown = ", ".join(values.get(name, name) for name in names)
        self.edit(f"INSERT INTO {{s}}.{table} ({', '.join(names)}) SELECT {shown} FROM {{s}}.{table} WHERE {where}")

    def remove(self, table: str) -> None:
        self.edit(f"DROP TABLE {{s}}.{table}{self._with_views}")

    def add_column(self, table: str, name: str) -> None:
        """One of texts."""
        with closing(self.open()) as opened:
            self.edit(f"ALTER TABLE {{s}}.{table} ADD COLUMN {name} {opened._dialect.text}")

    def drop_column(self, table: str, name: str) -> None:
        self.edit(f"ALTER TABLE {{s}}.{table} DROP COLUMN {name}{self._with_views}")

    def make_texts(self, table: str, name: str) -> None:
        """Give a column another type."""
        self.drop_column(table, name)
        self.add_column(table, name)

    def make_older(self, table: str, column: str) -> None:
        """As if a version had loaded the table that did not have the column yet."""
        self.drop_column(table, column)
        self.edit("UPDATE {s}.metrics_etl_state SET digest = 'of an older version' WHERE kind = 'dataset'")

    @property
    def _with_views(self) -> str:
        return " CASCADE" if self.has_keys else ""

    def die(self, data: Path, *, nth: int) -> bool:
        """One load that dies at its nth step; whether it got so far."""
        with closing(self.open()) as opened:
            session = opened._session
            opened._session = DyingSession(session, nth=nth)
            try:
                synchronize(contents_of(data), opened)
            except Died:
                if self.is_emulated:
                    session.rollback()
                return True
        return False

    def asked_by(self, data: Path) -> list[str]:
        """What a load asks for that has nothing to do."""
        with closing(self.open()) as opened:
            session = opened._session = DyingSession(opened._session, nth=0)
            synchronize(contents_of(data), opened)
        return session.asked

    def dump(self) -> list[str]:
        """A copy of all tables, beside them."""
        names = [table.name for table in ALL_TABLES]
        self.edit(*(f"CREATE TABLE {{s}}.{name}_before AS SELECT * FROM {{s}}.{name}" for name in names))
        return names

    def restore(self, dump: list[str]) -> None:
        """Nothing but the rows of this dump."""
        for name in dump:
            self.delete(name)
            self.edit(f"INSERT INTO {{s}}.{name} SELECT * FROM {{s}}.{name}_before")

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
    """In the order of their keys, with what JSON says, since engines spell it otherwise."""
    names = {column.name for column in table.columns if column.is_json}
    rows = [{name: json.loads(each) if each and name in names else each for name, each in row.items()} for row in rows]
    return sorted(rows, key=lambda row: tuple(str(row[name]) for name in table.key))


def load_into(place: Any, data: Path, **options: Any) -> LoadResult:
    """One load."""
    with closing(place.open()) as warehouse:
        return synchronize(contents_of(data), warehouse, **options)


def contents_of(data: Path) -> Contents:
    return read_contents(Dataset(open_files(str(data))))


def rows_of_dataset(data: Path, table: schema.Table) -> list[Row]:
    """All rows of the files, with what their paths say, in the order of their keys."""
    rows: list[Row] = []
    for path in sorted((data / table.name).rglob("*.parquet")):
        place = path.relative_to(data).as_posix()
        parsed = parse_part_path(place)
        assert parsed is not None
        part = parsed[1]
        added = {"run_test": part.run_test_key, "month": part.month} if part.run_test_key else {"month": part.month}
        rows += [row | added for row in pq.ParquetFile(path).read().to_pylist()]
    return by_key(table, rows)


def loadable_rows(data: Path, table: schema.Table) -> list[Row]:
    """The rows of the files, without calls and evals whose execution has no row."""
    rows = rows_of_dataset(data, table)
    if table not in (schema.CALLS, schema.EVALS):
        return rows
    known = {row["execution_id"] for row in rows_of_dataset(data, schema.EXECUTIONS)}
    return [row for row in rows if row["execution_id"] in known]


def assert_equals_dataset(place: Any, data: Path) -> None:
    """Every cell of the warehouse is that of the dataset, and the views show what is not deleted."""
    expected = {name: loadable_rows(data, table) for name, table in schema.TABLES.items()}
    assert {name: place.rows(table) for name, table in schema.TABLES.items()} == expected
    living = {name: [row for row in rows if not row.get("deleted_at")] for name, rows in expected.items()}
    ids = {row["execution_id"] for row in living["executions"]}
    for view in CURRENT_VIEWS if place.has_views else ():
        rows = [row for row in living[view.table.name] if not view.of_execution or row["execution_id"] in ids]
        shown = by_key(view.table, place.query(f"SELECT * FROM {{s}}.{view.name}"))
        assert [{name: row[name] for name in rows[0]} for row in shown] == rows, view.name
    for row in place.query("SELECT * FROM {s}.last_load") if place.has_views else ():
        assert row["rows"] == sum(map(len, expected.values()))


class Died(BaseException):
    """The process is dead."""


class DyingSession:
    """A session that ends at its nth statement; the engine sees nothing but the end of its connection."""

    def __init__(self, session: Any, *, nth: int) -> None:
        self._session, self._left = session, nth
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
        if self._left < 0:
            raise Died
        getattr(self._session, name)(*arguments)


def of_the_page(language: str) -> list[str]:
    """The blocks of docs/warehouses.md in this language."""
    page = (Path(__file__).parents[1] / "docs" / "warehouses.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def new_duckdb(folder: Path) -> Place:
    return Place(f"duckdb://{folder}/{secrets.token_hex(4)}.duckdb")


HOLD = "import sys, duckdb; connection = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"


@contextmanager
def holding(place: Place) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has the file of a DuckDB database open until ``communicate`` lets it end."""
    command = [sys.executable, "-c", HOLD, place.url.removeprefix("duckdb://")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.communicate()


def new_postgresql(url: str) -> Place:
    return Place(url, f"metrics_{secrets.token_hex(4)}")


def of_role(place: Place, name: str, *grants: str) -> Place:
    """The place for a user of this name; ``{r}`` in what it is granted is the user."""
    role = place.namespace.replace("metrics", name)
    place.edit(f"CREATE ROLE {role} LOGIN", *(grant.replace("{r}", role) for grant in grants))
    return Place(place.url.replace("tests@", f"{role}@"), place.namespace)


def run_psql(place: Place, script: str) -> None:
    """As an administrator does, outside of any transaction."""
    psql = ["psql", place.url, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    subprocess.run(psql, input=script, text=True, check=True, capture_output=True)


def printed_ddl(place: Place) -> str:
    """What ``schema --ddl postgresql`` prints, for the schema of this place, and for roles of its own."""
    printed = ddl([*schema.TABLES.values()], "postgresql").replace("simulation_metrics", place.namespace)
    return re.sub("metrics_(loader|readers)", rf"{place.namespace}_\1", printed)


def run_printed_ddl(place: Place) -> None:
    """As an administrator does."""
    run_psql(place, printed_ddl(place))


def postgresql_folder() -> Path | None:
    """Where the server's programs are; None where it is not installed."""
    found = [Path(each).resolve().parent for each in [shutil.which("initdb")] if each]
    return max([*found, *Path("/usr/lib/postgresql").glob("*/bin")], default=None)


@contextmanager
def _place_of_a_server(prefix: str) -> Iterator[tuple[Path, Path, int, dict[str, Any]]]:
    """Where the server's programs and data are, its port, and how its processes start.

    They start as another user, in a folder of that user.
    """
    programs = postgresql_folder()
    assert programs is not None
    with _folder_of_another_user(prefix) as (folder, user):
        yield programs, folder / "data", free_ports(1)[0], {"cwd": folder, **user}


@dataclass
class Server:
    """One that can be stopped and started again."""

    url: str
    _run: Callable[[], AbstractContextManager[None]]
    _running: ExitStack

    def start(self) -> None:
        self._running.enter_context(self._run())

    def stop(self) -> None:
        """It ends all connections, and refuses others."""
        self._running.close()


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """A server of the tests' own, as another user where this one is root, whom it refuses."""
    with _place_of_a_server("postgresql-") as (programs, data, port, user), ExitStack() as running:
        made = f"--pgdata={data} --auth=trust --username=tests --no-sync --encoding=UTF8".split()
        subprocess.run([programs / "initdb", *made], check=True, capture_output=True, **user)
        options = {
            "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off",
            "full_page_writes": "off", "synchronous_commit": "off", "shared_buffers": "32MB",
        }  # fmt: skip
        command = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
        run = partial(_running, command, "ready to accept connections", **user)
        server = Server(f"postgresql://tests@127.0.0.1:{port}/postgres", run, running)
        server.start()
        yield server


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of such a server."""
    with postgresql_server() as server:
        yield server.url


@contextmanager
def replica(primary: str) -> Iterator[str]:
    """A server that follows the one at this URL, and takes no changes; gives its URL."""
    with _place_of_a_server("replica-") as (programs, data, port, user):
        copied = f"--pgdata={data} --write-recovery-conf --no-sync --checkpoint=fast --dbname={primary}".split()
        subprocess.run([programs / "pg_basebackup", *copied], check=True, capture_output=True, **user)
        options = f"--listen_addresses=127.0.0.1 --port={port} --unix_socket_directories= --shared_buffers=32MB".split()
        with _running([programs / "postgres", "-D", data, *options], "read-only connections", **user):
            yield primary.replace(primary.partition("127.0.0.1:")[2].partition("/")[0], str(port))


def pgbouncer_program() -> str | None:
    """Where the pooler is; None where it is not installed."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def pgbouncer(server: str) -> Iterator[str]:
    """A pooler before the server at this URL that gives each transaction one of two sessions; gives its URL."""
    program = pgbouncer_program()
    assert program is not None
    with _folder_of_another_user("pgbouncer-") as (folder, user):
        (port,) = free_ports(1)
        server_port = server.partition("127.0.0.1:")[2].partition("/")[0]
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server_port} user=tests\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
        )
        with _running([program, "pgbouncer.ini"], "process up", cwd=folder, **user):
            yield server.replace(server_port, str(port))


@contextmanager
def _folder_of_another_user(prefix: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder, and as whom to run what refuses to run as root."""
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        if user:
            shutil.chown(folder, "nobody", "nogroup")
        yield Path(folder), user


@contextmanager
def _running(command: list[Any], is_ready: str, **options: Any) -> Iterator[None]:
    """A server, from the line of its log on that says so."""
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
    try:
        assert server.stderr is not None
        next(line for line in server.stderr if is_ready in line)
        log = Thread(target=server.stderr.read)  # a server whose log nobody reads stops
        log.start()
        yield
    finally:
        server.send_signal(signal.SIGINT)  # end at once, in order
        server.wait()
    log.join()
    server.stderr.close()
