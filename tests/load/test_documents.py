"""A dataset says what it is."""

import json
from datetime import UTC, datetime

import pytest

from etl.errors import DestinationError
from etl.load.dataset import identify, read_identity
from etl.load.layout import IDENTITY
from tests.bundles import a_bundle
from tests.datasets import a_dataset, export_to

NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)


def test_new_dataset_is_given_an_id_once(dataset, tmp_path):
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


def test_dataset_that_lost_its_id_is_given_another_one(dataset):
    export_to(dataset, a_bundle())
    identify(dataset.files, NOW)
    assert read_identity(dataset.files) is not None


@pytest.mark.parametrize("layout", [1, 3])
def test_another_layout_is_refused(dataset, tmp_path, layout):
    text = json.dumps({"dataset_id": "a", "layout": layout, "created_at": "2026-11-01T00:00:00Z", "new": 1})
    (tmp_path / IDENTITY).write_text(text)
    message = f"^{tmp_path / IDENTITY}: layout {layout}, written by a newer version: upgrade the exporter$"
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
    assert [note.rpartition("; ")[2] for note in notes] == ["ignored", f"moved to {aside}"]
    assert all(note.startswith(str(tmp_path / IDENTITY)) and "\n" not in note for note in notes)
