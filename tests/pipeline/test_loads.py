"""Loads at the end of runs: whose copy of the dataset may be loaded, and what status waits for."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl.dataset.parts import Dataset
from etl.errors import DestinationError
from etl.files.local import LocalFiles
from etl.inspect.read_status import read_status
from etl.load.synchronize import EXPERIMENTAL, load_warehouse, preview_load
from etl.model import locations
from etl.model.findings import Kind
from etl.pipeline import job, preflight
from etl.pipeline.summary import Summary
from etl.sandbox import Sandbox
from etl.settings import Settings
from tests.support import settings_for
from tests.warehouses import Place, assert_equals_dataset, new_duckdb
from tests.worlds import a_sandbox

NOW = datetime(2026, 11, 1, tzinfo=UTC)
server = a_sandbox(run_tests=2, executions=3, calls=3)


async def night(settings: Settings, number: int) -> Summary:
    return await job.export(settings, clock=lambda: NOW + timedelta(days=number))


async def test_status_waits_for_the_load_of_a_run_at_work(server: Sandbox, tmp_path: Path) -> None:
    place = new_duckdb(tmp_path)
    settings = settings_for(server, tmp_path / "data", warehouse=place.settings)
    await job.export(settings)
    await job.export(settings_for(server, tmp_path / "data"))
    files, now = LocalFiles(tmp_path / "data"), datetime.now(UTC)

    def is_told() -> bool:
        found = read_status(files, now=now, settings=settings).findings
        return Kind.NOT_LOADED in {each.kind for each in found}

    with files.lock(now):
        assert not is_told()
    assert is_told()


async def test_each_of_two_warehouses_has_its_own_last_load(server: Sandbox, tmp_path: Path) -> None:
    """Else status is red for one of them each night, and after a damaged row of ``runs`` both look like copies."""
    files = LocalFiles(tmp_path / "data")
    places = [Place(f"duckdb://{tmp_path}/{name}.duckdb") for name in ("one", "two")]
    one, two = (settings_for(server, tmp_path / "data", warehouse=place.settings) for place in places)

    def load_second_and_look() -> list[bool]:
        load_warehouse(two.warehouse, Dataset(files), NOW)
        found = [read_status(files, now=datetime.now(UTC), settings=each) for each in (one, two)]
        return [Kind.NOT_LOADED in {each.kind for each in status.findings} for status in found]

    await night(one, 0)
    assert load_second_and_look() == [False, False]
    [row] = (tmp_path / "data" / "runs").rglob("*.parquet")
    row.write_bytes(b"damaged")
    summary = await night(one, 1)
    assert summary.load_failure is None
    assert load_second_and_look() == [False, False]
    for place in places:
        assert_equals_dataset(place, tmp_path / "data")
        place.close()


async def test_warehouse_never_tried_on_the_real_service_is_called_experimental_by_check_and_the_first_load(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if no test had a real DuckDB."""
    place = new_duckdb(tmp_path)
    settings = settings_for(server, tmp_path / "data", warehouse=place.settings)
    assert not settings.warehouse.is_experimental
    monkeypatch.setattr(locations, "EXPERIMENTAL", {"duckdb"})
    [check] = preflight._check_warehouse(settings)
    assert "0 executions; support for this warehouse is experimental" in check.detail
    loads = [(await night(settings, number)).load for number in range(2)]

    assert [load and load.notices for load in loads] == [[EXPERIMENTAL], []]


async def test_older_copy_of_the_dataset_replaces_nothing_that_was_loaded_since(
    server: Sandbox, tmp_path: Path
) -> None:
    """An old server whose cron was forgotten, though it has loaded more runs than the copy; until a full load."""
    place = new_duckdb(tmp_path)
    old, new = (settings_for(server, tmp_path / name, warehouse=place.settings) for name in ("old", "new"))
    await night(old, 0)
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    server.world.run_tests[0].executions[0].is_deleted = True
    place.edit("INSERT INTO {s}.runs SELECT * REPLACE ('an analyst' AS export_run_id) FROM {s}.runs")
    place.close()
    assert (await night(new, 1)).exit_code == 0
    for number in (2, 3):
        assert (await night(old, number)).exit_code == 6
        status = read_status(LocalFiles(tmp_path / "old"), now=NOW + timedelta(days=number), settings=old)
        assert status.verdict.next_step == "metrics-etl load --full"
    with pytest.raises(DestinationError, match="another copy of this dataset"):
        preview_load(old.warehouse, Dataset(LocalFiles(tmp_path / "old")))
    assert_equals_dataset(place, tmp_path / "new")
    place.close()

    load_warehouse(old.warehouse, Dataset(LocalFiles(tmp_path / "old")), NOW, is_full=True)
    assert_equals_dataset(place, tmp_path / "old")
    place.close()
    assert [(await night(settings, 5)).exit_code for settings in (new, old)] == [6, 0]
