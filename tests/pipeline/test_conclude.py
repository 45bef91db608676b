"""What an export leaves at its end: what counts as complete, a file for each table, and the index."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from etl.files import local
from etl.files.local import LocalFiles
from etl.files.names import INDEX
from etl.model import schema
from etl.pipeline import job
from etl.sandbox import Fault, Sandbox
from tests.support import settings_for
from tests.worlds import settled_world


async def test_run_that_ends_before_it_has_a_plan_calls_nothing_complete(tmp_path: Path) -> None:
    """The list was read whole; then the key is refused while it asks for an execution that the list lacks."""
    world = settled_world(run_tests=1, executions=3, calls=2)
    async with Sandbox(world) as server:
        await job.export(settings_for(server, tmp_path / "data"))
        gone = world.run_tests[0].executions[0]
        gone.is_deleted = True
        server.fault = lambda request, _nth: (
            Fault(status=401) if request.query.get("execution_id") == gone.execution_id else None
        )
        refused = await job.export(settings_for(server, tmp_path / "data"))

    assert (refused.exit_code, refused.run_tests[0].is_complete) == (4, False)


async def test_each_table_has_a_file_though_the_source_has_nothing_but_not_under_a_name_that_it_does_not_have(
    tmp_path: Path,
) -> None:
    async with Sandbox(settled_world(run_tests=1, executions=0, calls=0)) as server:
        settings = settings_for(server, tmp_path / "data", run_tests="all")
        mistyped = await job.export(settings_for(server, tmp_path / "data", run_tests=["Chekout"]))
        first, second = [await job.export(settings) for _ in range(2)]

    assert (mistyped.exit_code, mistyped.files) == (3, 0)
    assert (first.exit_code, first.files, second.exit_code, second.files) == (0, 4, 0, 0)
    for table in schema.OF_EXECUTIONS:
        [path] = (tmp_path / "data" / table.name).rglob("*.parquet")
        assert pq.read_schema(path).equals(table.arrow_schema)


async def test_a_night_in_which_nothing_changed_reads_no_part_and_one_without_its_index_each_part_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the run test that is exported and of the others, whose executions might belong to it now."""
    async with Sandbox(settled_world(run_tests=2, executions=6, calls=2)) as server:
        everything = settings_for(server, tmp_path / "data")
        monkeypatch.setattr(local, "_TICK_NS", 0)  # else a part that was written a moment ago is read again
        await job.export(everything)
        paths = [path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("part-0.parquet")]
        read, reads = LocalFiles.read, list[str]()

        def read_and_note(files: LocalFiles, path: str, **bounds: int) -> bytes:
            reads.append(path)
            return read(files, path, **bounds)

        monkeypatch.setattr(LocalFiles, "read", read_and_note)
        for settings in (everything, everything.only([server.world.run_tests[0].name])):
            for wanted in ([], sorted(paths)):
                reads.clear()
                assert (await job.export(settings)).exit_code == 0
                assert sorted({*reads} & {*paths}) == wanted
                if not wanted:
                    (tmp_path / "data" / INDEX).unlink()
