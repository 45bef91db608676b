"""What the note of the last load says is missing from the warehouse."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from etl.load.last_run import LastLoad, lacks_of_warehouse
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
        (replace(LOAD, warehouse="other"), [RUNS], f"{PLACE} was never loaded; the last load was into other"),
        (replace(LOAD, problem="no"), [RUNS], "the last load failed: no"),
    ],
)
def test_runs_tell_what_is_missing(load, there, missing):
    """By their ids, not their number: as many may be there, and others."""
    assert lacks_of_warehouse(load, PLACE, *there) == missing
