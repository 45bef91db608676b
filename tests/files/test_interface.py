"""What every storage promises: one suite that a folder and a bucket pass."""

from contextlib import nullcontext
from datetime import UTC, datetime

import pytest

from etl.errors import DestinationError
from etl.files.bucket import BucketFiles
from etl.files.interface import read_each, refuse_other_things, version_of
from etl.files.local import LocalFiles
from tests.support import paths_in

NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)
PART = "calls/run_test=a/month=2026-01/part-0.parquet"


@pytest.fixture(params=["folder", "bucket"])
def files(request, tmp_path):
    if request.param == "folder":
        files = LocalFiles(tmp_path / "data")
        files.prepare()
        return files
    proxy = request.getfixturevalue("proxy")
    return BucketFiles(proxy.store.url(), proxy.options)


def test_what_is_set_aside_keeps_its_bytes_beside_what_was_before(files):
    with files.lock(NOW):
        for number in (1, 2):
            files.publish(PART, b"%d" % number)
            aside = files.set_aside(PART)
            assert paths_in(files, "calls") == []
            assert (files.read(aside), aside.split("/")[-1][:4]) == (b"%d" % number, f"000{number}")


def test_every_content_has_a_version_of_its_own(files):
    versions = {version_of(files, PART)}
    with files.lock(NOW):
        for content in (b"one", b"two"):
            files.publish(PART, content)
            versions.add(version_of(files, PART))
    assert len(versions) == 3
    assert "" in versions, "there was no file"


def test_items_are_read_in_their_order_by_one_reader_or_several(files):
    assert list(read_each(files, str, range(20))) == [str(number) for number in range(20)]


OTHER_THINGS = ("README", "evals/gold", "runs/run-1")
OURS = ("_state", "calls/run_test=a", "runs/month=2026-01")


@pytest.mark.parametrize("path", [*OTHER_THINGS, *OURS, ".DS_Store", "lost+found"])
def test_a_dataset_is_made_where_there_is_one_or_nothing(path):
    with pytest.raises(DestinationError, match="but no dataset") if path in OTHER_THINGS else nullcontext():
        refuse_other_things("data", [path])
    refuse_other_things("data", [path, "_state"])
