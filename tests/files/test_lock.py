"""One writer at a time, and a dead one blocks nobody."""

import errno
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import etl
from etl.errors import DestinationError, LockHeldError
from etl.files.local import LocalFiles
from etl.files.lock import exclusive, holder
from etl.files.names import LOCK

NOW = datetime(2026, 11, 1, 2, 0, 7, 123456, tzinfo=UTC)
HOLDER = """
import sys
from datetime import datetime
from pathlib import Path
from etl.files.lock import exclusive

with exclusive(Path(sys.argv[1]), now=datetime.fromisoformat(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path):
    LocalFiles(tmp_path / "data").prepare()
    return tmp_path / "data"


@contextmanager
def another_process(root):
    """Another process that holds the lock until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), NOW.isoformat()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(etl.__file__).parents[1])},
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_the_second_process_is_told_who_holds_the_lock_and_since_when(root):
    with another_process(root) as process:
        for _ in range(2):  # who was refused leaves the holder its lock and its name
            with pytest.raises(LockHeldError) as caught, exclusive(root, now=NOW):
                pass
            assert str(caught.value) == (
                f"another export holds {root / LOCK} (pid {process.pid} on {socket.gethostname()} "
                "since 2026-11-01T02:00:07+00:00), so nothing was changed"
            )


def test_a_holder_that_fails_frees_the_lock(root):
    with pytest.raises(ZeroDivisionError), exclusive(root, now=NOW):
        raise ZeroDivisionError
    with exclusive(root, now=NOW):
        pass


GARBAGE = pytest.mark.parametrize("garbage", [b"", b"\xff\xfe{", b"[1]", b'{"pid": 1}', b"[" * 5000], ids=range(5))


@GARBAGE
def test_a_holder_whose_name_cannot_be_read_still_holds_the_lock(root, garbage):
    with exclusive(root, now=NOW):
        (root / LOCK).write_bytes(garbage)
        with pytest.raises(LockHeldError, match="holder unknown"), exclusive(root, now=NOW):
            pass


@GARBAGE
def test_a_lock_file_that_nobody_holds_is_taken_whatever_it_says(root, garbage):
    (root / LOCK).write_bytes(garbage)
    assert holder(root) is None
    with exclusive(root, now=NOW):
        assert json.loads((root / LOCK).read_bytes()) == {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": "2026-11-01T02:00:07+00:00",
        }


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_lock_file_that_is_taken_away_while_it_is_held_lets_nobody_in(root, is_replaced):
    with another_process(root):
        (root / LOCK).unlink()
        if is_replaced:
            (root / LOCK).write_text("{}")
        with pytest.raises(LockHeldError, match="holder unknown"), exclusive(root, now=NOW):
            pass


def test_where_folders_cannot_be_locked_the_file_alone_is(root, monkeypatch):
    flock = fcntl.flock

    def refuse_folders(descriptor, operation):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refuse_folders)
    refused = pytest.raises(LockHeldError, match=f"pid {os.getpid()} on")
    with exclusive(root, now=NOW), refused, exclusive(root, now=NOW):
        pass


def test_the_holder_can_be_asked_for_without_disturbing_it(root):
    assert holder(root) is None
    with another_process(root) as process:
        assert holder(root) == f"pid {process.pid} on {socket.gethostname()} since 2026-11-01T02:00:07+00:00"
        process.communicate()
        assert process.returncode == 0, "it had its lock to the end"
    assert holder(root) is None
    assert (root / LOCK).exists()


def test_asking_for_the_holder_locks_nobody_out(root, monkeypatch):
    monkeypatch.setattr("etl.files.lock._RETRY_SECONDS", [1e-3] * 9)
    is_over = threading.Event()

    def ask():
        while not is_over.is_set():
            holder(root)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        for _ in range(200):
            with exclusive(root, now=NOW):
                pass
    finally:
        is_over.set()
        asker.join()


@pytest.mark.parametrize(("call", "code"), [("fcntl.flock", errno.ENOLCK), ("os.pwrite", errno.ENOSPC)])
def test_what_cannot_be_locked_is_named_with_the_fix_and_free_again(root, monkeypatch, call, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(call, fail)
    with pytest.raises(DestinationError) as caught, exclusive(root, now=NOW):
        pass
    monkeypatch.undo()
    fix = ". Keep the dataset where files can be locked" if code == errno.ENOLCK else ""
    assert str(caught.value) == f"{root / LOCK} cannot be locked: {os.strerror(code)}{fix}"
    with exclusive(root, now=NOW):
        pass
