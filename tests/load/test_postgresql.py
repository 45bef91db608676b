"""What is particular to PostgreSQL: rights, poolers, replicas, what others add, encodings, locks, vanished servers."""

import threading
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from etl.errors import DestinationError, ExitCode, InterruptedRunError
from etl.load import postgresql
from etl.load.open import open_warehouse
from etl.load.synchronize import synchronize
from etl.model import schema
from etl.model.arrow import with_column
from tests.bundles import a_bundle
from tests.datasets import a_dataset, export_to
from tests.loads import assert_settled, compared, next_export
from tests.stores import free_ports
from tests.warehouses import Place, assert_equals_dataset, contents_of, load_into, of_role, run_printed_ddl


def test_view_is_the_same_for_whom_its_schema_is_in_the_search_path(data: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, data)
    grants = (
        "ALTER ROLE {r} SET search_path = {s}",
        "GRANT USAGE ON SCHEMA {s} TO {r}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO {r}",
    )
    with closing(of_role(in_postgresql, "reader", *grants)) as reader:
        assert compared(reader, data).findings == []


@pytest.mark.slow
def test_tables_that_an_administrator_made_are_filled_by_who_may_make_none(
    data: Path, in_postgresql: Place, prepared: Place
) -> None:
    load_into(prepared, data)
    next_export(data)
    load_into(prepared, data)
    assert_settled(in_postgresql, data)
    assert compared(prepared, data).findings == []

    in_postgresql.edit("ALTER TABLE {s}.errors DROP COLUMN message")
    refusal = r"must be owner of table errors: .*Permissions.*: cannot create errors\.message"
    with pytest.raises(DestinationError, match=refusal):
        load_into(prepared, data)
    run_printed_ddl(in_postgresql)
    load_into(prepared, data)
    assert not load_into(prepared, data).is_changed
    assert_settled(in_postgresql, data)


# what stands between, and what administrators add


@pytest.mark.slow
def test_every_load_works_behind_a_pooler(data: Path, pooled: Place) -> None:
    load_into(pooled, data)
    next_export(data)
    for _ in range(3):
        load_into(pooled, data, is_full=True)

    assert_settled(pooled, data)


@pytest.mark.slow
def test_replica_is_verified_and_takes_no_load(data: Path, in_postgresql: Place, on_replica: Place) -> None:
    load_into(in_postgresql, data)
    in_postgresql.edit("CREATE TABLE {s}.arrived ()")
    is_there = "SELECT 1 FROM information_schema.tables WHERE table_schema = '{s}' AND table_name = 'arrived'"
    while not on_replica.query(is_there):
        pass

    assert_settled(on_replica, data)
    with pytest.raises(DestinationError, match=r"This server is a replica\. Name the primary in \[warehouse\] url"):
        load_into(on_replica, data, is_full=True)


DROPPING = """
CREATE FUNCTION {s}.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER dropping BEFORE INSERT ON {s}.calls FOR EACH ROW WHEN (NEW.execution_id = 'e2')
EXECUTE FUNCTION {s}.nothing()"""


def test_rows_that_a_trigger_drops_are_missed_and_nothing_is_noted(data: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, data)
    before = in_postgresql.rows(schema.CALLS)
    in_postgresql.edit(*DROPPING.split(";\n"))
    next_export(data)
    difference = "more or fewer rows arrived than were sent for execution e2. Drop the trigger"
    for is_full in (False, True):
        with pytest.raises(DestinationError, match=difference):
            load_into(in_postgresql, data, is_full=is_full)
    assert in_postgresql.rows(schema.CALLS) == before

    in_postgresql.edit("DROP TRIGGER dropping ON {s}.calls")
    load_into(in_postgresql, data)
    assert_settled(in_postgresql, data)


def test_foreign_keys_of_others_hold_if_they_are_deferred(data: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, data)
    reference = "execution_id text REFERENCES {s}.executions"
    in_postgresql.edit(f"CREATE TABLE {{s}}.notes ({reference})", "INSERT INTO {s}.notes VALUES ('e1')")
    next_export(data)
    with pytest.raises(DestinationError, match="violates foreign key constraint"):
        load_into(in_postgresql, data)
    in_postgresql.edit(
        "ALTER TABLE {s}.notes ALTER CONSTRAINT notes_execution_id_fkey DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE {s}.calls ADD FOREIGN KEY (execution_id) REFERENCES {s}.executions DEFERRABLE INITIALLY DEFERRED",
        f"CREATE TABLE {{s}}.cascaded ({reference} ON DELETE CASCADE)",
        "INSERT INTO {s}.cascaded VALUES ('e1')",
    )
    load_into(in_postgresql, data)

    assert_settled(in_postgresql, data)
    assert in_postgresql.query("SELECT * FROM {s}.notes") == [{"execution_id": "e1"}]
    assert in_postgresql.query("SELECT * FROM {s}.cascaded") == [], "docs/warehouses.md warns of it"


@pytest.mark.slow
def test_columns_of_others_need_a_default_or_take_null(data: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, data)
    in_postgresql.edit(
        "ALTER TABLE {s}.calls ADD COLUMN team text NOT NULL DEFAULT 'sales'",
        "ALTER TABLE {s}.calls ADD COLUMN dollars numeric GENERATED ALWAYS AS (cost_total_cost_cents / 100.0) STORED",
    )
    next_export(data)
    load_into(in_postgresql, data)
    assert compared(in_postgresql, data).findings == []
    assert {row["team"] for row in in_postgresql.rows(schema.CALLS)} == {"sales"}

    in_postgresql.edit("ALTER TABLE {s}.calls ALTER COLUMN team DROP DEFAULT")
    with pytest.raises(DestinationError, match='null value in column "team"'):
        load_into(in_postgresql, data, is_full=True)


# values


ESCAPES = r'["\\u0000", "\ud800", "\ud83d\ude00", "\\\u0000"]'
HOSTILE = rf'{{"\u0000": {ESCAPES}, "b": [1e2, -0.0, 1.50, 123456789012345678901234567890]}}'


def test_json_is_jsonb_and_the_same_whatever_postgresql_makes_of_it(data: Path, in_postgresql: Place) -> None:
    call = a_bundle("e1", ["c1"], key="checkout", date="2026-08-01", version=2)
    export_to(a_dataset(data), call, run="run-2")
    part = min((data / "calls").rglob("*.parquet"))
    rows = pq.read_table(part, partitioning=None)
    pq.write_table(with_column(rows, "raw", [HOSTILE] * len(rows)), part)
    load_into(in_postgresql, data)

    assert compared(in_postgresql, data).findings == []
    assert not load_into(in_postgresql, data).is_changed
    values = "raw->'b'->>2 AS number, raw->'\ufffd'->>1 AS half"
    (found,) = in_postgresql.query(f"SELECT {values} FROM {{s}}.calls WHERE raw IS NOT NULL LIMIT 1")
    assert found == {"number": "1.50", "half": "\ufffd"}


@pytest.mark.slow
def test_json_in_tables_of_an_older_version_stays_text(data: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, data)
    in_postgresql.make_texts("calls", "extra")
    next_export(data)
    load_into(in_postgresql, data, is_full=True)

    assert compared(in_postgresql, data).findings == []


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


def test_session_reads_one_state_and_leaves_no_lock_behind_when_the_loader_dies(pooled: Place) -> None:
    """Behind a pooler, too, where each transaction may be in another session."""
    names = [
        "transaction_isolation", "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count",
        "tcp_user_timeout", "client_connection_check_interval", "idle_in_transaction_session_timeout",
    ]  # fmt: skip
    for _ in range(2):
        (found,) = pooled.query("SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in names))
        assert [*found.values()] == ["repeatable read", "60", "10", "6", "120000", "2s", "10min"]


def test_each_host_that_does_not_answer_is_named() -> None:
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with pytest.raises(DestinationError) as refused:
        open_warehouse(f"postgresql://loader@{','.join(hosts)}/metrics", "unused")

    assert all(f"port {host.partition(':')[2]} failed: Connection refused" in str(refused.value) for host in hosts)
    assert str(refused.value).isprintable()


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
            synchronize(contents_of(data), opened, is_full=True)
        assert not in_postgresql.query(waits)
        monkeypatch.setattr(postgresql, "LOCK_SECONDS", 1)
        with pytest.raises(DestinationError, match="lock timeout"):
            load_into(in_postgresql, data, is_full=True)
        gives_up.cancel()
    load_into(in_postgresql, data, is_full=True)
    assert_equals_dataset(in_postgresql, data)
