"""What a dataset holds for a warehouse; that all of it arrives: ``test_laws.py``."""

import shutil
from pathlib import Path

import pytest

from etl.errors import DestinationError
from tests.loads import next_export
from tests.warehouses import contents_of


def test_dataset_that_lost_its_id_needs_a_run_first(data: Path) -> None:
    (data / "_state" / "dataset.json").unlink()

    with pytest.raises(DestinationError, match=r"to load\. Run metrics-etl run first$"):
        contents_of(data)


def test_digest_changes_with_the_rows_of_its_item_alone_and_a_damaged_execution_has_none(data: Path) -> None:
    before = contents_of(data).digests["execution"]
    next_export(data)
    after = contents_of(data).digests["execution"]
    assert {id_ for id_ in before if before[id_] != after[id_]} == {"e1", "e2", "e3", "e7", "e9"}

    shutil.rmtree(data / "calls" / "run_test=refund")
    contents = contents_of(data)
    assert contents.digests["execution"].keys() == before.keys() - {"e4", "e7"}
    assert contents.damaged == {"e4", "e6", "e7"}
