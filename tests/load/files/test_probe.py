"""The probe finds what would stop an export, and leaves no trace."""

import errno
import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from etl.errors import DestinationError
from etl.load.files.local import LocalFiles
from etl.load.layout import (
    IDENTITY,
    INDEX,
    LAST_RUN,
    LOCK,
    QUARANTINE,
    STAGING,
    run_path,
)
from tests.damages import NOBODY
from tests.load.files.kernel import small_disk


@pytest.fixture
def files(tmp_path):
    files = LocalFiles(tmp_path / "data")
    files.prepare()
    return files


def test_probe_leaves_no_trace_and_tells_where_it_tried(files, tmp_path):
    before = {path: path.lstat() for path in tmp_path.rglob("*") if path.is_file()}

    probe = files.probe()

    assert (probe.where, probe.is_there) == (str(files.root / STAGING), True)
    assert probe.free_bytes
    assert probe.free_bytes > 64 << 20
    assert {path: path.lstat() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_probe_of_what_is_not_there_yet_tries_the_folder_above_and_makes_nothing(tmp_path):
    probe = LocalFiles(tmp_path / "not" / "yet").probe()

    assert (probe.where, probe.is_there) == (str(tmp_path), False)
    assert list(tmp_path.iterdir()) == []


def test_probe_of_a_folder_that_is_no_dataset_yet_makes_nothing(tmp_path):
    probe = LocalFiles(tmp_path).probe()

    assert (probe.where, probe.is_there) == (str(tmp_path), True)
    assert list(tmp_path.iterdir()) == []


def test_probe_refuses_a_folder_on_another_file_system(files):
    with small_disk(files.root / "calls", 4 << 20), pytest.raises(DestinationError, match="is on another file system"):
        files.probe()


def test_probe_refuses_a_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", 4 << 20), pytest.raises(DestinationError, match="make room"):
        LocalFiles(tmp_path / "disk" / "data").probe()


def test_probe_refuses_links_and_files_and_what_lies_below_a_file(files, tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(DestinationError, match="Not a directory"):
            LocalFiles(root).probe()
    (files.root / "calls").symlink_to(tmp_path)
    with pytest.raises(DestinationError, match="is a symbolic link"):
        files.probe()


def test_probe_that_cannot_write_says_so(files, monkeypatch):
    def fail(*_arguments, **_options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(DestinationError, match="Read-only file system"):
        files.probe()


@contextmanager
def as_somebody_else():
    """The code in the block runs as a user who has no rights of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def export_into(files):
    """What every run does with the dataset's own files, whatever it fetches."""
    files.prepare()
    with files.lock(datetime(2026, 11, 1, tzinfo=UTC)):
        files.sweep_staging()
        files.publish("calls/run_test=a/month=2026-01/part-0.parquet", b"rows")
        for name in filter(files.has, (LAST_RUN, INDEX, IDENTITY)):
            files.read(name)
        for name in (INDEX, IDENTITY):
            files.publish(name, b"{}")
        files.publish(run_path(f"month={datetime.now(UTC):%Y-%m}", "1"), b"row")
        files.publish(LAST_RUN, b"{}")


def a_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def a_file_in_place_of_a_folder(path):
    path.rmdir()
    path.touch()


def a_folder(root, name):
    (root / name).unlink(missing_ok=True)
    (root / name).mkdir()


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "staging is a file": lambda root: a_file_in_place_of_a_folder(root / STAGING),
    "a table is a file": lambda root: a_file(root / "calls"),
    **{f"{name} is a folder": partial(a_folder, name=name) for name in (LAST_RUN, INDEX, IDENTITY)},
    "the lock is a folder": lambda root: (root / LOCK).mkdir(),
    "a link in staging": lambda root: (root / STAGING / "link").symlink_to(root),
    "the lock is a pipe": lambda root: os.mkfifo(root / LOCK),
    "a pipe in staging": lambda root: os.mkfifo(root / STAGING / "pipe"),
    "a folder of runs is a file": lambda root: a_file(root / "runs" / f"month={datetime.now(UTC):%Y-%m}"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_probe_finds_what_stops_an_export(files, name):
    files.probe()
    OBSTACLES[name](files.root)
    with pytest.raises(DestinationError):
        export_into(files)
    with pytest.raises(DestinationError) as caught:
        files.probe()
    assert str(files.root) in str(caught.value)


@pytest.mark.parametrize("closed", [LOCK, LAST_RUN, INDEX, IDENTITY, STAGING, "calls/run_test=a/month=2026-01"])
def test_probe_finds_what_somebody_else_may_not_write(closed):
    with tempfile.TemporaryDirectory() as name:  # others may not enter the folders of pytest
        root = Path(name)
        export_into(LocalFiles(root))
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            folder.chmod(0o777)
        (root / LOCK).chmod(0o666)
        for each in (LAST_RUN, INDEX, IDENTITY):
            (root / each).chmod(0o644)
        with as_somebody_else():
            LocalFiles(root).probe()
        (root / closed).chmod({LOCK: 0o444, LAST_RUN: 0o000, INDEX: 0o000, IDENTITY: 0o000}.get(closed, 0o555))
        with as_somebody_else():
            with pytest.raises(DestinationError, match=f"{closed}.*: Permission denied"):
                export_into(LocalFiles(root))
            with pytest.raises(DestinationError, match=f"{closed}.*: Permission denied"):
                LocalFiles(root).probe()


@pytest.mark.parametrize("mode", [0o711, 0o733])
def test_probe_finds_that_the_folder_itself_cannot_be_read(mode):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        export_into(LocalFiles(root))
        for path in root.rglob("*"):
            path.chmod(0o777 if path.is_dir() else 0o666)
        root.chmod(mode)
        with as_somebody_else():
            for attempt in (lambda: export_into(LocalFiles(root)), LocalFiles(root).probe):
                with pytest.raises(DestinationError, match=f"{name}: Permission denied"):
                    attempt()
        root.chmod(0o755)
        with as_somebody_else():
            export_into(LocalFiles(root))
            LocalFiles(root).probe()


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + "/data", "/".join(["n" * 200] * 20)])
def test_probe_finds_that_a_name_or_path_is_too_long(tmp_path, name):
    for attempt in (LocalFiles(tmp_path / name).probe, LocalFiles(tmp_path / name).prepare):
        with pytest.raises(DestinationError, match="File name too long"):
            attempt()


def test_probe_finds_that_the_paths_of_parts_would_be_too_long(tmp_path):
    deep = tmp_path / "/".join(["n" * 200] * 19)
    root = deep / ("n" * (4090 - len(str(deep))))
    with pytest.raises(DestinationError, match="File name too long"):
        LocalFiles(root).probe()


def test_probe_finds_that_files_cannot_be_locked(files, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(DestinationError, match="files cannot be locked there: No locks available"):
        files.probe()


def test_probe_leaves_alone_what_is_not_the_datasets(files):
    """Such as ``lost+found`` on a volume of its own."""
    (files.root / "lost+found").mkdir()
    (files.root / "latest").symlink_to("calls")
    files.probe()
    assert (files.root / QUARANTINE).exists() is False
    assert Path(files.where()) == files.root


def test_probe_says_that_the_file_system_is_mounted_for_reading_alone(tmp_path):
    with small_disk(tmp_path / "disk", 128 << 20) as disk:
        files = LocalFiles(disk / "data")
        export_into(files)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        reasons = []
        for attempt in (files.probe, lambda: export_into(files)):
            with pytest.raises(DestinationError) as caught:
                attempt()
            reasons.append(str(caught.value).partition(": ")[2])
    assert reasons == ["Read-only file system: mount it for writing"] * 2
