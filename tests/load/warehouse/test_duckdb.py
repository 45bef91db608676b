"""What is particular to DuckDB: what may lie in the place of its file, and names that it reads as something else."""

from pathlib import Path

import pytest

from etl.errors import DestinationError
from etl.load.warehouse.duckdb import connect
from tests.loads import NAMESPACE


def test_duckdb_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="File name too long"):
        connect(f"duckdb://{tmp_path}/{'x' * 300}.duckdb", NAMESPACE)


@pytest.mark.parametrize("name", ["simulation_metrics", "Simulation_Metrics", "temp"])
def test_schema_that_has_the_name_of_a_duckdb_database_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DestinationError, match=r"name another \[warehouse\] schema or file$"):
        connect(f"duckdb://{tmp_path}/{name}.duckdb", name.lower())
