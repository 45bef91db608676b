"""What is particular to PostgreSQL: views that follow renamed tables, rights, encodings, and servers that stop answering."""

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from adbc_driver_postgresql import dbapi

from etl.errors import DestinationError, ExitCode, InterruptedRunError
from etl.load.warehouse import postgresql
from etl.load.warehouse.ddl import ddl
from etl.load.warehouse.load import load
from etl.load.warehouse.statements import ANY_DATASET, MARK
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


def test_view_shows_the_table_that_was_put_in_the_place_of_ours(data: Path, in_postgresql: Place) -> None:
    """As a DBA does who rebuilds a table, and gives it the comment that a refusal asks for."""
    load_into(in_postgresql, data)
    for statement in (
        "CREATE TABLE {s}.rebuilt (LIKE {s}.calls INCLUDING ALL)",
        "INSERT INTO {s}.rebuilt SELECT * FROM {s}.calls",
        "ALTER TABLE {s}.calls RENAME TO calls_of_before",
        "ALTER TABLE {s}.rebuilt RENAME TO calls",
        f"COMMENT ON TABLE {{s}}.calls IS '{MARK}{ANY_DATASET}.'",
    ):
        in_postgresql.edit(statement)
    next_export(data)
    load_into(in_postgresql, data)

    assert_equals_dataset(in_postgresql, data)


def test_view_that_somebody_made_narrower_or_put_upon_another_stays(data: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, data)
    [row] = in_postgresql.query("SELECT pg_get_viewdef('{s}.calls_current'::regclass) AS text")
    in_postgresql.edit(
        f"CREATE VIEW {{s}}.base AS {row['text']}",
        "CREATE TABLE {s}.shown (id text)",
        "CREATE OR REPLACE VIEW {s}.calls_current AS "
        "SELECT * FROM {s}.base WHERE execution_id IN (SELECT id FROM {s}.shown)",
    )
    next_export(data)
    load_into(in_postgresql, data)

    assert in_postgresql.query("SELECT * FROM {s}.calls_current") == []


def test_view_that_cannot_be_replaced_is_to_be_dropped(data: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, data)
    in_postgresql.edit("ALTER VIEW {s}.calls_current RENAME COLUMN status TO state")
    next_export(data)
    with pytest.raises(DestinationError, match=r"drop the view calls_current, or make it as .*, and load again"):
        load_into(in_postgresql, data)

    in_postgresql.edit("DROP VIEW {s}.calls_current")
    load_into(in_postgresql, data)
    assert_equals_dataset(in_postgresql, data)


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


def test_query_of_the_driver_that_is_refused_is_told_with_the_reason_in_one_line(in_postgresql: Place) -> None:
    stranger = of_role(in_postgresql, "stranger", "REVOKE SELECT ON pg_catalog.pg_attribute FROM PUBLIC")
    try:
        with pytest.raises(DestinationError, match=r"^.*query: .*permission denied for table pg_attribute$"):
            stranger.open()
    finally:
        in_postgresql.edit("GRANT SELECT ON pg_catalog.pg_attribute TO PUBLIC")


def test_text_is_whole_whatever_encoding_the_client_the_role_or_another_session_has(
    data: Path, in_postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler: what was set for the session before is not set any more."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    grants = "ALTER ROLE {r} SET client_encoding = LATIN1", "CREATE SCHEMA {s} AUTHORIZATION {r}"
    pooled = of_role(in_postgresql, "pooled", *grants)
    export_to(a_dataset(data), a_bundle("日本 é", ["c0"]))
    with closing(pooled.open()) as opened:
        session: Any = opened._session
        connection, cursor, end = session._connection, session._cursor, session._connection.commit

        def commit_and_leave() -> None:
            end()
            cursor.execute("RESET ALL")
            end()

        session._connection = SimpleNamespace(commit=commit_and_leave, rollback=connection.rollback)
        commit_and_leave()
        load(contents_of(data), opened)

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


def test_session_that_cannot_be_set_up_is_closed(in_postgresql: Place) -> None:
    """The driver writes a traceback for one that is forgotten."""
    in_postgresql.edit(
        "CREATE SCHEMA {s}",
        "CREATE FUNCTION {s}.set_config(text, text, boolean) RETURNS text AS 'SELECT (1 / 0)::text' LANGUAGE sql",
    )
    elsewhere = f"?options=-csearch_path%3D{in_postgresql.namespace},pg_catalog"

    with pytest.raises(DestinationError, match="division by zero"):
        Place(in_postgresql.url + elsewhere, in_postgresql.namespace).open()
    gc.collect()


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


@contextmanager
def continued_at_the_end() -> Iterator[list[int]]:
    """Processes that a test stops, for a minute at most."""
    stopped: list[int] = []

    def go_on() -> None:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

    gives_up = threading.Timer(60, go_on)
    gives_up.start()
    try:
        yield stopped
    finally:
        gives_up.cancel()
        go_on()


def test_server_process_that_stops_while_rows_are_sent_is_given_up(
    data: Path, in_postgresql: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the limit of its role, where it has one."""
    limited = Place(f"{in_postgresql.url}?options=-c%20statement_timeout%3D2s", in_postgresql.namespace)
    monkeypatch.setattr(postgresql, "GRACE_SECONDS", 1)
    with continued_at_the_end() as stopped:

        def stop(done: int, _total: int) -> None:
            if done == 1:
                (loading,) = in_postgresql.query(
                    "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND xact_start < now() "
                    "AND backend_type = 'client backend'"
                )
                stopped.append(loading["pid"])
                os.kill(loading["pid"], signal.SIGSTOP)

        with pytest.raises(DestinationError, match="the server has not answered for 3 s"):
            load_into(limited, data, on_progress=stop)
        assert stopped
    load_into(in_postgresql, data)
    assert_equals_dataset(in_postgresql, data)


@pytest.mark.parametrize(
    ("grants", "is_loaded", "denied"),
    [
        ((), False, "CREATE on the database, or a schema of this name"),
        (
            ("GRANT USAGE ON SCHEMA {s} TO {r}", "GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO {r}"),
            True,
            r"INSERT and DELETE on \w+, .*",
        ),
        pytest.param(
            ("CREATE SCHEMA {s} AUTHORIZATION {r}", "ALTER ROLE {r} SET default_transaction_read_only = on"),
            False,
            "a transaction that is not read-only",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("GRANT USAGE ON SCHEMA {s} TO {r}", "GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {s} TO {r}"),
            True,
            None,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                "GRANT USAGE ON SCHEMA {s} TO {r}",
                "GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {s} TO {r}",
                "DROP VIEW {s}.calls_current",
                "ALTER TABLE {s}.calls ENABLE ROW LEVEL SECURITY",
            ),
            True,
            "CREATE on the schema, BYPASSRLS, for the row-level security on calls",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_rights_that_a_load_needs_are_asked_for_before_it_is_one(
    data: Path, in_postgresql: Place, grants: Sequence[str], is_loaded: bool, denied: str | None
) -> None:
    if is_loaded:
        load_into(in_postgresql, data)
        export_to(a_dataset(data), a_bundle("e99", ["c99"]))
    theirs = of_role(in_postgresql, "granted", *grants)
    for options in ({"is_dry_run": True}, {}):
        words = f"a load needs more rights than this user has: {denied}$" if options else None
        with pytest.raises(DestinationError, match=words) if denied else nullcontext():
            load_into(theirs, data, **options)


@pytest.mark.parametrize("end", ["?", "?application_name=x&"])
def test_address_that_ends_before_a_parameter_is_taken(in_postgresql: Place, end: str) -> None:
    place = Place(in_postgresql.url + end, in_postgresql.namespace)
    assert place.query("SELECT 1 AS one") == [{"one": 1}]
    place.close()


def new_database(beside: Place, options: str = "") -> Place:
    """A schema of its own in a database of its own on the same server."""
    name = beside.namespace.replace("metrics", "database")
    with closing(dbapi.connect(beside.url, autocommit=True)) as server, closing(server.cursor()) as cursor:
        cursor.execute(f"CREATE DATABASE {name} {options}")
    return Place(beside.url.rpartition("/")[0] + f"/{name}", beside.namespace)


def test_database_without_temporary_tables_is_told_before_a_load(data: Path, in_postgresql: Place) -> None:
    own = new_database(in_postgresql)
    database = own.url.rpartition("/")[2]
    grants = f"GRANT CREATE ON DATABASE {database} TO {{r}}", f"REVOKE TEMP ON DATABASE {database} FROM PUBLIC"
    theirs = of_role(own, "hardened", *grants)
    with pytest.raises(DestinationError, match=r"more rights than this user has: TEMPORARY on the database$"):
        load_into(theirs, data, is_dry_run=True)
    with pytest.raises(DestinationError, match="permission denied to create temporary tables"):
        load_into(theirs, data)
    own.close()


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


def test_database_that_cannot_hold_a_text_is_told_with_the_fix(data: Path, in_postgresql: Place) -> None:
    latin = new_database(in_postgresql, "ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    export_to(a_dataset(data), a_bundle("\N{SNOWMAN}", ["c0"]))

    with pytest.raises(DestinationError, match=r'encoding "LATIN1": use a database whose encoding is UTF8$'):
        load_into(latin, data)
    assert not latin.has_tables()
    latin.close()
