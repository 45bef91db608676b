"""A dataset of 0.1 that is kept here, with the API's answers of that night.

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
from etl.model.arrow import with_column
from etl.model.records import DETAIL
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox, SandboxRequest
from etl.sandbox.dispatch import HTML_404
from etl.settings import Settings
from tests.support import settings_for
from tests.worlds import settled_world

KEPT = Path(__file__).parents[1] / "samples" / "dataset-0.1"
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
        yield settings_for(server, tmp_path / "data", run_tests=[{"name": "Checkout flow", "key": "checkout"}])


def part(folder: Path, table: str) -> Path:
    (path,) = (folder / "data" / table).rglob("*.parquet")
    return path


def rows(folder: Path, table: str) -> pa.Table:
    return pq.ParquetFile(part(folder, table)).read()


async def test_dataset_of_version_0_1_goes_on_without_fetching_anything_again(
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
        names = [name for name in older.column_names if name not in ("unlisted_calls", "row_hash")]
        assert now.select(names).equals(older.select(names)), table
    assert (second.exit_code, second.notices) == (0, [])
    assert {table: part(tmp_path, table).stat().st_ino for table in TABLES} == files
    assert verify(settings, Scope()).findings == []


async def test_first_run_marks_calls_and_evals_of_executions_that_an_older_version_marked(
    settings: Settings, tmp_path: Path
) -> None:
    """And unmarks them, since the API lists the execution again."""
    executions = rows(tmp_path, "executions")
    marked = with_column(executions, "deleted_at", [executions["exported_at"][0].as_py(), None])
    pq.write_table(marked, part(tmp_path, "executions"))

    result = await job.export(settings)

    assert result.notices[0] == "3 calls and 9 evals marked as deleted: the source no longer has them"
    for table in TABLES:
        assert rows(tmp_path, table)["deleted_at"].null_count == len(rows(tmp_path, table))
    assert verify(settings, Scope()).findings == []
