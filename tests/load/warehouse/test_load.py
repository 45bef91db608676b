"""A load goes on where the little memory that it takes by default is not enough."""

from datetime import UTC, datetime

import pytest

from etl.errors import DestinationError
from etl.load.warehouse import duckdb
from etl.load.warehouse import load as module
from etl.load.warehouse.load import load_warehouse
from etl.load.warehouse.target import NotEnoughMemoryError
from etl.model import schema
from etl.settings.sections import Warehouse
from tests.datasets import a_dataset
from tests.loads import first_export
from tests.warehouses import Place, assert_equals_dataset, rows_of_dataset

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than the smallest load takes, as a long text takes more than is allowed: DuckDB holds 2,048 rows at once."""
    monkeypatch.setattr(duckdb, "_MEMORY", "4MB")


def test_load_is_done_again_without_a_limit_where_memory_ran_out(tmp_path, little_memory):
    dataset = a_dataset(first_export(tmp_path / "data"))
    place = Place(f"duckdb://{tmp_path}/metrics.duckdb")
    settings = Warehouse(url=place.url)
    first = load_warehouse(settings, dataset, NOW)
    full = load_warehouse(settings, dataset, NOW, is_full=True)
    assert first.rows == full.rows
    assert first.rows["calls"] == len(rows_of_dataset(tmp_path / "data", schema.CALLS)), "of the try that counts"
    assert_equals_dataset(place, tmp_path / "data")


def test_memory_that_runs_out_again_ends_the_load(tmp_path, monkeypatch):
    tries = []

    def fails(*_: object, **__: object) -> None:
        tries.append(1)
        raise NotEnoughMemoryError("no memory")

    monkeypatch.setattr(module, "load", fails)
    data = first_export(tmp_path / "data")
    with pytest.raises(DestinationError, match="no memory"):
        load_warehouse(Warehouse(url=f"duckdb://{tmp_path}/metrics.duckdb"), a_dataset(data), NOW)
    assert len(tries) == 2
