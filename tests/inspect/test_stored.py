"""Rows that the last run left and that are not in their files any more are found; nothing else is."""

import shutil

import pyarrow.parquet as pq
import pytest

from etl.dataset.index import read_index, update_index, write_index
from etl.files.local import LocalFiles
from etl.files.names import INDEX
from etl.inspect.stored import read_lost
from etl.model.findings import Kind
from tests.bundles import KEY, a_bundle
from tests.datasets import a_dataset, export_to, part


@pytest.fixture
def data(tmp_path):
    """Two executions in one part, and the index of a run."""
    dataset = a_dataset(tmp_path)
    export_to(dataset, a_bundle(), a_bundle("e2", ["c3"]), a_bundle("o1", ["o2"], key="other"))
    write_index(dataset.files, update_index(dataset, read_index(dataset.files), []))
    return tmp_path


def lost(data, *keys):
    return [(each.subject, each.text) for each in read_lost(LocalFiles(data), keys or (KEY,))]


@pytest.mark.parametrize("table", ["executions", "calls", "evals"])
def test_a_missing_file_is_named_with_the_rows_that_it_had(data, table):
    rows = pq.read_metadata(data / part(table)).num_rows
    shutil.rmtree(data / table / f"run_test={KEY}")
    assert lost(data) == [(part(table), f"has lost {rows} of the {rows} rows that it had after the last run")]
    assert [each.kind for each in read_lost(LocalFiles(data), [KEY])] == [Kind.LOST_ROWS]
    assert lost(data, "other") == []


def test_a_file_with_fewer_rows_is_named_with_their_number(data):
    path = data / part("calls")
    pq.write_table(pq.ParquetFile(path).read().slice(1), path)
    assert lost(data) == [(part("calls"), "has lost 1 of the 3 rows that it had after the last run")]


def test_rows_that_a_run_adds_and_files_of_dead_letters_that_go_are_no_loss(data):
    export_to(a_dataset(data), a_bundle("e3", ["c4"], given_up=["c4"]))
    assert lost(data) == []
    shutil.rmtree(data / "errors")
    assert lost(data) == []


def test_a_damaged_file_is_no_loss_since_it_is_a_finding_of_its_own(data):
    (data / part("calls")).write_bytes(b"PAR1")
    assert lost(data) == []


@pytest.mark.parametrize("content", [None, b"PAR1"])
def test_without_its_index_nothing_is_known_to_be_missing(data, content):
    (data / INDEX).unlink() if content is None else (data / INDEX).write_bytes(content)
    shutil.rmtree(data / "calls")
    assert lost(data) == []
