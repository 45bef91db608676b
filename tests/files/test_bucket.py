"""A dataset in a bucket is read, written, set aside and removed as in a folder, and never over what was not seen."""

from datetime import UTC, datetime

import pytest

from etl.dataset.last_run import note_failure, read_last_run
from etl.errors import ConfigurationError, DestinationError, FileMissingError, ForeignFileError
from etl.files import bucket, lease
from etl.files.bucket import BucketFiles
from etl.files.names import IDENTITY, LAST_RUN
from tests.stores import IN_CHUNKS, Edited, Refused
from tests.support import paths_in

NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)
PART = "calls/run_test=a/month=2026-01/part-0.parquet"


@pytest.fixture
def files(proxy):
    return BucketFiles(proxy.store.url(), proxy.options)


def another(files, proxy):
    """The same place as another program sees it."""
    return BucketFiles(files.where(), proxy.options)


def test_what_is_published_is_what_is_read_and_listed(files):
    assert paths_in(files, "") == []
    with files.lock(NOW):
        files.publish(PART, b"one")
        files.publish(PART, b"two")
        files.publish("evals/x", b"1")
        assert files.read(PART) == files.open(PART).read() == b"two"
        (inside,) = files.entries("calls")
    (outside,) = files.entries("calls")
    assert inside == outside
    assert (outside.path, outside.size_bytes, outside.oddity, outside.is_fresh) == (PART, 3, "", False)
    assert paths_in(files, "") == ["_state/lock", PART, "evals/x"]
    assert [paths_in(files, path) for path in ("calls", "cal", f"{PART}/x")] == [[PART], [], []]


def test_a_missing_object_and_a_large_one_are_told_apart(files, monkeypatch):
    monkeypatch.setattr(bucket, "MOST_BYTES", 4)
    with pytest.raises(FileMissingError):
        files.read(PART)
    with files.lock(NOW), pytest.raises(FileMissingError):
        files.open(PART)
    files.publish(PART, b"12345")
    with pytest.raises(ForeignFileError, match=r"has 5 bytes \(limit: 4\)"):
        files.read(PART)


def test_nothing_is_written_over_or_removed_that_this_run_has_not_seen(files, proxy):
    files.publish(PART, b"one")
    with files.lock(NOW):
        another(files, proxy).publish(PART, b"theirs")
        another(files, proxy).publish("new", b"theirs")
        for path in (PART, "new"):
            with pytest.raises(DestinationError, match="another program changed "):
                files.publish(path, b"mine")
        with pytest.raises(DestinationError, match="another program changed "):
            files.set_aside(PART)
        assert files.read(PART) == b"theirs"
        files.publish(PART, b"mine")  # it has seen theirs now
    assert (files.read(PART), files.read("new")) == (b"mine", b"theirs")


def test_what_this_run_has_seen_is_not_missing_because_an_answer_says_so(files, proxy):
    """Rows that are taken for missing would be written over."""
    files.publish(PART, b"one")
    with files.lock(NOW):
        proxy.judge = lambda told: Refused(404) if told.method == "GET" else None
        with pytest.raises(DestinationError, match="although this run has seen it") as caught:
            files.read(PART)
        assert not isinstance(caught.value, FileMissingError)
        proxy.judge = lambda _told: None
        assert (paths_in(files, "calls"), files.read(PART)) == ([PART], b"one")
        files._objects.delete(PART)
        with pytest.raises(DestinationError, match="another program changed "):
            files.publish(PART, b"two")
        with pytest.raises(DestinationError, match="Another program removed the object"):
            files.read(PART)


CUT = Edited(lambda status, content, headers: (status, content[:2], headers | {"Transfer-Encoding": IN_CHUNKS}))


def test_content_that_is_cut_is_refused_and_not_taken_for_damage(files, proxy):
    files.publish(PART, b"12345")
    with files.lock(NOW):
        proxy.judge = lambda told: CUT if told.method == "GET" else None
        with pytest.raises(DestinationError, match="bytes arrived"):
            files.read(PART)
        proxy.judge = lambda _told: None
        assert files.read(PART) == b"12345"


def test_one_that_lost_the_lease_writes_and_removes_nothing(files, proxy, monkeypatch):
    monkeypatch.setattr(lease, "LIFE_SECONDS", 0.3)
    files.publish(PART, b"one")
    with files.lock(NOW):
        monkeypatch.setattr(files._lease, "renew", lambda: None)  # as of a process that sleeps
        with another(files, proxy).lock(NOW):
            monkeypatch.undo()
            monkeypatch.setattr(lease, "LIFE_SECONDS", 0.0)
            for attempt in (lambda: files.publish("new", b"1"), lambda: files.set_aside(PART)):
                with pytest.raises(DestinationError, match="another program replaced or removed "):
                    attempt()
    assert paths_in(files, "") == ["_state/lock", PART]


def test_a_place_of_other_things_is_refused_before_anything_is_written(files, proxy):
    """Tables do not belong into it; what a file manager left there does not matter."""
    for path in (".DS_Store", "calls/._part-0.parquet", "calls/.Trash/part-0.parquet"):
        files.publish(path, b"1")
    assert not files.probe().is_there
    files.publish("evals/gold/monday.csv", b"1")
    for use in (lambda: files.lock(NOW).__enter__(), files.probe, files.examine):
        with pytest.raises(DestinationError, match=r"holds evals, but no dataset\. Set"):
            use()
    note_failure(files, ConfigurationError("no key"), NOW, "all")
    assert paths_in(files, "") == ["evals/gold/monday.csv"]
    files.publish(PART, b"one")
    proxy.requests.clear()
    assert files.examine().is_there
    assert {told.method for told in proxy.requests} <= {"GET", "HEAD"}


@pytest.mark.parametrize(("method", "kind"), [("GET", "get"), ("PUT", "put"), ("DELETE", "delete")])
def test_a_probe_finds_what_the_credentials_may_not_do(files, proxy, method, kind):
    proxy.judge = lambda told: Refused(403, "AccessDenied") if told.method == method else None
    with pytest.raises(DestinationError, match=f"no permission to {kind} s3://"):
        files.probe()


def test_a_run_that_cannot_start_leaves_the_record_to_the_one_at_work(files, proxy):
    with files.lock(NOW):
        note_failure(another(files, proxy), ConfigurationError("no key"), NOW, "all")
        files.publish(LAST_RUN, b"{}")
    note_failure(files, ConfigurationError("no key"), NOW, "all")
    attempt = read_last_run(files, note=list[str]().append).attempt
    assert attempt is not None
    assert attempt.message == "no key"


def test_the_lock_lists_once_and_what_is_known_is_asked_no_more(files, proxy):
    files.publish(IDENTITY, b"{}")
    for number in range(3):
        files.publish(f"calls/{number}", b"1")
    with files.lock(NOW):
        sent = len(proxy.requests)
        assert len(paths_in(files, "calls")) == 3
        assert paths_in(files, "evals") == []
        with pytest.raises(FileMissingError):
            files.read(PART)
        assert len(proxy.requests) == sent
        assert files.requests["list"] == 1
