"""A dataset says what it is."""

import json
from datetime import UTC, datetime

import pytest

from etl.errors import DestinationError
from etl.load.identity import identify, read_identity
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not written by the exporter: restore it, or remove it for the next run to make a new one: "),
        ("[]", "not written by the exporter"),
        ('{"dataset_id": "a", "layout": 2}', "not written by the exporter"),
        ("[" * 100_000, "not written by the exporter"),
        *(
            (
                json.dumps({"dataset_id": "a", "layout": layout, "created_at": "2026-11-01T00:00:00Z", "new": 1}),
                f"layout {layout}, written by a newer version: upgrade the exporter",
            )
            for layout in (1, 3)
        ),
        (" " * (1 << 20) + "{}", "bytes, expected at most"),
    ],
    ids=["cut", "a list", "no time", "deep", "layout 1", "layout 3", "large"],
)
def test_what_it_says_is_never_guessed(dataset, tmp_path, text, message):
    (tmp_path / IDENTITY).write_text(text)
    with pytest.raises(DestinationError, match=message) as caught:
        identify(dataset.files, NOW)
    assert str(caught.value).startswith(str(tmp_path / IDENTITY))
    assert "\n" not in str(caught.value)
    assert (tmp_path / IDENTITY).read_text() == text
