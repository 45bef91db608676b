"""Move a dataset from folders of days to folders of months, without a request; killed at any moment, it goes on where it was.

The days of a month are taken together until they fill a part. That is written first, executions last, as in a commit; then the
files of the days go. Until then a reader sees these rows twice, and none is ever missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import pyarrow as pa

from etl.errors import DestinationError
from etl.load.dataset import Dataset
from etl.load.identity import read_identity, write_identity
from etl.load.index import list_parts
from etl.load.layout import Layout, Part, days_of, parse_part_path, parse_run_path, part_path, place_of, run_path
from etl.load.merge import Replacement, is_of, once
from etl.load.parquet import UnreadableError
from etl.load.places import FULL_BYTES, FULL_ROWS, sizes_of
from etl.model import schema
from etl.model.lifecycle import LONG_AGO


@dataclass(frozen=True, slots=True)
class Migrated:
    """Some files of days, and the files of months that took their place; ``run_test_key`` is empty for those of export runs."""

    run_test_key: str
    folder: str
    files_before: int
    files_after: int


def migrate(dataset: Dataset, now: datetime) -> Iterator[Migrated]:
    """Lay out the dataset by month, one run test and month after the other. Only for the holder of the lock.

    Raises:
        DestinationError: something cannot be read or written; nothing is lost, and migrating again goes on.
    """
    for (key, folder), days in groupby(sorted(_days(dataset)), key=lambda day: (day.run_test_key, _month(day.folder))):
        yield _migrate_month(dataset, key, folder, list(days))
    runs = [run for path in dataset.files.list(schema.RUNS_TABLE.name) if (run := parse_run_path(path))]
    days_of_runs = [run for run in runs if run[0].startswith("date=")]
    for folder, in_month in groupby(days_of_runs, key=lambda run: _month(run[0])):
        yield _migrate_runs(dataset, folder, list(in_month))
    if read_identity(dataset.files) is None:
        write_identity(dataset.files, now)


def _days(dataset: Dataset) -> set[Part]:
    return {part for part in list_parts(dataset.files) if part.folder.startswith("date=")}


def _month(folder: str) -> str:
    return Layout.BY_MONTH.folder(days_of(folder)[0])


def _migrate_month(dataset: Dataset, key: str, folder: str, days: Sequence[Part]) -> Migrated:
    before = after = 0
    begun = _begun(dataset, key, folder)
    number = max(begun.values(), default=-1)
    for batch in _batches(dataset, days):
        number += 1
        after += _write(dataset, Part(key, place_of(folder, number)), batch, begun)
        for day in batch:
            # Execution rows go last here, too: by them, what is left is found after a crash.
            for table in schema.OF_EXECUTIONS:
                before += dataset.files.has(part_path(table.name, day))
                dataset.remove(table, day)
    return Migrated(key, folder, before, after)


def _batches(dataset: Dataset, days: Sequence[Part]) -> Iterator[list[Part]]:
    """The days in groups, each of which fills a part."""
    batch: list[Part] = []
    rows = size_bytes = 0
    for day in days:
        try:
            sizes = sizes_of(dataset, day)
        except UnreadableError as error:
            raise DestinationError(f"{error}: let metrics-etl run fetch what it held, then migrate again") from error
        batch.append(day)
        rows += max((each.rows for each in sizes), default=0)
        size_bytes += max((each.size_bytes for each in sizes), default=0)
        if rows >= FULL_ROWS or size_bytes >= FULL_BYTES:
            yield batch
            batch, rows, size_bytes = [], 0, 0
    if batch:
        yield batch


def _write(dataset: Dataset, part: Part, days: Sequence[Part], begun: Mapping[str, int]) -> int:
    """Put the rows of the days into the part, or into the one where rows of their execution lie; returns how many files are new."""
    rows = {table.name: _newest_first([dataset.rows(table, day) for day in days]) for table in schema.OF_EXECUTIONS}
    ids = {each for of_table in rows.values() for each in of_table["execution_id"].to_pylist()}
    targets: dict[int, set[str]] = {}
    for each in ids:
        targets.setdefault(begun.get(each, part.number), set()).add(each)
    new = 0
    exported_at = _exported_at(rows[schema.EXECUTIONS.name])
    for number, mine in sorted(targets.items()):
        target = Part(part.run_test_key, place_of(part.folder, number))
        # Days that were copied over a newer dataset are older than what is there.
        there = _exported_at(dataset.rows(schema.EXECUTIONS, target))
        mine -= {each for each in mine & there.keys() if there[each] > exported_at.get(each, LONG_AGO)}
        for table in schema.OF_EXECUTIONS:
            of_table = rows[table.name]
            arriving = once(table, of_table.filter(is_of(of_table, mine)))
            if len(arriving):
                new += not dataset.files.has(part_path(table.name, target))
                dataset.commit_rows(table, target, arriving, Replacement(mine))
    return new


def _exported_at(executions: pa.Table) -> dict[str, datetime]:
    return {
        row["execution_id"]: row["exported_at"] or LONG_AGO
        for row in executions.select(["execution_id", "exported_at"]).to_pylist()
    }


def _newest_first(rows: Sequence[pa.Table]) -> pa.Table:
    """The rows of some days; of two that are the same, one was left by a run that was killed: the older one."""
    return pa.concat_tables(rows).sort_by([("export_run_id", "descending")])


def _migrate_runs(dataset: Dataset, folder: str, runs: Sequence[tuple[str, str]]) -> Migrated:
    for day, export_run_id in runs:
        dataset.files.publish(run_path(folder, export_run_id), dataset.files.read(run_path(day, export_run_id)))
        dataset.files.remove(run_path(day, export_run_id))
    return Migrated("", folder, len(runs), len(runs))


def _begun(dataset: Dataset, key: str, folder: str) -> dict[str, int]:
    """The number of the part in which rows of an execution lie already: a migration was killed."""
    begun: dict[str, int] = {}
    for table in schema.OF_EXECUTIONS:
        for path in dataset.files.list(f"{table.name}/run_test={key}/{folder}"):
            if parsed := parse_part_path(path):
                ids = dataset.read(table, path, ("execution_id",))["execution_id"].to_pylist()
                begun |= dict.fromkeys(ids, parsed[1].number)
    return begun
