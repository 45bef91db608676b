"""Objects are replaced only if they are what was seen, and every failure is one line that names the fix."""

import http.client
import itertools
import os
import signal
import socket
import threading
from urllib.parse import quote

import pytest

from etl.errors import DestinationError, FileMissingError
from etl.files import objects as objects_module
from etl.files import store
from etl.files.interface import never_stopped
from etl.files.objects import Objects, Version
from etl.files.store import ConflictError, StoreFailedError
from tests.stores import Cut, Edited, Refused

PATH = "calls/run_test=a/month=2026-11/part-0 übung%2F.parquet"


@pytest.fixture
def objects(proxy):
    return Objects(proxy.store.url(), proxy.options)


def test_an_object_is_what_was_put_and_is_listed_as_it_is(objects):
    version = objects.put(PATH, memoryview(b"one"), None)
    found, data = objects.get(PATH)
    assert (data, found.version, found.size_bytes, found.path) == (b"one", version, 3, PATH)
    assert list(objects.list("calls")) == [found]
    assert list(objects.list("cal")) == list(objects.list(PATH)) == list(objects.list("evals")) == []
    objects.copy(PATH, "other")
    objects.delete(PATH)
    objects.delete(PATH)
    with pytest.raises(FileMissingError, match="there is no object s3://"):
        objects.get(PATH)
    assert objects.get("other")[1] == b"one"


def test_nothing_is_replaced_that_was_not_seen(objects):
    first = objects.put(PATH, b"one", None)
    for seen in (None, Version('"0"')):
        with pytest.raises(ConflictError, match="another program changed "):
            objects.put(PATH, b"two", seen)
    second = objects.put(PATH, b"two", first)
    with pytest.raises(ConflictError):
        objects.put(PATH, b"three", first)
    assert objects.get(PATH)[1] == b"two"
    objects.delete(PATH)
    with pytest.raises(ConflictError):
        objects.put(PATH, b"three", second)


@pytest.mark.parametrize("when", ["before", "halfway", "after"])
def test_a_write_whose_connection_was_cut_is_repeated_where_the_library_does_not(proxy, monkeypatch, when):
    """As of Google's stores, none of which can be run here: obstore repeats nothing that has a condition there."""
    monkeypatch.setitem(store._PATIENT, "retry_config", {"max_retries": 0})
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    objects, cut = Objects(proxy.store.url(), proxy.options), []

    def judge(told):
        each = (told.method, told.path, told.headers.get("if-match"))
        if told.method in ("PUT", "DELETE") and each not in cut:
            cut.append(each)
            return Cut(when)
        return None

    proxy.judge = judge
    version = objects.put(PATH, b"two", objects.put(PATH, b"one", None))
    stored, content = objects.get(PATH)
    assert (stored.version, content) == (version, b"two"), "what it wrote is known as its own"
    objects.copy(PATH, "other")
    objects.delete(PATH)
    assert [each.path for each in objects.list("")] == ["other"]
    assert len(cut) == 4


def test_placeholders_of_folders_are_no_objects_and_odd_keys_are_told(objects, proxy):
    whole = objects.url.removeprefix("s3://datasets/")
    for name in ("", "/calls", "/calls/run_test=a", "/_state/quarantine"):
        put_raw(proxy, f"{whole}{name}/", b"")
    assert objects.list("") == objects.list("calls") == []
    put_raw(proxy, f"{whole}/empty.parquet", b"")
    assert [each.path for each in objects.list("")] == ["empty.parquet"]


def put_raw(proxy, key, data):
    """Write an object of any key, as another program would; what is not signed may do everything here."""
    connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"))
    connection.request("PUT", f"/datasets/{quote(key)}", body=data)
    assert connection.getresponse().status == 200
    connection.close()


def test_a_signal_interrupts_the_wait_for_a_store_that_hangs(objects, proxy):
    released = threading.Event()

    def hang(_told):
        os.kill(os.getpid(), signal.SIGINT)
        released.wait(60)

    proxy.before = hang
    try:
        with pytest.raises(KeyboardInterrupt):
            objects.get(PATH)
    finally:
        released.set()


def test_a_store_that_is_silent_is_given_up_by_a_reader_and_by_a_run_that_is_stopped(monkeypatch):
    """The kernel accepts connections to it, and nobody answers."""
    monkeypatch.setattr(objects_module, "STOPPED_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        given = {"access_key_id": "a", "secret_access_key": "b"}
        objects = Objects("s3://bucket/folder", {"endpoint": endpoint, "region": "us-east-1"} | given)
        objects._most_seconds = 0.2
        with pytest.raises(StoreFailedError, match="s3://bucket/folder cannot be reached, or is too slow"):
            objects.get(PATH)
        objects.be_patient(lambda: True)
        with pytest.raises(StoreFailedError):
            objects.list("")


def test_a_run_that_is_stopped_finishes_what_it_writes(objects, proxy, monkeypatch):
    monkeypatch.setattr(objects_module, "STOPPED_SECONDS", 0)
    looks, released = itertools.count(1), threading.Event()

    def is_stopped():
        if next(looks) == 5:
            released.set()
        return True

    proxy.before = lambda _told: released.wait(60)
    objects.be_patient(is_stopped)
    objects.put(PATH, b"one", None)
    objects.be_patient(never_stopped)
    assert objects.get(PATH)[1] == b"one"


@pytest.mark.parametrize("verdict", [Cut("halfway"), Refused(503, "SlowDown")])
def test_what_fails_once_is_tried_again(objects, proxy, verdict):
    failed = set()

    def judge(told):
        if told.method in failed:
            return None
        failed.add(told.method)
        return verdict

    proxy.judge = judge
    version = objects.put(PATH, b"one", None)
    assert objects.get(PATH)[0].version == version
    assert [each.path for each in objects.list("")] == [PATH]
    assert failed == {"PUT", "GET"}


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (Refused(403, "AccessDenied"), "Allow this for all objects below s3://"),
        (Refused(400, "ExpiredToken"), "the credentials have expired. Renew them"),
        (Refused(404, "NoSuchBucket"), "there is no such bucket. Create the bucket"),
        (Refused(400, "EntityTooLarge"), "the store returned EntityTooLarge"),
        (Refused(401), "no permission to put s3://"),
    ],
)
def test_a_refusal_is_one_line_that_names_the_fix(objects, proxy, refused, words):
    proxy.judge = lambda _told: refused
    with pytest.raises(DestinationError) as caught:
        objects.put(PATH, b"one", None)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert objects.url in str(caught.value)


@pytest.mark.parametrize("status", [200, 404, 405])
def test_an_endpoint_that_is_a_website_is_told_as_that(objects, proxy, status):
    page = b"<!DOCTYPE html><html><body>Welcome</body></html>"
    proxy.judge = lambda _told: Edited(lambda *_: (status, page, {"Content-Type": "text/html"}))
    for work in (lambda: objects.put(PATH, b"one", None), lambda: objects.get(PATH)):
        with pytest.raises(DestinationError, match=r"not an object store\. Check the endpoint") as caught:
            work()
        assert objects.url in str(caught.value)


def test_a_store_that_cannot_be_reached_is_named(proxy, monkeypatch):
    monkeypatch.setitem(store._HASTY, "retry_config", {"max_retries": 1})
    objects = Objects("s3://bucket/folder", {"endpoint": "http://127.0.0.1:9", "region": "us-east-1"}).hasty()
    with pytest.raises(
        DestinationError, match=r"s3://bucket/folder cannot be reached, or is too slow\. Check the network"
    ):
        objects.get(PATH)


def test_more_than_a_page_is_listed_and_counted(objects, monkeypatch):
    monkeypatch.setattr("etl.files.objects._PAGE", 2)
    for number in range(5):
        objects.put(f"part-{number}", b"1", None)
    objects.requests.clear()
    assert len(objects.list("")) == 5
    assert objects.requests == {"list": 3}
