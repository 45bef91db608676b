"""What is particular to DuckDB: what may lie in the place of its file, and names that it reads as something else."""

from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from etl.errors import DestinationError
from etl.load.duckdb import connect, connect_to_read, connect_to_rehearse
from tests.loads import NAMESPACE


def test_duckdb_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="File name too long"):
        connect(f"duckdb://{tmp_path}/{'x' * 300}.duckdb", NAMESPACE)
    for connect_somehow in (connect, connect_to_read, connect_to_rehearse):
        with pytest.raises(DestinationError, match=r"x\.duckdb: this file's folder does not exist\. Create it"):
            connect_somehow(f"duckdb://{tmp_path}/none/x.duckdb", NAMESPACE)


@pytest.mark.parametrize("name", ["calls.csv", "calls.parquet", "calls.json"])
def test_file_that_is_no_duckdb_database_is_refused(tmp_path: Path, name: str) -> None:
    """DuckDB makes views of it in a database in memory, where everything that is loaded is gone afterwards."""
    file = tmp_path / name
    duckdb.sql(f"COPY (SELECT 1 AS a, 2 AS b) TO '{file}'")
    with pytest.raises(DestinationError, match=rf"{name} is not a DuckDB database\. Name another file"):
        connect(f"duckdb://{file}", NAMESPACE)


@pytest.mark.parametrize("name", ["simulation_metrics", "Simulation_Metrics", "temp"])
def test_schema_that_has_the_name_of_a_duckdb_database_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DestinationError, match=r"Change \[warehouse\] schema, or rename the file$"):
        connect(f"duckdb://{tmp_path}/{name}.duckdb", name.lower())


def test_who_only_looks_at_a_duckdb_file_may_do_so_while_others_read(tmp_path: Path) -> None:
    file = tmp_path / "metrics.duckdb"
    url = f"duckdb://{file}"
    connect(url, NAMESPACE).close()
    with duckdb.connect(file, read_only=True), closing(connect_to_read(url, NAMESPACE)) as looking:
        assert looking.loaded().dataset_id is None
