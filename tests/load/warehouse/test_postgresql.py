"""What is particular to PostgreSQL: rights, encodings, locks, and servers that stop answering."""

import threading
from contextlib import closing
from pathlib import Path

import pytest

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
    assert not in_postgresql.query("SELECT 1 FROM information_schema.tables WHERE table_schema = '{s}'")


def test_server_that_vanishes_or_never_answers_is_given_up_unless_the_url_says_so() -> None:
    """A system asks after two hours whether a server is still there, for which a load would hold the dataset."""
    limited = postgresql._with_limits("postgresql://host/metrics?connect_timeout=7")

    assert limited.startswith("postgresql://host/metrics?connect_timeout=7&keepalives_idle=60&")
    assert "&tcp_user_timeout=120000" in limited
    assert "?connect_timeout=30&" in postgresql._with_limits("postgresql://host/metrics")


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
