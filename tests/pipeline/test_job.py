"""One export in this process, with a clock of its own and a destination that fails."""

from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from etl.model.findings import Kind
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox
from tests.support import settings_for
from tests.worlds import settled_world


async def test_a_bug_is_recorded_and_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.dataset.commit.calls_frame", lambda *_: 1 / 0)
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1)) as server:
        with pytest.raises(ZeroDivisionError):
            await job.export(settings_for(server, tmp_path / "data"))

    (row,) = ds.dataset(tmp_path / "data" / "runs").to_table().to_pylist()
    assert (row["outcome"], row["exit_code"]) == ("error", 1)
    assert "Please report it: ZeroDivisionError: division by zero" in row["message"]


async def test_files_of_an_older_version_are_completed_before_the_api_is_asked(tmp_path: Path) -> None:
    """A file that cannot be completed must cost no request."""
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1)) as server:
        settings = settings_for(server, tmp_path / "data")
        await job.export(settings)
        for path in (tmp_path / "data" / "calls").rglob("*.parquet"):
            pq.write_table(pq.ParquetFile(path).read().drop_columns(["raw"]), path)
        server.fault = lambda _request, _nth: Fault(status=401)
        refused = await job.export(settings)

    assert (refused.exit_code, [each.kind for each in refused.findings]) == (4, [Kind.COLUMNS_ADDED])


async def test_text_of_a_plan_does_not_grow_with_what_it_lists(tmp_path: Path) -> None:
    """``asyncio.Runner`` makes one of every result, to cut it: of 100,000 executions it takes 200 MB."""
    async with Sandbox(settled_world(run_tests=1, executions=3, calls=1)) as server:
        plan = await job.plan(settings_for(server, tmp_path / "data"))
        assert len(plan.planned) == 3
        assert "execution_id" not in repr(plan)
