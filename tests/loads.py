"""A dataset that changes between two loads, and what a load of it is to do in any warehouse."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etl.inspect.verify_warehouse import verify_rows
from etl.load.identity import identify
from etl.load.warehouse.load import Result, load
from etl.load.warehouse.target import open_warehouse
from etl.model import schema
from etl.transform.frames import frame_of
from tests.bundles import a_bundle, an_unlisted_bundle
from tests.datasets import a_dataset, export_to
from tests.warehouses import contents_of

NOW = datetime(2026, 11, 1, 2, tzinfo=UTC)
NAMESPACE = "simulation_metrics"


def first_export(root: Path) -> Path:
    """Two run tests with executions in three months, one of them with a dead letter, and the row of the run."""
    dataset = a_dataset(root)
    identify(dataset.files, NOW)
    export_to(
        dataset,
        a_bundle("e1", ["c1", "c2"], key="checkout", date="2026-08-01"),
        a_bundle("e2", ["c3"], key="checkout", date="2026-08-02"),
        a_bundle("e3", ["c4", "c5"], key="checkout", date="2026-09-03", given_up=["c5"]),
        a_bundle("e4", ["c6"], key="refund", date="2026-08-04"),
        a_bundle("e7", ["c9"], key="refund", date="2026-10-05"),
        an_unlisted_bundle("e5"),
    )
    _record(dataset, "run-1", 1)
    return root


def next_export(root: Path) -> None:
    """One execution has other values and a call less, one lost all of its calls, one is new, one is finished."""
    dataset = a_dataset(root)
    export_to(
        dataset,
        a_bundle("e1", ["c1"], key="checkout", date="2026-08-01", seconds=2.5, version=2),
        a_bundle("e2", [], key="checkout", date="2026-08-02", version=2),
        a_bundle("e3", ["c4", "c5"], key="checkout", date="2026-09-03", version=2),
        a_bundle("e6", ["c7", "c8"], key="refund", date="2026-08-06"),
        run="run-2",
        fetched_at=NOW.replace(day=2),
    )
    _record(dataset, "run-2", 2)


def _record(dataset: Any, run: str, day: int) -> None:
    row = {"export_run_id": run, "started_at": NOW.replace(day=day), "exit_code": 0}
    dataset.record_run(NOW.replace(day=day).date(), run, frame_of(schema.RUNS_TABLE, [row]))


def load_once(url: str, data: Path, **options: Any) -> Result:
    """One load of the dataset, as the command does it."""
    with closing(open_warehouse(url, NAMESPACE)) as warehouse:
        return load(contents_of(data), warehouse, **options)


def differences(url: str, data: Path) -> list[str]:
    """What ``verify --warehouse`` finds."""
    with closing(open_warehouse(url, NAMESPACE)) as warehouse:
        return [f"{each.place}: {each.text}" for each in verify_rows(contents_of(data), warehouse).findings]
