"""What the end of a Delta table's log tells, as the library itself sees the table."""

from pathlib import Path
from typing import Any

from etl.load.delta_log import LOAD_ID, DeltaLog
from etl.load.tables import ALL_TABLES, STATE


def log_of(lake: Any, name: str) -> DeltaLog:
    return DeltaLog(str(lake.folder / name), {})


def test_end_of_the_log_tells_version_last_load_and_rows(lake: Any) -> None:
    for table in ALL_TABLES:
        opened = lake.table(table.name)
        log = log_of(lake, table.name)
        assert (log.version, log.last_change) == (opened.version(), str(opened.history(1)[0][LOAD_ID]))
    assert (rows := log_of(lake, STATE).rows()) is not None
    assert sorted(rows.to_pylist(), key=str) == sorted(lake.table(STATE).to_pyarrow_table().to_pylist(), key=str)


def test_maintenance_is_no_change_and_another_writer_s_commit_is(lake: Any) -> None:
    loaded = log_of(lake, STATE).last_change
    lake.table(STATE).optimize.z_order(["item"])
    lake.table(STATE).vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert log_of(lake, STATE).last_change == loaded
    assert log_of(lake, STATE).rows() is None, "of what a load wrote, some may be elsewhere now"

    lake.delete(STATE, "kind = 'run'")
    assert log_of(lake, STATE).last_change == str(lake.table(STATE).version())
    assert log_of(lake, STATE).rows() is None


def test_log_without_its_last_commit_is_no_load_s(lake: Any) -> None:
    """As when the library has removed old commits, because a checkpoint has them."""
    lake.table().create_checkpoint()
    log = log_of(lake, "calls")
    loaded = log.last_change
    (lake.folder / "calls" / "_delta_log" / f"{log.version:020}.json").unlink()

    assert log_of(lake, "calls").version == log.version
    assert log_of(lake, "calls").last_change != loaded


def test_no_table_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "empty" / "_delta_log").mkdir(parents=True)
    assert [DeltaLog(str(tmp_path / name), {}).version for name in ("nothing", "empty")] == [-1, -1]
