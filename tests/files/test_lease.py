"""At most one writer holds the lease, a dead one blocks nobody for long, and one that lost it writes nothing."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from etl.errors import DestinationError, LockHeldError
from etl.files import lease, store
from etl.files.interface import never_stopped
from etl.files.names import LOCK
from etl.files.objects import Objects
from etl.pipeline import job
from etl.sandbox import Sandbox
from tests.stores import Edited, Refused
from tests.support import settings_for
from tests.worlds import settled_world

NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)


@pytest.fixture
def objects(proxy):
    return Objects(proxy.store.url(), proxy.options)


@pytest.fixture
def life_seconds(monkeypatch):
    """Short enough to wait for."""
    monkeypatch.setattr(lease, "LIFE_SECONDS", 0.6)
    return 0.6


def died(objects):
    """A holder that was killed: it took the lease, and never renews it."""
    dead = lease.Lease(objects, NOW)
    dead.take(never_stopped)
    return dead


def test_one_holds_it_and_the_next_takes_it_at_once(objects):
    with lease.hold(objects, NOW) as held:
        held.require()
        assert str(lease.holder(objects)).endswith("since 2026-11-01T02:00:00+00:00")
    assert lease.holder(objects) is None
    with lease.hold(objects, NOW):
        pass


def test_a_second_one_is_refused_while_the_first_renews_it(objects, life_seconds):
    with (
        lease.hold(objects, NOW),
        pytest.raises(LockHeldError, match=r"another export holds s3://.*/_state/lock \(pid \d+ on .* since 2026"),
    ):
        lease.Lease(objects, NOW).take(never_stopped)


def test_a_dead_holder_is_followed_and_finds_out_if_it_is_not_dead(objects, life_seconds):
    dead = died(objects)
    with lease.hold(objects, NOW):
        for attempt in (dead.renew, dead.renew):
            with pytest.raises(DestinationError, match=r"another program replaced or removed .*, the lock of"):
                attempt()
        dead.release()
        assert lease.holder(objects)
    with pytest.raises(DestinationError, match="another program replaced or removed "):
        dead.require()


@pytest.mark.parametrize("is_after_a_dead_one", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_of_many_that_begin_at_once_one_gets_it(objects, monkeypatch, is_after_a_dead_one):
    """Those that see the lock watch it: the winner shows that it lives."""
    monkeypatch.setattr(lease, "LIFE_SECONDS", 2.0)
    if is_after_a_dead_one:
        died(objects)
    won, refused = [], []
    barrier = threading.Barrier(6)

    def take():
        mine = lease.Lease(objects, NOW)
        barrier.wait()
        try:
            mine.take(never_stopped)
            won.append(mine)
        except LockHeldError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for mine in won:
            mine.renew()
    assert (len(won), len(refused)) == (1, 5)


def test_one_that_could_not_renew_it_writes_nothing_before_it_has(objects, proxy, monkeypatch):
    mine = died(objects)
    mine.require()
    sent = len(proxy.requests)
    mine.require()
    assert len(proxy.requests) == sent
    monkeypatch.setattr(lease, "LIFE_SECONDS", 0.0)
    mine.require()
    assert len(proxy.requests) == sent + 1
    proxy.judge = lambda _told: Refused(400, "ExpiredToken")
    with pytest.raises(DestinationError, match="the credentials have expired"):
        mine.require()


@pytest.mark.parametrize("clock", ["monotonic", "time"])
def test_one_whose_machine_slept_renews_it_before_it_writes(objects, proxy, monkeypatch, clock):
    mine = died(objects)
    sent, real = len(proxy.requests), getattr(time, clock)
    monkeypatch.setattr(time, clock, lambda: real() + lease.LIFE_SECONDS)
    mine.require()
    assert [told.method for told in proxy.requests[sent:]] == ["PUT"]


def test_a_renewal_that_was_heard_although_it_failed_is_no_loss(objects):
    mine = died(objects)
    objects.put(LOCK, mine._text(renewals="heard"), mine._seen)
    mine.renew()
    mine.renew()
    assert str(lease.holder(objects)).startswith("pid")
    objects.put(LOCK, mine._text(renewals="heard"), mine._seen)
    mine.release()
    assert lease.holder(objects) is None


def test_a_store_that_ignores_conditions_is_refused(blind_store):
    objects = Objects(blind_store.store.url(), blind_store.options)
    mine = lease.Lease(objects, NOW)
    for attempt in (lambda: mine.take(never_stopped), lambda: lease.prove(objects, "_state/staging/1")):
        with pytest.raises(DestinationError, match="ignores conditions"):
            attempt()


@pytest.mark.parametrize("text", [b"[]", b"[" * 9999, b'{"pid": 1, "host": "h", "since": "s"}'])
def test_what_is_no_lease_is_taken_at_once(objects, text):
    """As the lock of a folder that was copied into the bucket."""
    objects.put(LOCK, text, None)
    assert lease.holder(objects) is None
    with lease.hold(objects, NOW):
        assert str(lease.holder(objects)).startswith("pid")


def test_a_lock_that_is_removed_or_replaced_meanwhile_ends_the_run_in_one_line(objects):
    for harm in (objects.delete, lambda path: objects.put(path, b"junk", objects.head(path).version)):
        with lease.hold(objects, NOW) as mine:
            harm(LOCK)
            with pytest.raises(DestinationError, match="another program replaced or removed "):
                mine.renew()


def test_a_take_that_fails_gives_the_lease_back(objects, proxy):
    proxy.judge = lambda told: Refused(403, "AccessDenied") if told.method == "PUT" and told.nth == 2 else None
    with pytest.raises(DestinationError, match="no permission to put"), lease.hold(objects, NOW):
        pass
    assert lease.holder(objects) is None


def weak(status, content, headers):
    return status, content, {name: f"W/{each}" if name.lower() == "etag" else each for name, each in headers.items()}


def other(status, content, headers):
    return status, content, {name: '"other"' if name.lower() == "etag" else each for name, each in headers.items()}


def test_proxy_that_weakens_etags_does_no_harm_and_one_that_changes_them_is_told(objects, proxy):
    for _ in range(2):
        proxy.judge = lambda _told: Edited(weak)
        with lease.hold(objects, NOW) as held:
            held.renew()
    proxy.judge = lambda told: Edited(other) if told.method == "GET" else None
    with pytest.raises(
        DestinationError, match=r"lock is free, but cannot be taken\. Check for a proxy that changes ETags"
    ) as caught:
        lease.Lease(objects, NOW).take(never_stopped)
    assert not isinstance(caught.value, LockHeldError)


def test_a_renewal_is_given_up_while_the_lease_still_lives(objects, proxy):
    """Else a store that hangs once would let another one take over from a holder that lives."""
    assert 2 * store._HASTY["client_options"]["timeout"].total_seconds() < lease.LIFE_SECONDS / 2


def test_a_holder_that_was_not_seen_for_long_is_none(objects, monkeypatch):
    objects.put(LOCK, json.dumps({"pid": 1, "host": "h", "since": "s", "token": "t"}).encode(), None)
    assert lease.holder(objects) == "pid 1 on h since s"

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(minutes=2)

    monkeypatch.setattr(lease, "datetime", Later)
    assert lease.holder(objects) is None


def test_an_outage_is_waited_for_by_who_must_renew_first(objects, proxy, monkeypatch):
    mine = died(objects)
    monkeypatch.setitem(store._HASTY, "retry_config", {"max_retries": 0})
    mine._objects = Objects(objects.url, proxy.options).hasty()
    real, waited = time.monotonic, list[int]()
    monkeypatch.setattr(time, "monotonic", lambda: real() + sum(waited))
    monkeypatch.setattr(time, "sleep", lambda _seconds: waited.append(50))
    monkeypatch.setattr(lease, "LIFE_SECONDS", 0.0)
    proxy.judge = lambda _told: Refused(503, "SlowDown") if len(waited) < 2 else None
    mine.require()
    proxy.judge = lambda _told: Refused(503, "SlowDown")
    with pytest.raises(DestinationError):
        mine.require()
    assert len(waited) == 5


async def test_a_store_that_stays_busy_is_waited_for_once_and_not_by_each_request(proxy, tmp_path, monkeypatch):
    """After minutes of 503 a run has its index, its row and its record to write, and a lease to renew before each."""
    seconds = 3.0
    for patience, share in ((store._PATIENT, 1.0), (store._HASTY, 0.05)):
        bounds = {"max_retries": 100, "retry_timeout": timedelta(seconds=share * seconds)}
        wait = {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(milliseconds=200), "base": 2}
        monkeypatch.setitem(patience, "retry_config", bounds | {"backoff": wait})
    monkeypatch.setattr(lease, "_OUTAGE_SECONDS", seconds)
    monkeypatch.setattr(lease, "LIFE_SECONDS", seconds / 4)
    began = list[float]()

    def judge(told):
        if began or (told.method == "PUT" and "run_test" in told.path):
            began.append(time.monotonic())
            return Refused(503, "SlowDown")
        return None

    proxy.judge = judge
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1)) as server:
        settings = settings_for(server, tmp_path)
        destination = {"path": proxy.store.url(), "options": proxy.options}
        to_bucket = settings.model_copy(update={"destination": settings.destination.model_copy(update=destination)})
        summary = await job.export(to_bucket)

    assert (summary.exit_code, time.monotonic() - began[0] < 2 * seconds) == (6, True)
