"""Rows on their way lie on disk, in one file, and nothing of them stays behind."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.errors import DestinationError
from etl.load.drivers import spooled

SOME, MORE = (pa.table({"a": values}) for values in ([1, 2], [3]))


def test_file_holds_all_rows_until_they_are_loaded():
    with spooled([SOME, MORE]) as file:
        assert (file.rows, pq.read_table(file.path)) == (3, pa.concat_tables([SOME, MORE]))
    assert not Path(file.path).parent.exists()


def test_without_a_place_for_temporary_files_the_fix_is_named(monkeypatch, tmp_path):
    """As in a container whose own disk is read-only."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(DestinationError, match="Set TMPDIR to a writable folder"), spooled([SOME]):
        pass
