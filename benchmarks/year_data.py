"""Make a year of the load server's world, as the exporter's own commits lay it out, without any request.

``python -m benchmarks.year_data FOLDER RUN_TESTS DAYS`` makes ``FOLDER/dataset``, and ``FOLDER/compact``: one file a
table with the same rows. What is there already is kept.
"""

import shutil
import sys
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from benchmarks.bench_world import FIRST_DAY, World, a_year
from etl.dataset.commit import commit
from etl.dataset.index import update_index, write_index
from etl.dataset.parts import Dataset, identify
from etl.dataset.places import Places
from etl.dataset.state import read_state
from etl.files.open import open_files
from etl.model.keys import default_key
from etl.model.lifecycle import Settlement
from etl.model.records import CallMetrics, Execution, ExecutionBundle, FetchedCall, ListedCall
from etl.transform.detail import shown_in
from etl.transform.flatten import flatten
from etl.transform.frames import ExportStamp
from etl.transform.voice import joined

STORED_AGO = timedelta(days=60)
"""So long that all that the sweep knows is what later nights noted."""


def make_dataset(folder: Path, world: World) -> None:
    """Commit everything, a month of a run test at a time, and index it."""
    files = open_files(str(folder))
    now = datetime.now(UTC) - STORED_AGO
    files.prepare()
    identify(files, now)
    dataset = Dataset(files)
    state = read_state(dataset, set_aside=False)
    places = Places(dataset, state, now=now)
    for run_test, name in enumerate(world.names):
        for _, numbers in groupby(world.numbers(run_test), key=lambda number: _month(world, number)):
            commit(
                dataset,
                [flatten(_bundle(world, name, number)) for number in numbers],
                state.executions,
                places.parts_of,
                ExportStamp("benchmark", now),
                Settlement(fetched_at=now, now=now, settle=timedelta(hours=24)),
            )
    write_index(files, update_index(dataset, state.index, []))


def make_compact(dataset: Path, folder: Path) -> None:
    """Write one file for each table, with the columns of the path."""
    folder.mkdir()
    for table in ("executions", "calls", "evals"):
        rows = ds.dataset(dataset / table, partitioning="hive").to_table()
        pq.write_table(rows, folder / f"{table}.parquet", compression="zstd")


def _month(world: World, number: int) -> str:
    started_at = FIRST_DAY + timedelta(days=number % world.executions // world.per_day)
    return f"{started_at:%Y-%m}"


def _bundle(world: World, name: str, number: int) -> ExecutionBundle:
    """What a crawl of the load server would hand over."""
    payload = world.execution(number)
    execution_id = payload["execution_id"]
    calls = []
    for each in range(world.calls):
        listed, metrics = world.listed_call(number, each), world.call(number, each)
        call_id = listed["call_execution_id"]
        detail, voice = (
            ListedCall(call_execution_id=call_id, payload=world.whole_call(number, each, is_detail=is_detail))
            for is_detail in (True, False)
        )
        calls.append(
            FetchedCall(
                listed=ListedCall(call_execution_id=call_id, payload=listed),
                metrics=CallMetrics(
                    call_execution_id=call_id, execution_id=execution_id, status="completed", payload=metrics
                ),
                shown=shown_in(joined(detail, voice)),
            )
        )
    return ExecutionBundle(
        run_test_name=name,
        run_test_key=default_key(name),
        execution=Execution(execution_id=execution_id, status="completed", payload=payload),
        listed=tuple(call.listed for call in calls),
        calls=tuple(calls),
    )


def main(folder: Path, run_tests: int, days: int) -> None:
    """Make what is missing; a half-made one has another name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dataset", "compact"):
        if not (folder / name).exists():
            half = folder / f"half-{name}"
            shutil.rmtree(half, ignore_errors=True)
            if name == "dataset":
                make_dataset(half, a_year(run_tests, days))
            else:
                make_compact(folder / "dataset", half)
            half.rename(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
