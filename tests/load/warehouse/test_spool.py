"""Rows on their way lie on disk, by table, and nothing of them stays behind."""

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.errors import DestinationError
from etl.load.warehouse.duckdb import connect_to_read
from etl.load.warehouse.spool import Spool

SOME, MORE = (pa.table({"a": values}) for values in ([1, 2], [3]))


def test_file_holds_all_rows_of_its_table():
    spool = Spool()
    spool.add("calls", SOME)
    spool.add("evals", MORE)
    spool.add("calls", MORE)

    found = {file.table: (file.rows, pq.read_table(file.path)) for file in spool.take()}
    assert found == {"calls": (3, pa.concat_tables([SOME, MORE])), "evals": (1, MORE)}
    spool.close()


def test_what_was_taken_does_not_come_again():
    spool = Spool()
    spool.add("calls", SOME)
    (first,) = spool.take()
    spool.add("calls", MORE)
    (second,) = spool.take()

    assert (second.rows, pq.read_table(second.path)) == (1, MORE)
    assert first.path != second.path
    assert list(spool.take()) == []
    spool.close()


def test_what_was_discarded_does_not_come():
    spool = Spool()
    spool.add("calls", SOME)
    spool.discard()
    spool.add("calls", MORE)

    assert [file.rows for file in spool.take()] == [1]
    spool.close()


def test_disk_that_takes_no_rows_is_one_line_that_names_it():
    spool = Spool()
    spool.add("calls", SOME)
    (file,) = spool.take()
    shutil.rmtree(folder := Path(file.path).parent)
    with pytest.raises(DestinationError, match=rf"^{folder}: .*; to use another folder, set TMPDIR$"):
        spool.add("calls", MORE)
    spool.close()


def test_closed_spool_leaves_no_files():
    spool = Spool()
    spool.add("calls", SOME)
    (file,) = spool.take()
    spool.add("calls", MORE)
    folder = Path(file.path).parent
    spool.close()

    assert not folder.exists()


def test_without_a_place_for_temporary_files_the_fix_is_named(monkeypatch, tmp_path):
    """As in a container whose own disk is read-only. A look at a DuckDB file that is not there yet does without."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(DestinationError, match="set TMPDIR to a folder that can be written"):
        Spool()
    warehouse = connect_to_read(f"duckdb://{tmp_path}/new.duckdb", "metrics")
    assert warehouse.loaded().dataset_id is None
    warehouse.close()
    assert not any(tmp_path.iterdir())
