"""The notes of the last loads: which are kept, and what one says is missing from the warehouse."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from etl.dataset.last_run import LastLoad, lacks_of_warehouse, last_load_into, read_last_run, update_last_run
from etl.files.local import LocalFiles
from etl.model.digest import rows_digest

PLACE, RUNS = "duckdb://metrics.duckdb", ["1", "2"]
LOAD = LastLoad(warehouse=PLACE, tried_at=datetime(2026, 11, 1, tzinfo=UTC), runs_digest=rows_digest(RUNS))


@pytest.mark.parametrize(
    ("load", "there", "missing"),
    [
        (LOAD, [RUNS], None),
        (LOAD, [[*RUNS, "3"], RUNS], None),
        (LOAD, [["2", "3"]], "the last run was not loaded into the warehouse"),
        (None, [RUNS], "the warehouse was never loaded"),
        (replace(LOAD, problem="no"), [RUNS], "the last load failed: no"),
    ],
)
def test_runs_tell_what_is_missing(load, there, missing):
    """By their ids, not their number: as many may be there, and others."""
    assert lacks_of_warehouse(load, *there) == missing


def test_last_load_is_kept_for_each_warehouse_and_for_all_settings_files(tmp_path: Path) -> None:
    files, other = LocalFiles(tmp_path), replace(LOAD, warehouse="other", problem="no")
    files.prepare()
    for note in ({"scope": "a"}, {"loads": {PLACE: LOAD}}, {"loads": {"other": other}}, {"scope": "b"}, {"scope": "a"}):
        update_last_run(files, note)
        assert all(not each.loads for each in read_last_run(files, note=pytest.fail).others.values())

    loads = [last_load_into(files, place, LOAD.tried_at) for place in (PLACE, "other", "third")]
    assert loads == [LOAD, other, LastLoad(warehouse="third", tried_at=LOAD.tried_at)]


def test_record_stays_whole_although_a_finding_in_it_is_of_a_kind_that_is_gone(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.prepare()
    finding = {"kind": "lists_alone", "severity": "notice", "subject": "", "text": "a text", "next_step": "nothing"}
    update_last_run(files, {"scope": "a", "findings": [finding]})
    record = read_last_run(files, note=pytest.fail)
    assert (record.scope, [each.as_json() for each in record.findings]) == ("a", [finding])
