"""Failures that pass by themselves: the whole load is tried again, from a new connection, until a time limit."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from etl.dataset.parts import Dataset
from etl.errors import DestinationError, InterruptedRunError
from etl.files.background import in_background
from etl.files.open import open_files
from etl.load import synchronize
from etl.load.synchronize import load_warehouse
from etl.settings.sections import WarehouseSettings
from tests.loads import assert_settled, next_export
from tests.warehouses import (
    Place,
    Server,
    holding,
    load_into,
    new_postgresql,
    of_role,
    pgbouncer,
    pgbouncer_program,
    postgresql_server,
)

WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


def load(place: Any, data: Path, *on_retry: Callable[[], object], **options: Any) -> list[str]:
    """Why a load was tried again; what is done after its first failure, after its second, and so on."""
    reasons: list[str] = []
    to_do = iter(on_retry)

    def note(reason: str) -> None:
        reasons.append(reason)
        next(to_do, lambda: None)()

    settings = WarehouseSettings(url=place.url, schema=place.namespace or "unused")
    dataset = Dataset(open_files(str(data)))
    load_warehouse(settings, dataset, datetime(2026, 11, 1, tzinfo=UTC), on_retry=note, **options)
    return reasons


def once(do: Callable[[], object], *, when: Callable[[], object] = lambda: True) -> Callable[..., None]:
    """A callback that does something at its first call when it may."""
    left = [do]

    def called(*_: object) -> None:
        if left and when():
            left.pop()()

    return called


@pytest.fixture
def server(in_postgresql: Place) -> Iterator[Server]:
    with postgresql_server() as running:
        yield running


def test_server_that_restarts_ends_the_connection_and_refuses_others_for_a_while(data: Path, server: Server) -> None:
    with closing(new_postgresql(server.url)) as place:
        ended, refused = load(place, data, lambda: None, server.start, on_progress=once(server.stop))

        assert "terminating connection" in ended
        assert "Connection refused" in refused
        assert_settled(place, data)


@pytest.mark.slow
@pytest.mark.skipif(not pgbouncer_program(), reason="PgBouncer is not installed: apt-get install pgbouncer")
def test_server_that_restarts_behind_a_pooler_is_waited_for(data: Path, server: Server) -> None:
    with pgbouncer(server.url) as url, closing(new_postgresql(url)) as place:
        assert load(place, data, server.start, on_progress=once(server.stop))
        assert_settled(place, data)


def test_connection_is_made_once_one_is_free(data: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, data)
    theirs = of_role(in_postgresql, "limited", "GRANT tests TO {r}")
    # Limited once it is connected: for that, the driver opens a second connection, which the server may see for longer.
    theirs.edit("SET LOCAL ROLE tests", "ALTER ROLE SESSION_USER CONNECTION LIMIT 1")
    reason, *_ = load(theirs, data, theirs.close)  # it takes the server a moment to notice

    assert "too many connections" in reason


def test_deadlock_ends_the_load_and_the_next_try_succeeds(data: Path, in_postgresql: Place) -> None:
    """The load deletes evals before calls, and somebody else locks them in the other order."""
    load_into(in_postgresql, data)
    next_export(data)
    with closing(in_postgresql.open()) as other:
        lock = f"LOCK TABLE {in_postgresql.namespace}.{{}} IN SHARE MODE"
        other._session.execute("SET LOCAL deadlock_timeout = '1h'")
        other._session.execute(lock.format("calls"))
        second = Thread(target=other._session.execute, args=[lock.format("evals")])

        def end() -> None:
            second.join()
            other._session.rollback()

        (reason,) = load(in_postgresql, data, end, on_wait=once(second.start, when=lambda: in_postgresql.query(WAITS)))

    assert "deadlock detected" in reason
    assert_settled(in_postgresql, data)


def test_rows_that_somebody_changed_meanwhile_are_replaced_by_the_next_try(data: Path, in_postgresql: Place) -> None:
    load_into(in_postgresql, data)
    next_export(data)
    with closing(in_postgresql.open()) as other:
        other._session.execute(
            f"UPDATE {in_postgresql.namespace}.calls SET status = 'edited' WHERE execution_id = 'e1'"
        )
        commit = once(other._session.commit, when=lambda: in_postgresql.query(WAITS))
        (reason,) = load(in_postgresql, data, on_wait=commit)

    assert "could not serialize access" in reason
    assert_settled(in_postgresql, data)


def test_delta_table_that_somebody_changed_meanwhile_is_replaced_by_the_next_try(data: Path, in_delta: Any) -> None:
    load_into(in_delta, data)
    next_export(data)
    delete = once(lambda: in_background(lambda: in_delta.delete("calls")).result())
    (reason,) = load(in_delta, data, on_progress=delete)

    assert "someone else wrote at the same time" in reason
    assert_settled(in_delta, data)


@pytest.fixture
def held(in_duckdb: Place) -> Iterator[Any]:
    with holding(in_duckdb) as process:
        yield process


def test_file_that_another_process_has_open_is_loaded_once_it_is_closed(
    data: Path, in_duckdb: Place, held: Any
) -> None:
    (reason,) = load(in_duckdb, data, held.communicate)

    assert "Conflicting lock is held" in reason
    assert_settled(in_duckdb, data)


def test_retry_end_at_an_interruption_and_when_their_time_is_over(
    data: Path, in_duckdb: Place, held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise InterruptedRunError("interrupted")

    with pytest.raises(InterruptedRunError):
        load(in_duckdb, data, on_wait=interrupt)
    monkeypatch.setattr(synchronize, "RETRY_SECONDS", 1)
    with pytest.raises(DestinationError, match="Conflicting lock is held"):
        load(in_duckdb, data)


def test_what_does_not_pass_is_not_tried_again(data: Path, tmp_path: Path) -> None:
    for url in (f"duckdb://{tmp_path}", "postgresql://nobody@no-such-host.invalid/metrics"):
        with pytest.raises(DestinationError):
            load(Place(url), data, lambda: pytest.fail("it is tried again"))
