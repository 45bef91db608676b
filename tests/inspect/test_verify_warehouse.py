"""What a comparison with a warehouse finds beyond the laws of ``tests/load/test_laws.py``."""

from pathlib import Path

import pytest

from tests.loads import compared, first_export
from tests.warehouses import Place, load_into


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return first_export(tmp_path / "data")


def test_verify_finds_times_that_python_does_not_have(data: Path, warehouse: Place) -> None:
    load_into(warehouse, data)
    warehouse.edit("UPDATE {s}.executions SET started_at = '-infinity' WHERE execution_id = 'e1'")

    assert [each.text for each in compared(warehouse, data).findings] == [
        "executions: 1 row with different values in started_at"
    ]
