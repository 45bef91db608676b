"""Datasets made of bundles or rows, and what their files hold."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from etl.dataset import places
from etl.dataset.commit import commit
from etl.dataset.layout import Part
from etl.dataset.parts import Dataset, Written, identify
from etl.dataset.places import Places
from etl.dataset.receipt import Receipt
from etl.dataset.state import read_state
from etl.files.local import LocalFiles
from etl.model import schema
from etl.model.digest import row_hashes
from etl.model.lifecycle import Settlement
from etl.transform.frames import ExportStamp, table_of
from tests.bundles import DAY, KEY, flattened, plan_of
from tests.support import paths_in

FETCHED_AT = datetime(2026, 11, 1, 2, tzinfo=UTC)
OF_CALLS = ("calls", "evals")
NOT_HASHED = {"raw", "metrics_from", "deleted_at", "export_run_id", "exported_at"}
HASHED_AS = ("latency_customer_", "latency_customer_latency_metrics_")
Rows = dict[tuple[str, ...], dict[str, Any]]


def place(date=DAY):
    """Where executions of that day's month lie."""
    return f"month={date[:7]}/part-0"


def hash_of(table, row):
    """The hash of what the source says in a row of this table, which is given by column."""
    own = {name: value for name, value in row.items() if name not in NOT_HASHED}
    return (
        row_hashes({name.replace(*HASHED_AS): [value] for name, value in own.items()})[0] if table in OF_CALLS else None
    )


def part(table, key=KEY, date=DAY):
    return f"{table}/run_test={key}/{place(date)}.parquet"


def first_parts_of_the_months(bundles):
    """Each execution in the first part of the month in which it began, whatever else there is."""
    return [Part(each.run_test_key, f"month={each.started_at:%Y-%m}/part-0") for each in bundles]


def fill_parts_early(patch, *, rows):
    """From now on a part is full with so few rows, so that a run test has several in each month."""
    patch.setattr(places, "FULL_ROWS", rows)


def a_dataset(root, *, compression="zstd"):
    """The dataset in the folder, which is made ready if it is not."""
    files = LocalFiles(root)
    files.prepare()
    identify(files, FETCHED_AT)
    return Dataset(files, compression=compression)


def write(root, table, *rows, key=KEY, date=DAY):
    """Make these the rows of one partition."""
    declared = schema.TABLES[table]
    a_dataset(root).write(declared, Part(key, place(date)), table_of(declared, rows) if rows else declared.no_rows)


def stored_in(dataset, *, set_aside=False):
    """The stored executions, by id."""
    return read_state(dataset, set_aside=set_aside).executions


def export_to(dataset, *bundles, run="run-1", fetched_at=FETCHED_AT, parts_of=first_parts_of_the_months):
    """Commit the bundles as a run does that has loaded the stored state; returns what it wrote and what arrived."""
    stored = stored_in(dataset, set_aside=True)
    dataset.written, dataset.receipt = Written(), Receipt()  # as a run begins with
    arrived = commit(
        dataset,
        flattened(bundles),
        stored,
        parts_of,
        ExportStamp(run, fetched_at),
        Settlement(fetched_at=fetched_at, now=fetched_at, settle=timedelta(hours=24)),
    )
    return dataset.written, arrived


def export_by_places(dataset, *bundles, now, exported_at=FETCHED_AT):
    """Commit the bundles where a run would put them."""
    state = read_state(dataset, set_aside=False)
    commit(
        dataset,
        flattened(bundles),
        state.executions,
        Places(dataset, state, now=now).parts_of,
        ExportStamp("run-1", exported_at),
        Settlement(fetched_at=FETCHED_AT, now=FETCHED_AT, settle=timedelta(hours=24)),
    )


def reasons(dataset, *bundles, key=KEY):
    """Why the next run would fetch the bundles' executions, or would not."""
    planned = plan_of([bundle.execution for bundle in bundles], stored_in(dataset), key=key)
    return {item.execution.execution_id: item.reason for item in planned}


def rows(root, table, *columns):
    """All rows of the table, sorted by key.

    By default without the columns that tell one version of a row from another; else only with these columns.
    """
    declared = schema.TABLES[table]
    names = columns or [name for name in declared.names if name not in ("export_run_id", "exported_at", "verified_at")]
    found = [
        tuple(row[name] for name in (*declared.key, *names))
        for path in sorted((root / table).rglob("*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]
    return [row[len(declared.key) :] for row in sorted(found, key=lambda row: row[: len(declared.key)])]


def contents(root):
    """All rows of the tables that describe the source."""
    return {table: rows(root, table) for table in ("executions", "calls", "evals", "errors")}


def published(monkeypatch, failing=None):
    """Paths in the order in which they are published from now on; the first of the table ``failing`` fails."""
    paths = []
    publish = LocalFiles.publish

    def record(files, path, data):
        paths.append(path)
        if failing and path.startswith(f"{failing}/"):
            path = f"{path}/below-a-file" if path in paths_in(files, failing) else f"{'x' * 256}/{path}"
        publish(files, path, data)

    monkeypatch.setattr(LocalFiles, "publish", record)
    return paths


def assert_sound(data: Path) -> dict[str, Rows]:
    """Assert that every file is whole and has the declared schema, and that no key stands twice.

    Returns the rows by table and key.
    """
    return {table.name: _sound_rows(data, table) for table in schema.TABLES.values()}


def _sound_rows(data: Path, table: schema.Table) -> Rows:
    found: Rows = {}
    for path in sorted(each for each in (data / table.name).rglob("*") if not each.is_dir()):
        assert path.suffix == ".parquet", path
        file = pq.ParquetFile(path, page_checksum_verification=True)
        assert file.schema_arrow.equals(table.arrow_schema, check_metadata=True), path
        for row in file.read().to_pylist():
            key = tuple(row[name] for name in table.key)
            assert key not in found, f"{table.name}: {key} stands twice"
            found[key] = row
    return found


def assert_kept(before: dict[str, Rows], now: dict[str, Rows], *, changed: Collection[str]) -> None:
    """Nothing of what an earlier run had is missing, and what did not change at the source is as it was.

    ``changed`` are the executions that did. Their calls keep their ids, but may have other evals.
    """
    for table in ("executions", "calls", "evals", "runs"):
        for key, row in before[table].items():
            if row.get("execution_id") not in changed:
                assert now[table].get(key) == row, f"{table}: {key} is not what it was"
            elif table != "evals":
                assert key in now[table], f"{table}: {key} is lost"


def staged(data: Path) -> list[Path]:
    """What lies in staging."""
    return list((data / "_state" / "staging").iterdir())
