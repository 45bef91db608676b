"""A file is published whole or not at all, durably, and under nobody else's roof."""

import errno
import itertools
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from etl.errors import DestinationError
from etl.files.local import LocalFiles
from tests.damages import closed
from tests.files.watched import watched
from tests.support import paths_in

PART = "calls/run_test=a/month=2026-01/part-0.parquet"
STAGING = "_state/staging"


def publishing(files, data, failing):
    """Publish while the system call of this number fails."""
    calls = itertools.count()

    def before(_step):
        if next(calls) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with watched(files.root, before=before):
        files.publish(PART, data)


MONTH = "calls/run_test=a/month=2026-01"
IS_A_FILE = "Not a directory. A file is in the way. Move the file, or choose another [destination] path"


@pytest.mark.parametrize("old", [b"old", None], ids=["replaced", "new"])
def test_a_publish_that_fails_at_any_call_leaves_one_whole_file_and_nothing_staged(tmp_path, old):
    left = set()
    for number in itertools.count():
        files = LocalFiles(tmp_path / f"data-{number}")
        files.prepare()
        if old:
            files.publish(PART, old)
        try:
            publishing(files, b"new", failing=number)
        except DestinationError as error:
            said = str(error)
        else:
            break
        assert said == f"{files.root / PART}: Input/output error"
        found = files.read(PART) if paths_in(files, "calls") else None
        left.add(found)
        assert found in (old, b"new")
        assert paths_in(files, "") == ([PART] if found else [])
        files.publish(PART, b"again")
        assert files.read(PART) == b"again"
    assert left == {old, b"new"}


def test_a_dataset_may_lie_anywhere_and_stays_there_when_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = LocalFiles(Path("./a/../ünï 測 🚀 it's #1 %41/"))
    files.prepare()
    monkeypatch.chdir("/")
    files.publish(PART, b"data")
    assert (tmp_path / "ünï 測 🚀 it's #1 %41" / PART).read_bytes() == b"data"


@pytest.mark.parametrize("place", ["_state", STAGING, "_state/quarantine"])
def test_staging_that_is_a_link_is_refused_before_anything_is_written(tmp_path, place):
    root, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    (root / place).parent.mkdir(parents=True)
    (root / place).symlink_to(outside)
    with pytest.raises(DestinationError, match="is a symbolic link"):
        LocalFiles(root).prepare()
    assert list(outside.iterdir()) == []


def test_what_is_no_file_is_told_where_it_is_listed_and_never_opened_or_written_through(files, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    folder = (files.root / PART).parent
    folder.mkdir(parents=True)
    (files.root / PART).symlink_to(theirs)
    os.mkfifo(folder / "pipe")
    (files.root / "evals").symlink_to(tmp_path)
    assert [(Path(entry.path).name, entry.oddity.partition(".")[0]) for entry in files.entries("calls")] == [
        (Path(PART).name, "is a symbolic link, which a dataset must not contain"),
        ("pipe", "is neither a file nor a folder"),
    ]
    assert [(entry.path, bool(entry.oddity)) for entry in files.entries("evals")] == [("evals", True)]
    for attempt in (files.read, files.open, lambda _path: paths_in(files, MONTH)):
        with pytest.raises(DestinationError):
            attempt(PART)
    files.publish(PART, b"ours")
    assert (files.read(PART), theirs.read_bytes()) == (b"ours", b"theirs")


@pytest.mark.parametrize(("umask", "mode"), [(0o027, 0o640), (0o000, 0o666)])
def test_files_have_the_mode_that_the_umask_gives(files, umask, mode):
    before = os.umask(umask)
    try:
        files.publish(PART, b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((files.root / PART).stat().st_mode) == mode


def test_list_sees_every_file_but_those_with_a_dot_and_sorts_them(files):
    names = ["b/part-0.parquet", "b/_SUCCESS", "b/part-0.parquet.tmp", "a/z/deep", "a-b", "ä 測", "Z"]
    for name in names:
        path = files.root / "calls" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (files.root / "calls" / "empty").mkdir()
    (files.root / "calls" / "b" / "._part-0.parquet").touch()
    assert paths_in(files, "calls") == sorted(f"calls/{name}" for name in names)
    assert paths_in(files, "calls/b") == sorted(f"calls/{name}" for name in names if name.startswith("b/"))


def test_an_open_file_is_read_in_parts_of_one_version(files):
    files.publish(PART, b"old bytes")
    with files.open(PART) as file:
        files.publish(PART, b"new")
        file.seek(-5, os.SEEK_END)
        assert file.read(2) == b"by"
        (files.root / PART).unlink()
        file.seek(0)
        assert file.read() == b"old bytes"


def test_a_file_that_ends_before_its_size_is_not_taken_for_whole():
    """Files of the kernel have a page's size and fewer bytes, as one of a mounted folder may that is cut."""
    with pytest.raises(DestinationError, match=r"/sys/kernel/fscaps: \d+ of 4,096 bytes arrived. Run again"):
        LocalFiles(Path("/sys/kernel")).read("fscaps")


def test_a_folder_where_a_file_should_be_is_named(files):
    (files.root / PART).mkdir(parents=True)
    for attempt in (lambda: files.publish(PART, b"ours"), lambda: files.read(PART)):
        with pytest.raises(DestinationError) as caught:
            attempt()
        assert str(caught.value) == f"{files.root / PART}: Is a directory. Remove the folder"
    assert paths_in(files, STAGING) == []


@pytest.mark.parametrize(
    ("spelling", "reason"),
    [
        ("file/data", IS_A_FILE),
        ("x" * 256, "File name too long"),
        ("loop/data", "Too many levels of symbolic links. Replace the link with the file or folder itself"),
    ],
)
def test_a_root_that_cannot_be_is_one_line_that_names_it(tmp_path, spelling, reason):
    (tmp_path / "file").write_bytes(b"theirs")
    (tmp_path / "loop").symlink_to("loop")
    files = LocalFiles(tmp_path / spelling)
    with pytest.raises(DestinationError) as caught:
        files.prepare()
    assert str(caught.value) == f"{files.root}: {reason}"
    assert (tmp_path / "file").read_bytes() == b"theirs"


def test_a_root_that_may_not_be_made_is_one_line_that_names_it(tmp_path):
    files = LocalFiles(tmp_path / "data")
    with closed(tmp_path), pytest.raises(DestinationError) as caught:
        files.prepare()
    assert str(caught.value) == f"{files.root}: Permission denied. Let this user read and write this path"


def test_a_file_is_durable_in_the_quarantine_before_it_is_gone_from_its_table(files):
    files.publish(PART, b"damaged")
    steps: list[Any] = []
    with watched(files.root, after=steps.append):
        aside = files.set_aside(PART)
    made = [(step.name, step.target or step.path) for step in steps if step.name in ("rename", "fsync")]
    assert made[-3:] == [("rename", aside), ("fsync", "_state/quarantine"), ("fsync", MONTH)]


@pytest.mark.parametrize(("blocks", "free", "is_refused"), [(1000, 63, True), (1000, 64, False), (0, 0, False)])
def test_a_disk_without_room_is_refused_unless_it_does_not_tell(tmp_path, monkeypatch, blocks, free, is_refused):
    space = SimpleNamespace(f_frsize=1 << 20, f_blocks=blocks, f_bavail=free)
    monkeypatch.setattr(os, "statvfs", lambda _path: space)
    files = LocalFiles(tmp_path / "data")
    if is_refused:
        with pytest.raises(DestinationError) as caught:
            files.prepare()
        reason = "only 63.0 MiB are free, but an export needs 64 MiB. Make room, or move the dataset"
        assert str(caught.value) == f"{files.root}: {reason}"
    else:
        files.prepare()


@pytest.mark.parametrize("planted", ["a file of somebody else", "a link out of the dataset"])
def test_staging_file_that_exists_already_is_not_written_to(files, tmp_path, monkeypatch, planted):
    """Its name cannot be guessed; this is for the one who guesses it."""
    monkeypatch.setattr("etl.files.local.secrets.token_hex", lambda size: "f" * size)
    prey, staged = tmp_path / "prey", files.root / STAGING / ("f" * 16)
    prey.write_bytes(b"theirs")
    if "link" in planted:
        staged.symlink_to(prey)
    else:
        staged.hardlink_to(prey)
    with pytest.raises(DestinationError):
        files.publish(PART, b"ours")
    assert prey.read_bytes() == b"theirs"
