"""A dataset of 1.0.0rc1 that is kept here, with the API's list of that night.

Whatever the exporter becomes, these files stay as they are; a run of today must go on with them.
"""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.dataset.layout import Scope
from etl.inspect.verify import verify
from etl.model import schema
from etl.model.records import DETAIL
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox, SandboxRequest
from etl.sandbox.dispatch import HTML_404
from etl.settings import Settings
from tests.support import settings_for
from tests.worlds import settled_world

KEPT = Path(__file__).parents[1] / "samples" / "dataset-1.0.0rc1"
TABLES = ("executions", "calls", "evals")


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    """For a copy of the dataset, and an API that answers as it did that night, and nothing else."""
    answers: dict[str, Any] = json.loads((KEPT / "answers.json").read_text())

    def answer(request: SandboxRequest, _nth: int) -> Fault:
        target = f"{request.path}?" + "&".join(f"{name}={value}" for name, value in sorted(request.query.items()))
        if request.path.startswith(DETAIL):  # which the API did not have
            return Fault(status=404, body=HTML_404)
        return Fault(status=200, body=json.dumps(answers[target]).encode())

    shutil.copytree(KEPT / "data", tmp_path / "data")
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1), fault=answer) as server:
        run_tests = [{"name": "Checkout flow", "key": "checkout"}]
        yield settings_for(server, tmp_path / "data", run_tests=run_tests, export={"sweep_days": 0})


def part(folder: Path, table: str) -> Path:
    (path,) = (folder / "data" / table).rglob("*.parquet")
    return path


def rows(folder: Path, table: str) -> pa.Table:
    return pq.ParquetFile(part(folder, table)).read()


async def test_dataset_of_version_1_0_0rc1_goes_on_without_fetching_anything_again(
    settings: Settings, tmp_path: Path
) -> None:
    """Its files get the columns of today, and say in all others what they said."""
    before = {table: rows(tmp_path, table) for table in TABLES}

    first = await job.export(settings)
    files = {table: part(tmp_path, table).stat().st_ino for table in TABLES}
    second = await job.export(settings)

    assert (first.exit_code, first.run_tests[0].reasons, first.requests) == (0, {"final": 2}, 1)
    for table, older in before.items():
        now = rows(tmp_path, table)
        assert now.schema.equals(schema.TABLES[table].arrow_schema, check_metadata=True), table
        assert now.select(older.column_names).equals(older), table
    assert (second.exit_code, second.notices) == (0, [])
    assert {table: part(tmp_path, table).stat().st_ino for table in TABLES} == files
    assert verify(settings, Scope()).findings == []
