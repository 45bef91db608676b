"""A dataset that changes between two loads, and what a load of it is to do in any warehouse."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec.structs import replace

from etl.dataset.commit import mark_deleted
from etl.dataset.layout import Part
from etl.dataset.parts import identify
from etl.inspect.verify_warehouse import WarehouseReport, verify_rows
from etl.load.drivers import spooled
from etl.load.open import open_warehouse
from etl.load.statements import Dialect, Statements
from etl.load.synchronize import made_up_load
from etl.load.tables import ALL_TABLES, VIEWS
from etl.model import schema
from etl.pipeline.forget import forget
from etl.transform.frames import ExportStamp, table_of
from tests.bundles import a_bundle, an_unlisted_bundle, bundle_of, fetched_call
from tests.datasets import a_dataset, export_to
from tests.warehouses import assert_equals_dataset, contents_of, load_into

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
        a_bundle("e9", ["c10"], key="refund", date="2026-10-06"),
        an_unlisted_bundle("e5"),
    )
    _record(dataset, "run-1", 1)
    return root


def next_export(root: Path) -> None:
    """Change the dataset in every way in which a next export can.

    Other values, a call and an eval less, no call left, a call more, a new execution, a deleted and a forgotten one.
    """
    dataset = a_dataset(root)
    at = NOW.replace(day=2)
    whole = a_bundle("e3", ["c4", "c5"], key="checkout", date="2026-09-03", version=2)
    without_eval = bundle_of(fetched_call("c4", execution_id="e3"), whole.calls[1], of=whole.execution, key="checkout")
    export_to(
        dataset,
        replace(
            a_bundle("e1", ["c1"], key="checkout", date="2026-08-01", seconds=2.5, version=2), deleted=frozenset({"c2"})
        ),
        replace(a_bundle("e2", [], key="checkout", date="2026-08-02", version=2), deleted=frozenset({"c3"})),
        without_eval,
        a_bundle("e6", ["c7", "c8"], key="refund", date="2026-08-06"),
        run="run-2",
        fetched_at=at,
    )
    mark_deleted(dataset, {"e7": Part("refund", "month=2026-10/part-0")}, ExportStamp("run-2", at))
    _record(dataset, "run-2", 2)
    forget(a_dataset(root), executions=["e9"], is_agreed=True)


def _record(dataset: Any, run: str, day: int) -> None:
    row = {"export_run_id": run, "started_at": NOW.replace(day=day), "exit_code": 0}
    dataset.record_run(NOW.replace(day=day).date(), run, table_of(schema.RUNS_TABLE, [row]))


def compared(target: Any, data: Path) -> WarehouseReport:
    """What ``verify --warehouse`` finds."""
    with closing(target.open()) as warehouse:
        return verify_rows(contents_of(data), warehouse)


def rehearsed(target: Any) -> bool:
    """What ``check`` has the warehouse do; False where that could not be undone."""
    with closing(open_warehouse(target.url, target.namespace, "rehearse")) as warehouse:
        dataset_id = warehouse.loaded().dataset_id
        return warehouse.rehearse(made_up_load(dataset_id or "a new one"))


def assert_settled(target: Any, data: Path) -> None:
    """All is equal, and there is nothing left to do."""
    assert_equals_dataset(target, data)
    assert compared(target, data).findings == []
    assert not load_into(target, data).is_changed


def made_by(dialect: Dialect) -> list[str]:
    """The statements that make the tables, and then the views."""
    sql = Statements(dialect, NAMESPACE)
    return [*map(sql.create, ALL_TABLES), *(next(sql.create_view(view, ())) for view in VIEWS)]


@contextmanager
def spooled_with_one_more(pieces: Iterable[pa.Table]) -> Iterator[Any]:
    """As ``spooled``, but the file claims one row more than it has."""
    with spooled(pieces) as file:
        yield dataclasses.replace(file, rows=file.rows + 1)
