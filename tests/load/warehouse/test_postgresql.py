"""What is particular to PostgreSQL: views that follow renamed tables, rights, encodings, and servers that stop answering."""

import socket
import sys
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from adbc_driver_postgresql import dbapi

from etl.errors import DestinationError, ExitCode, InterruptedRunError
from etl.load.warehouse import postgresql
from etl.load.warehouse.ddl import ddl
from etl.load.warehouse.load import load
from etl.load.warehouse.target import open_warehouse
from etl.model import schema
from tests.bundles import a_bundle
from tests.datasets import a_dataset, export_to
from tests.loads import next_export
from tests.warehouses import Place, assert_equals_dataset, contents_of, load_into


def of_role(place: Place, name: str, *grants: str) -> Place:
    """The place for a user of this name; ``{r}`` in what it is granted is the user."""
    role = place.namespace.replace("metrics", name)
    place.edit(f"CREATE ROLE {role} LOGIN", *(grant.replace("{r}", role) for grant in grants))
    return Place(place.url.replace("tests@", f"{role}@"), place.namespace)


def test_tables_that_an_administrator_made_are_filled_by_who_may_make_none(data: Path, in_postgresql: Place) -> None:
    printed = ddl([*schema.TABLES.values()], "postgresql").replace(
        '"simulation_metrics"', f'"{in_postgresql.namespace}"'
    )
    loader = of_role(
        in_postgresql,
        "loader",
        *printed.rstrip(";").split(";\n\n"),
        "GRANT USAGE ON SCHEMA {s} TO {r}",
        "GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {s} TO {r}",
    )
    load_into(loader, data)
    next_export(data)
    load_into(loader, data)

    assert_equals_dataset(loader, data)
    loader.close()


def test_text_is_whole_whatever_encoding_the_client_or_the_role_has(
    data: Path, in_postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    grants = "ALTER ROLE {r} SET client_encoding = LATIN1", "CREATE SCHEMA {s} AUTHORIZATION {r}"
    theirs = of_role(in_postgresql, "latin", *grants)
    export_to(a_dataset(data), a_bundle("日本 é", ["c0"]))
    load_into(theirs, data)

    assert_equals_dataset(in_postgresql, data)
    (longest, *_) = in_postgresql.query("SELECT length(execution_id) AS length FROM {s}.executions ORDER BY 1 DESC")
    assert longest["length"] == 4, "sent as another encoding, it would come back the same, and be wrong for others"


def test_server_that_ends_the_session_is_told_so(data: Path, in_postgresql: Place) -> None:
    def end_session(done: int, _total: int) -> None:
        if done == 1:
            in_postgresql.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND xact_start < now() AND backend_type = 'client backend'"
            )

    with pytest.raises(DestinationError, match=r"^.*(terminating connection|server closed the connection).*$"):
        load_into(in_postgresql, data, on_progress=end_session)
    assert not in_postgresql.has_tables()


def test_load_is_over_once_it_is_committed(data: Path, in_postgresql: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is lost after that takes nothing back, and is no failure."""
    clients = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
    others = ", ".join(str(each["pid"]) for each in in_postgresql.query(clients))
    with closing(in_postgresql.open()) as opened:
        commit = opened._session.commit

        def commit_and_be_cut_off() -> None:
            commit()
            monkeypatch.undo()
            in_postgresql.query(f"SELECT pg_terminate_backend(pid) FROM ({clients} AND pid NOT IN ({others})) AS ours")

        monkeypatch.setattr(opened._session, "commit", commit_and_be_cut_off)
        result = load(contents_of(data), opened)

    assert result.new == 6
    assert_equals_dataset(in_postgresql, data)


def test_server_that_never_answers_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gives_up = threading.Timer(20, silent.shutdown, [socket.SHUT_RDWR])
        gives_up.start()
        with pytest.raises(DestinationError, match="timeout expired"):
            Place(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/metrics").open()
        gives_up.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of the timers of its connections")
def test_connection_is_asked_each_minute_whether_its_server_is_still_there(in_postgresql: Place) -> None:
    """A system asks after two hours, for which a load would hold the dataset."""
    with closing(in_postgresql.open()):
        connections = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()]
    address = f"0100007F:{urlsplit(in_postgresql.url).port:04X}"
    timers = [
        timer.split(":") for _, _, remote, state, _, timer, *_ in connections if (remote, state) == (address, "01")
    ]

    assert {kind for kind, _ in timers} == {"02"}, "that of keepalive"
    assert all(int(hundredths, 16) <= 60 * 100 for _, hundredths in timers)


def test_lock_of_somebody_else_is_waited_for_until_a_limit_or_an_interruption(
    data: Path, in_postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    def interrupt() -> None:
        if in_postgresql.query(waits):
            raise InterruptedRunError("interrupted", exit_code=ExitCode.SIGTERM)

    load_into(in_postgresql, data)
    with closing(in_postgresql.open()) as other:
        other._session.execute(f"LOCK TABLE {in_postgresql.namespace}.calls IN SHARE MODE")
        gives_up = threading.Timer(60, other._session.rollback)
        gives_up.start()
        with (
            pytest.raises(InterruptedRunError),
            closing(open_warehouse(in_postgresql.url, in_postgresql.namespace, on_wait=interrupt)) as opened,
        ):
            load(contents_of(data), opened, is_full=True)
        assert not in_postgresql.query(waits)
        monkeypatch.setattr(postgresql, "LOCK_SECONDS", 1)
        with pytest.raises(DestinationError, match="lock timeout"):
            load_into(in_postgresql, data, is_full=True)
        gives_up.cancel()
    load_into(in_postgresql, data, is_full=True)
    assert_equals_dataset(in_postgresql, data)


def new_database(beside: Place, options: str = "") -> Place:
    """A schema of its own in a database of its own on the same server."""
    name = beside.namespace.replace("metrics", "database")
    with closing(dbapi.connect(beside.url, autocommit=True)) as server, closing(server.cursor()) as cursor:
        cursor.execute(f"CREATE DATABASE {name} {options}")
    return Place(beside.url.rpartition("/")[0] + f"/{name}", beside.namespace)


def test_warehouse_of_which_all_tables_are_published_is_loaded(data: Path, in_postgresql: Place) -> None:
    """As for logical replication: the server then lets no row go from a table that has no replica identity."""
    own = new_database(in_postgresql)
    own.edit("CREATE PUBLICATION everything FOR ALL TABLES")
    export_to(a_dataset(data), a_bundle("e1", given_up=["c2"]))
    load_into(own, data)
    letters = own.query("SELECT subject_id FROM {s}.errors")
    export_to(a_dataset(data), a_bundle("e1"))

    load_into(own, data)

    assert len(own.query("SELECT subject_id FROM {s}.errors")) < len(letters)
    assert_equals_dataset(own, data)
    own.close()
