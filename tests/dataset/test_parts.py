"""The dataset knows what it holds, notices what is lost or damaged, and reads what other versions wrote."""

import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from etl.dataset.commit import mark_deleted
from etl.dataset.layout import Part
from etl.dataset.merge import Replacement
from etl.dataset.parts import Dataset, identify, read_identity
from etl.dataset.state import read_state
from etl.errors import DestinationError
from etl.extract.plan import Reason
from etl.files.local import LocalFiles
from etl.files.names import IDENTITY
from etl.model import schema
from etl.transform.frames import ExportStamp, table_of
from tests.bundles import KEY, a_bundle
from tests.damages import DAMAGES, closed
from tests.datasets import FETCHED_AT, a_dataset, contents, export_to, part, place, reasons

DAMAGED_TABLES = ("calls", "evals", "executions", "errors", "calls")
NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)


def test_a_state_without_a_dataset_is_empty_and_makes_nothing(tmp_path):
    state = read_state(Dataset(LocalFiles(tmp_path / "data")), set_aside=False)
    assert (state.executions, state.unreadable) == ({}, [])
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("table", "damage"), list(zip(DAMAGED_TABLES, DAMAGES, strict=True)))
def test_a_damaged_file_is_left_alone_or_set_aside_and_made_again(dataset, tmp_path, table, damage):
    bundles = [a_bundle("e1", given_up=["c2"]), a_bundle("e2", ["c3"])]
    export_to(dataset, *bundles)
    before = contents(tmp_path)
    path = tmp_path / part(table)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)

    looked_at = read_state(dataset, set_aside=False)
    assert looked_at.unreadable == [part(table)]
    assert path.read_bytes() == damaged

    state = read_state(dataset, set_aside=True)
    assert state.unreadable == [part(table)]
    assert [aside.read_bytes() for aside in (tmp_path / "_state" / "quarantine").iterdir()] == [damaged]
    assert not path.exists()
    assert state.executions == looked_at.executions
    is_whole = table == "errors"
    assert reasons(dataset, *bundles) == {
        "e1": Reason.INCOMPLETE,
        "e2": Reason.FINAL if is_whole else Reason.INCOMPLETE if table == "executions" else Reason.DAMAGED,
    }
    export_to(dataset, *bundles)
    assert contents(tmp_path) == before


def test_damage_of_a_file_that_the_index_knows_ends_one_run_and_the_next_one_repairs_it(dataset, tmp_path):
    bundles = [a_bundle("e1"), a_bundle("e2", ["c3"])]
    export_to(dataset, *bundles)
    before = contents(tmp_path)
    path = tmp_path / part("calls")
    column = pq.ParquetFile(path).metadata.row_group(0).column(schema.CALLS.names.index("duration_seconds"))
    start = column.dictionary_page_offset or column.data_page_offset
    data = path.read_bytes()
    end = start + column.total_compressed_size
    path.write_bytes(data[:start] + b"\xff" * (end - start) + data[end:])

    message = r"cannot be read: .*\. The file was moved to _state/quarantine/.*Run again"
    with pytest.raises(DestinationError, match=message) as e:
        mark_deleted(dataset, {"e1": Part(KEY, place())}, ExportStamp("run-2", FETCHED_AT))
    assert "\n" not in str(e.value)
    assert not path.exists()
    assert reasons(dataset, *bundles) == {"e1": Reason.DAMAGED, "e2": Reason.DAMAGED}
    export_to(dataset, *bundles)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("table", "odd"), [("calls", "notes.parquet"), ("executions", "month=monday/part-0.parquet")])
def test_a_file_that_no_export_wrote_is_refused_by_name_and_left_alone(dataset, tmp_path, table, odd):
    export_to(dataset, a_bundle("e1"))
    path = tmp_path / table / f"run_test={KEY}" / odd
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"theirs")
    with pytest.raises(DestinationError) as caught:
        read_state(dataset, set_aside=True)
    assert str(caught.value) == f"{path} is not a file of this dataset. Move it elsewhere"
    assert path.read_bytes() == b"theirs"


def test_a_partition_that_may_not_be_looked_at_is_not_taken_for_empty(dataset, tmp_path):
    export_to(dataset, a_bundle("e1"))
    arriving = table_of(schema.CALLS, [{"call_execution_id": "c9", "execution_id": "e9"}])
    with closed(tmp_path / "calls"), pytest.raises(DestinationError, match=r"part-0\.parquet: Permission denied"):
        dataset.commit_rows(schema.CALLS, Part(KEY, place()), arriving, Replacement(["e9"]))


def test_new_dataset_is_given_an_id_once(dataset, tmp_path):
    (tmp_path / IDENTITY).unlink()
    assert read_identity(dataset.files) is None
    identify(dataset.files, NOW)
    identity = read_identity(dataset.files)
    assert identity is not None
    assert (identity.layout, identity.created_at) == (2, NOW)
    assert len(identity.dataset_id) == 32
    identify(dataset.files, NOW.replace(day=2))
    assert read_identity(dataset.files) == identity
    other = a_dataset(tmp_path / "other")
    identify(other.files, NOW)
    another = read_identity(other.files)
    assert another is not None
    assert another.dataset_id != identity.dataset_id


@pytest.mark.parametrize("layout", [1, 4])
def test_another_layout_is_refused(dataset, tmp_path, layout):
    text = json.dumps({"dataset_id": "a", "layout": layout, "created_at": "2026-11-01T00:00:00Z", "new": 1})
    (tmp_path / IDENTITY).write_text(text)
    message = f"^{tmp_path / IDENTITY} has layout {layout}, which a newer version wrote. Upgrade metrics-etl$"
    with pytest.raises(DestinationError, match=message):
        identify(dataset.files, NOW)
    assert (tmp_path / IDENTITY).read_text() == text


@pytest.mark.parametrize("text", ["{", "[]", '{"dataset_id": "a", "layout": 2}', "[" * 100_000, " " * (1 << 20) + "{}"])
def test_document_that_cannot_be_read_is_set_aside_for_a_new_id(dataset, tmp_path, text):
    (tmp_path / IDENTITY).write_text(text)
    notes: list[str] = []
    assert read_identity(dataset.files, note=notes.append) is None
    identify(dataset.files, NOW, note=notes.append)
    assert read_identity(dataset.files) is not None
    aside = "_state/quarantine/0001-_state-dataset.json"
    assert (tmp_path / aside).read_text() == text
    assert [note.rpartition("file ")[2] for note in notes] == ["is ignored", f"was moved to {aside}"]
    assert all(note.startswith(str(tmp_path / IDENTITY)) and "\n" not in note for note in notes)
