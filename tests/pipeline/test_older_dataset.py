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
from aiohttp import web

from etl.errors import DestinationError
from etl.inspect.verify import verify
from etl.load.layout import Scope
from etl.load.merge import with_column
from etl.model import schema
from etl.model.digest import rows_digest
from etl.pipeline import job
from etl.pipeline.summary import Summary
from etl.settings import Settings
from etl.transform.frames import hash_rows
from tests.support import API_KEY, SECRET_KEY

KEPT = Path(__file__).parents[1] / "samples" / "dataset-0.1"
TABLES = ("executions", "calls", "evals")
LACKING = {
    "executions": ["verified_at", "latency_percentiles_p99"],
    "calls": ["latency_response_time_ms", "scenario_name", "raw"],
    "evals": ["reason"],
}
"""Columns that an older version than this one might not have had."""


class Replay:
    """The API of that night: answers what it answered then, and counts."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = json.loads((KEPT / "answers.json").read_text())
        self.requests: list[str] = []
        self.base_url = ""

    async def answer(self, request: web.Request) -> web.Response:
        target = f"{request.path}?" + "&".join(f"{name}={value}" for name, value in sorted(request.query.items()))
        self.requests.append(target)
        if target not in self.answers:
            raise web.HTTPInternalServerError(text=target)
        return web.json_response(self.answers[target])


@pytest.fixture
async def api() -> AsyncIterator[Replay]:
    replay = Replay()
    app = web.Application()
    app.router.add_get("/{path:.*}", replay.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    replay.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield replay
    await runner.cleanup()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(KEPT / "data", tmp_path / "data")
    return tmp_path


def settings_of(api: Replay, folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "run_tests": [{"name": "Checkout flow", "key": "checkout"}],
            "api": {"base_url": api.base_url, "max_tries": 1},
            "destination": {"path": str(folder / "data")},
            "api_key": API_KEY,
            "secret_key": SECRET_KEY,
        }
    )


async def export(api: Replay, folder: Path, **options: Any) -> Summary:
    api.requests.clear()
    return await job.export(settings_of(api, folder), **options)


def reasons(summary: Summary) -> dict[str, int]:
    found: dict[str, int] = summary.as_json()["run_tests"][0]["reasons"]
    return found


def only_part(folder: Path, table: str) -> Path:
    (path,) = (folder / "data" / table).rglob("*.parquet")
    return path


def read_only_part(folder: Path, table: str) -> pa.Table:
    return pq.ParquetFile(only_part(folder, table)).read()


def files_of_tables(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and bytes of every file of a table but runs."""
    return {
        str(path): (path.stat().st_ino, path.read_bytes())
        for table in TABLES
        for path in (folder / "data" / table).rglob("*.parquet")
    }


def make_older(folder: Path) -> None:
    """The files as a version would have written them that did not know some columns yet."""
    kept = {table: read_only_part(folder, table) for table in TABLES}
    hashes: dict[str, list[str]] = {}
    for name in ("calls", "evals"):
        table = schema.TABLES[name]
        for column in LACKING[name]:
            kept[name] = with_column(kept[name], column, [None] * len(kept[name]))
        row_hashes = hash_rows(table, _declared(table, kept[name]))
        kept[name] = with_column(kept[name], "row_hash", row_hashes)
        for execution_id, row_hash in zip(kept[name]["execution_id"].to_pylist(), row_hashes, strict=True):
            hashes.setdefault(execution_id, []).append(row_hash)
    digests = [rows_digest(hashes[execution_id]) for execution_id in kept["executions"]["execution_id"].to_pylist()]
    kept["executions"] = with_column(kept["executions"], "calls_digest", digests)
    for name, columns in LACKING.items():
        pq.write_table(kept[name].drop_columns(columns), only_part(folder, name))


def _declared(table: schema.Table, rows: pa.Table) -> pa.Table:
    """The rows with the columns of today."""
    missing = {
        name: pa.nulls(len(rows), table.arrow_schema.field(name).type) for name in {*table.names} - {*rows.column_names}
    }
    for name, column in missing.items():
        rows = rows.append_column(name, column)
    return rows.select(table.names)


async def test_dataset_of_version_0_1_goes_on_without_fetching_anything_again(api: Replay, folder: Path) -> None:
    before = files_of_tables(folder)

    result = await export(api, folder)

    assert (result.exit_code, reasons(result), len(api.requests)) == (0, {"final": 2}, 1)
    assert files_of_tables(folder) != before, "its columns are those of today"
    after = files_of_tables(folder)
    assert ((await export(api, folder)).exit_code, files_of_tables(folder) == after) == (0, True)
    assert verify(settings_of(api, folder), Scope()).findings == []


async def test_first_run_marks_calls_and_evals_of_executions_that_an_older_version_marked(
    api: Replay, folder: Path
) -> None:
    """And unmarks them, since the API lists the execution again."""
    executions = read_only_part(folder, "executions")
    marked = with_column(executions, "deleted_at", [executions["exported_at"][0].as_py(), None])
    pq.write_table(marked, only_part(folder, "executions"))

    result = await export(api, folder)

    assert result.notices[0] == "3 calls and 9 evals got a deleted_at: the source no longer has them"
    for table in TABLES:
        assert read_only_part(folder, table)["deleted_at"].null_count == len(read_only_part(folder, table))
    assert verify(settings_of(api, folder), Scope()).findings == []


async def test_columns_that_an_older_version_lacked_are_there_after_one_night_and_null(
    api: Replay, folder: Path
) -> None:
    """And filled again by a full refresh."""
    wanted = {table: read_only_part(folder, table) for table in TABLES}
    make_older(folder)
    before = {table: read_only_part(folder, table) for table in TABLES}

    result = await export(api, folder)
    completed = files_of_tables(folder)
    again = await export(api, folder)

    assert (result.exit_code, again.exit_code) == (0, 0)
    assert reasons(result) == {"final": 2}, "nothing is fetched again for it"
    (completion,) = result.notices
    assert completion.startswith("3 files of an older version got the columns of this one")
    for table, older in before.items():
        now = read_only_part(folder, table)
        assert now.schema.equals(schema.TABLES[table].arrow_schema, check_metadata=True), table
        names = [name for name in older.column_names if name != "unlisted_calls"]
        assert now.select(names).equals(older.select(names)), table
        assert all(now[column].null_count == len(now) for column in LACKING[table]), table
    assert verify(settings_of(api, folder), Scope()).findings == []
    assert files_of_tables(folder) == completed, "the second night finds nothing to complete"
    assert again.notices == []

    await export(api, folder, full_refresh=True)
    versions = ["export_run_id", "exported_at", "verified_at", "export_state", "unlisted_calls"]
    for table, kept in wanted.items():
        names = [name for name in kept.column_names if name not in versions]
        assert read_only_part(folder, table).select(names).equals(kept.select(names)), table


@pytest.mark.parametrize("table", TABLES)
async def test_dataset_of_a_newer_version_is_refused_and_left_alone(table: str, api: Replay, folder: Path) -> None:
    newer = read_only_part(folder, table)
    pq.write_table(
        newer.append_column("from_the_future", pa.array(["?"] * len(newer), pa.string())), only_part(folder, table)
    )
    before = files_of_tables(folder)

    with pytest.raises(DestinationError) as refused:
        await export(api, folder)

    assert str(refused.value) == (
        f"{only_part(folder, table)}: unknown columns ['from_the_future']: written by a newer version; upgrade the exporter"
    )
    assert files_of_tables(folder) == before
    assert api.requests == []


def damage(path: Path, column_name: str) -> None:
    """Overwrite what the file holds of one column."""
    whole = path.read_bytes()
    metadata = pq.ParquetFile(path).metadata
    column = metadata.row_group(0).column(metadata.schema.names.index(column_name))
    begin = column.dictionary_page_offset or column.data_page_offset
    end = begin + column.total_compressed_size
    path.write_bytes(whole[:begin] + bytes(end - begin) + whole[end:])


async def test_older_file_that_is_damaged_where_a_night_does_not_look_stays_and_stops_nothing(
    api: Replay, folder: Path
) -> None:
    make_older(folder)
    damage(only_part(folder, "calls"), "cost_total_cost_cents")
    before = only_part(folder, "calls").read_bytes()

    result = await export(api, folder)

    assert (result.exit_code, reasons(result)) == (0, {"final": 2})
    assert only_part(folder, "calls").read_bytes() == before
    assert read_only_part(folder, "evals").schema.names == list(schema.EVALS.names)
    assert verify(settings_of(api, folder), Scope()).exit_code == 3


async def test_older_file_that_is_damaged_is_set_aside_and_not_made_an_empty_one(api: Replay, folder: Path) -> None:
    make_older(folder)
    damage(only_part(folder, "calls"), "execution_id")

    result = await export(api, folder)

    assert (result.exit_code, reasons(result)) == (3, {"damaged": 2})
    assert len(read_only_part(folder, "calls")) == 6
