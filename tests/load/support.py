"""Bundles as a crawl would emit them, made by hand, the dataset's rows as plain values, and folders that are closed."""

import os
from contextlib import contextmanager
from datetime import UTC, datetime

import pyarrow.parquet as pq

from etl.load.commit import commit
from etl.load.dataset import Dataset, Written
from etl.load.files.local import LocalFiles
from etl.load.state import load_state
from etl.model import schema
from etl.model.records import (
    METRICS,
    RUNS,
    CallMetrics,
    DeadLetter,
    Execution,
    ExecutionBundle,
    FetchedCall,
    ListedCall,
)
from etl.transform.frames import ExportStamp
from tests.bundles import flattened, plan_of

KEY, DAY = "checkout", "2026-10-01"
NOBODY = 65534
FETCHED_AT = datetime(2026, 11, 1, 2, tzinfo=UTC)


def part(table, key=KEY, date=DAY):
    return f"{table}/run_test={key}/date={date}/part-0.parquet"


def a_bundle(
    execution_id="e1", calls=("c1", "c2"), *, seconds=1.0, key=KEY, date=DAY, given_up=(), is_proved=True, version=1
):
    """A finished execution whose listed calls last ``seconds``; the metrics of those ``given_up`` could not be had."""
    return ExecutionBundle(
        run_test_name=key.title(),
        run_test_key=key,
        execution=execution(execution_id, date=date, version=version),
        date=date,
        listed=tuple(listed_call(call_id, seconds) for call_id in calls),
        calls=tuple(
            FetchedCall(
                listed=listed_call(call_id, seconds),
                metrics=CallMetrics(
                    call_execution_id=call_id,
                    execution_id=execution_id,
                    status="completed",
                    payload={
                        "call_execution_id": call_id,
                        "execution_id": execution_id,
                        "status": "completed",
                        "duration_seconds": seconds,
                        "cost": {"total_cost_cents": 2**53 + 1},
                    },
                ),
            )
            for call_id in calls
            if call_id not in given_up
        ),
        dead_letters=tuple(
            dead_letter(endpoint, subject)
            for endpoint, subject in [
                *((METRICS, call_id) for call_id in given_up),
                *([] if is_proved else [(RUNS, execution_id)]),
            ]
        ),
    )


def an_unlisted_bundle(execution_id="e1", *, status="completed", is_given_up=False, version=1):
    """An execution whose calls were not asked for, or could not be listed."""
    return ExecutionBundle(
        run_test_name=KEY.title(),
        run_test_key=KEY,
        execution=execution(execution_id, status=status, version=version),
        date=DAY,
        dead_letters=(dead_letter(RUNS, execution_id),) if is_given_up else (),
    )


def execution(execution_id, *, date=DAY, status="completed", version=1):
    payload = {
        "execution_id": execution_id,
        "status": status,
        "started_at": f"{date}T08:00:00Z",
        "completed_at": f"{date}T09:00:00.5Z",
        "total_calls": version,
    }
    return Execution(execution_id=execution_id, status=status, payload=payload)


def listed_call(call_id, seconds):
    output = {"name": "Tone", "output_type": "score", "output": seconds, "reason": "calm"}
    payload = {"call_execution_id": call_id, "scenario_name": "Refund", "eval_outputs": {"tone": output}}
    return ListedCall(call_execution_id=call_id, payload=payload)


def dead_letter(endpoint, subject):
    return DeadLetter(endpoint=endpoint, subject_id=subject, status=500, message="broken", excerpt="<html>", tries=6)


def a_dataset(root):
    files = LocalFiles(root)
    files.prepare()
    return Dataset(files)


def stored_in(dataset, key=KEY, *, set_aside=False):
    """The stored executions of one run test, by id."""
    return load_state(dataset, [key], set_aside=set_aside).executions[key]


def export_to(dataset, *bundles, run="run-1", fetched_at=FETCHED_AT):
    """Commit the bundles as a run does that has loaded the stored state; returns what it wrote and what arrived."""
    keys = sorted({bundle.run_test_key for bundle in bundles})
    stored = {
        execution_id: known
        for executions in load_state(dataset, keys, set_aside=True).executions.values()
        for execution_id, known in executions.items()
    }
    dataset.written = Written()  # as a run begins with
    arrived = commit(
        dataset, flattened(bundles), stored, ExportStamp(run, fetched_at), fetched_at=fetched_at, settle_hours=24
    )
    return dataset.written, arrived


def reasons(dataset, *bundles, key=KEY):
    """Why the next run would fetch the bundles' executions, or would not."""
    planned = plan_of([bundle.execution for bundle in bundles], stored_in(dataset, key), key=key, now=FETCHED_AT)
    return {item.execution.execution_id: item.reason for item in planned}


def rows(root, table, *columns):
    """All rows of the table sorted by key, without what tells one version of a row from another, or these columns only."""
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


def wrong_schemas(root):
    """Files of a table that have anything but exactly the declared schema, metadata included."""
    return [
        str(path)
        for table in schema.TABLES.values()
        for path in (root / table.name).rglob("*.parquet")
        if not pq.read_schema(path).equals(table.arrow_schema, check_metadata=True)
    ]


def published(monkeypatch, failing=None):
    """Paths in the order in which they are published from now on; the first of the table ``failing`` fails."""
    paths = []
    publish = LocalFiles.publish

    def record(files, path, data):
        paths.append(path)
        if failing and path.startswith(f"{failing}/"):
            path = f"{path}/below-a-file" if files.has(path) else f"{'x' * 256}/{path}"
        publish(files, path, data)

    monkeypatch.setattr(LocalFiles, "publish", record)
    return paths


@contextmanager
def closed(folder):
    """The folder may not be entered, not even by tests that were started by root."""
    is_root, mode = os.geteuid() == 0, folder.stat().st_mode
    folder.chmod(0)
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(mode)


def empty(data):
    del data
    return b""


def truncated(data):
    return data[: len(data) // 2]


def garbage(data):
    return b"PAR1" + bytes(len(data)) + b"PAR1"


def text(data):
    del data
    return b"call_execution_id,status\n"


def with_a_column_name_that_is_not_text(data):
    return data.replace(b"execution_id", b"e\xff\xff\xff\xfftion_id")


DAMAGES = [empty, truncated, garbage, text, with_a_column_name_that_is_not_text]
