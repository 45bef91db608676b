"""A dataset says what it is; one that does not is known by its folders."""

import json
from datetime import UTC, datetime

import pytest

from etl.errors import DestinationError
from etl.load.identity import identify, is_by_day, read_identity
from etl.load.layout import IDENTITY, Layout
from tests.bundles import a_bundle
from tests.datasets import a_dataset, export_to

NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)


def test_new_dataset_is_given_an_id_once(dataset, tmp_path):
    assert read_identity(dataset.files) is None
    assert identify(dataset.files, NOW) is Layout.BY_MONTH
    identity = read_identity(dataset.files)
    assert identity is not None
    assert (identity.layout, identity.created_at) == (Layout.BY_MONTH, NOW)
    assert len(identity.dataset_id) == 32
    assert identify(dataset.files, NOW.replace(day=2)) is Layout.BY_MONTH
    assert read_identity(dataset.files) == identity
    other = a_dataset(tmp_path / "other")
    identify(other.files, NOW)
    another = read_identity(other.files)
    assert another is not None
    assert another.dataset_id != identity.dataset_id


@pytest.mark.parametrize("path", ["runs/date=2026-03-01/x.parquet", "errors/run_test=a/date=2026-03-01/part-0.parquet"])
def test_days_without_a_word_are_the_layout_before_and_stay_so(dataset, path):
    dataset.files.publish(path, b"")
    assert is_by_day(dataset.files)
    assert identify(dataset.files, NOW) is Layout.BY_DAY
    assert read_identity(dataset.files) is None


def test_months_without_a_word_have_lost_it_and_get_a_new_one(dataset):
    export_to(dataset, a_bundle())
    assert identify(dataset.files, NOW) is Layout.BY_MONTH
    assert read_identity(dataset.files) is not None


def test_days_that_are_left_in_a_dataset_of_months_change_nothing(dataset):
    identify(dataset.files, NOW)
    dataset.files.publish("runs/date=2026-03-01/x.parquet", b"")
    assert identify(dataset.files, NOW) is Layout.BY_MONTH


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not written by the exporter: restore it, or remove it for the next run to make a new one: "),
        ("[]", "not written by the exporter"),
        ('{"dataset_id": "a", "layout": 2}', "not written by the exporter"),
        ("[" * 100_000, "not written by the exporter"),
        (
            json.dumps({"dataset_id": "a", "layout": 3, "created_at": "2026-11-01T00:00:00Z", "new": 1}),
            "layout 3, written by a newer version: upgrade the exporter",
        ),
        (" " * (1 << 20) + "{}", "bytes, expected at most"),
    ],
    ids=["cut", "a list", "no time", "deep", "newer", "large"],
)
def test_what_it_says_is_never_guessed(dataset, tmp_path, text, message):
    (tmp_path / IDENTITY).write_text(text)
    with pytest.raises(DestinationError, match=message) as caught:
        identify(dataset.files, NOW)
    assert str(caught.value).startswith(str(tmp_path / IDENTITY))
    assert "\n" not in str(caught.value)
    assert (tmp_path / IDENTITY).read_text() == text
