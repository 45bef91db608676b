"""What is particular to DuckDB: what may lie in the place of its file, and names that it reads as something else."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.errors import DestinationError
from etl.load.warehouse.duckdb import connect, connect_to_read
from tests.loads import NAMESPACE


@pytest.mark.parametrize("name", ["calls.parquet", "calls.csv", "calls.duckdb", "empty.csv", "empty.duckdb"])
def test_file_that_is_no_duckdb_database_is_refused(tmp_path: Path, name: str) -> None:
    """DuckDB opens some kinds of files as views in a database in memory, where everything that is loaded is gone afterwards."""
    file = tmp_path / name
    if file.stem == "empty":
        file.touch()
    elif file.suffix == ".parquet":
        pq.write_table(pa.table({"a": [1]}), file)
    else:
        file.write_text("a,b\n1,2\n" * 9)
    before = file.read_bytes()
    for opened in (connect, connect_to_read):
        words = "no DuckDB database, but (another file: leave|an empty file: remove) it, or name another one"
        with pytest.raises(DestinationError, match=f"{name}: {words}"):
            opened(f"duckdb://{file}", NAMESPACE)
    assert file.read_bytes() == before


def test_duckdb_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="File name too long"):
        connect(f"duckdb://{tmp_path}/{'x' * 300}.duckdb", NAMESPACE)


@pytest.mark.parametrize("name", ["simulation_metrics", "Simulation_Metrics", "temp"])
def test_schema_that_has_the_name_of_a_duckdb_database_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DestinationError, match=r"name another \[warehouse\] schema or file$"):
        connect(f"duckdb://{tmp_path}/{name}.duckdb", name.lower())
