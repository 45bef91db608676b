"""docs/format.md is right: a reader that knows only this page finds nothing wrong with a dataset, and each damage."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from etl.dataset.parts import _LAYOUT, _LAYOUT_FORGETFUL
from etl.model import schema
from etl.sandbox import Sandbox
from etl.sandbox.world import rerun_execution
from etl.transform.row_hash import NOT_HASHED
from tests.independent_reader import findings
from tests.pipeline.nights import Nights
from tests.worlds import executions_of, world_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/format.md").read_text(encoding="utf-8")
Rows = list[dict[str, Any]]


def edited(table: str, edit: Callable[[Rows], Any]) -> Callable[[Path], None]:
    """Damage that changes the rows of a file of the table, and leaves it a Parquet file of the same schema."""

    def damage(data: Path) -> None:
        path = max((data / table).rglob("*.parquet"), key=lambda each: each.stat().st_size)
        stored = pq.ParquetFile(path).read()
        rows = stored.to_pylist()
        edit(rows)
        pq.write_table(pa.Table.from_pylist(rows, stored.schema), path)

    return damage


UNLIKE_ITS_DIGEST = (
    edited("calls", lambda rows: rows[0].update(duration_seconds=1e-5)),
    edited("calls", lambda rows: next(row for row in rows if row["deleted_at"]).update(deleted_at=None)),
    edited("calls", lambda rows: rows.pop()),
    edited("evals", lambda rows: rows[0].update(reason="another")),
    edited("executions", lambda rows: rows[0].update(exported_calls=99)),
)
DAMAGES = {
    **dict.fromkeys(UNLIKE_ITS_DIGEST, "its calls or evals are not those"),
    edited("executions", lambda rows: rows[0].update(status="another")): "not what a run wrote there",
    edited("executions", lambda rows: rows.extend(rows)): "2 rows of",
}


async def test_reader_that_knows_only_the_page_finds_nothing_wrong_with_a_dataset_and_each_damage(
    tmp_path: Path,
) -> None:
    async with Sandbox(world_of(run_tests=2, executions=4, calls=4, quirks=True)) as server:
        nights = Nights(server, tmp_path)
        rerun, *others = executions_of(server.world)
        await nights.export(export={"include_raw": True})
        rerun_execution(rerun, nights.now)
        for execution in others[::2]:
            execution.is_deleted = True
        await nights.export()

    assert list(findings(tmp_path / "data")) == []
    for nth, (damage, expected) in enumerate(DAMAGES.items()):
        copy = shutil.copytree(tmp_path / "data", tmp_path / f"{nth}")
        damage(copy)
        assert any(expected in line for line in findings(copy)), (nth, expected)


def test_reader_finds_nothing_wrong_with_a_dataset_of_the_oldest_version() -> None:
    assert list(findings(ROOT / "tests/samples/dataset-1.0.0rc1/data")) == []


def test_page_names_what_the_code_does_and_its_reader_knows_nothing_of_the_code() -> None:
    left_out = PAGE.partition("Left out are")[2].partition(". ")[0]
    assert set(re.findall("`([a-z_]+)`", left_out)) == NOT_HASHED
    assert f"`_state/dataset.json` (now {_LAYOUT}; {_LAYOUT_FORGETFUL} if something was forgotten" in PAGE
    types = PAGE.partition("- **Types** are ")[2].partition(", declared")[0].replace("`", "")
    used = {column.type_name for table in schema.TABLES.values() for column in table.columns}
    assert set(re.split(r", (?=[a-z])| and ", types)) == used
    reader = (ROOT / "tests/independent_reader.py").read_text(encoding="utf-8")
    assert {"etl", "tests"}.isdisjoint(re.findall(r"^ *(?:from|import) (\w+)", reader, re.MULTILINE))
