"""Nothing but regular files is opened, and the probe finds what would stop an export and leaves no trace."""

import errno
import os
import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from etl.errors import DestinationError
from etl.files.folder import open_at_once
from etl.files.local import LocalFiles
from etl.files.names import IDENTITY, INDEX, LAST_RUN, STAGING
from tests.files.kernel import small_disk
from tests.files.watched import watched
from tests.support import paths_in


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT])
def test_link_is_not_followed_and_nobody_waits_for_a_pipe(tmp_path, flags):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        open_at_once(tmp_path / "link", flags)
    os.close(open_at_once(tmp_path / "pipe", flags))


def test_probe_leaves_no_trace(files, tmp_path):
    before = {path: path.lstat() for path in tmp_path.rglob("*") if path.is_file()}
    probe = files.probe()
    assert probe.is_there
    assert (probe.free_bytes or 0) > 64 << 20
    assert {path: path.lstat() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_folder_that_has_other_things_and_no_dataset_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "evals" / "gold").mkdir(parents=True)
    for use in (LocalFiles.probe, LocalFiles.prepare):
        with pytest.raises(DestinationError, match=r"holds evals, but no dataset\. Set"):
            use(LocalFiles(tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["evals", "gold"]
    (tmp_path / "evals" / "gold").rename(tmp_path / "evals" / "run_test=checkout")
    LocalFiles(tmp_path).probe()


def export_into(files):
    """What every run does with the dataset's own files, whatever it fetches."""
    files.prepare()
    with files.lock(datetime(2026, 11, 1, tzinfo=UTC)):
        files.sweep_staging()
        files.publish("calls/run_test=a/month=2026-01/part-0.parquet", b"rows")
        for name in (LAST_RUN, INDEX, IDENTITY):
            if name in paths_in(files, "_state"):
                files.read(name)
            files.publish(name, b"{}")


@pytest.mark.parametrize("name", ["create", "write", "fsync", "rename", "unlink", "mkdir", "flock", "pwrite"])
def test_probe_does_what_every_export_does(files, name):
    """A system call that fails here ends both: as where folders cannot be made durable, or files not replaced."""
    export_into(files)

    def fail(step):
        if step.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    for attempt in (export_into, LocalFiles.probe):
        with watched(files.root, before=fail), pytest.raises(DestinationError, match="Input/output error"):
            attempt(LocalFiles(files.root))
    shutil.rmtree(files.root / STAGING)
    assert LocalFiles(files.root).probe().is_there


def test_probe_says_that_the_file_system_is_mounted_for_reading_alone(tmp_path):
    with small_disk(tmp_path / "disk", 128 << 20) as disk:
        files = LocalFiles(disk / "data")
        export_into(files)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for attempt in (files.probe, lambda: export_into(files)):
            with pytest.raises(DestinationError, match=r"Read-only file system\. Remount the file system read-write"):
                attempt()
