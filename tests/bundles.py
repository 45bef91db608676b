"""Bundles as a crawl hands them over, made of plain payloads or of the recorded answers."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from etl.extract.parse import parse_json
from etl.extract.plan import Planned, Policy, Reason, Route, plan_run_test
from etl.model.digest import fingerprint
from etl.model.lifecycle import ExecutionList, HeldRows, ListedExecution, StoredExecution
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
from etl.settings import RunTest
from etl.transform import frames
from etl.transform.flatten import FlatBundle, flatten
from etl.transform.frames import ExportStamp, Frame

SAMPLES = Path(__file__).parent / "samples"
KEY = "checkout"
DAY = "2026-08-01"
STARTED_AT = "2026-03-01T09:00:01.123456Z"
EXPORT = ExportStamp(export_run_id="run-1", exported_at=datetime(2026, 3, 3, 2, tzinfo=UTC))


def execution(execution_id: str = "execution", status: str = "completed", **payload: Any) -> Execution:
    """An execution whose payload has an id, a status, a start, and the given fields."""
    fields = {"execution_id": execution_id, "status": status, "started_at": STARTED_AT} | payload
    return Execution(execution_id=execution_id, status=status, payload=fields)


def as_listed(execution: Execution) -> ListedExecution:
    """The execution as a listing keeps it, payload and all."""
    return ListedExecution.of(execution).with_payload(execution.payload)


def stored_of(execution: Execution, **changes: Any) -> StoredExecution:
    """What the dataset says of the execution when it was exported with two calls, but for the ``changes``."""
    stored = StoredExecution(
        run_test_key=KEY,
        run_test_name=KEY.title(),
        place="month=2026-03/part-0",
        export_state="exported",
        fingerprint=fingerprint(execution.payload),
        calls_digest="digest",
        exported_calls=2,
        held=HeldRows(listed_calls=2, exported_calls=2, calls_digest="digest"),
        verified_at=EXPORT.exported_at,
    )
    return replace(stored, **changes)


def plan_of(
    executions: Iterable[Execution],
    stored: Mapping[str, StoredExecution],
    *,
    since: date | None = None,
    heads: Mapping[str, DeadLetter] = MappingProxyType({}),
    key: str = KEY,
    **policy: Any,
) -> list[Planned]:
    """The plan of a run test that lists the executions."""
    listed = {each.execution_id: as_listed(each) for each in executions}
    return plan_run_test(
        RunTest(name=key.title(), key=key, since=since),
        ExecutionList(executions=listed, is_complete=True, heads=heads, unreadable=()),
        stored,
        home=key,
        policy=Policy(**policy),
    )


def fetched_call(
    call_execution_id: str = "call",
    metrics: Mapping[str, Any] | None = None,
    listed: Mapping[str, Any] | None = None,
    execution_id: str = "execution",
    status: str = "completed",
    shown: Mapping[str, Any] = MappingProxyType({}),
) -> FetchedCall:
    """A call whose two payloads have its identity and the given fields."""
    identity = {"call_execution_id": call_execution_id, "status": status}
    return FetchedCall(
        listed=ListedCall(call_execution_id=call_execution_id, payload={**identity, **(listed or {})}),
        metrics=CallMetrics(
            call_execution_id=call_execution_id,
            execution_id=execution_id,
            status=status,
            payload={**identity, "execution_id": execution_id, **(metrics or {})},
        ),
        shown=dict(shown),
    )


def bundle_of(
    *calls: FetchedCall | ListedCall,
    of: Execution | None = None,
    dead_letters: tuple[DeadLetter, ...] = (),
    key: str = KEY,
) -> ExecutionBundle:
    """A bundle of an execution and all of its calls; those that are only listed have no metrics."""
    return ExecutionBundle(
        run_test_name=key.title(),
        run_test_key=key,
        execution=of or execution(),
        listed=tuple(call.listed if isinstance(call, FetchedCall) else call for call in calls),
        calls=tuple(call for call in calls if isinstance(call, FetchedCall)),
        dead_letters=dead_letters,
    )


def not_listed(of: Execution, dead_letters: tuple[DeadLetter, ...] = ()) -> ExecutionBundle:
    """A bundle of an execution whose calls were not asked for, or could not be listed."""
    return ExecutionBundle(run_test_name=KEY.title(), run_test_key=KEY, execution=of, dead_letters=dead_letters)


def a_bundle(
    execution_id: str = "e1",
    calls: Iterable[str] = ("c1", "c2"),
    *,
    seconds: float = 1.0,
    key: str = KEY,
    date: str = DAY,
    given_up: Collection[str] = (),
    is_proved: bool = True,
    version: int = 1,
) -> ExecutionBundle:
    """A finished execution whose listed calls last ``seconds``; the metrics of those ``given_up`` could not be had."""
    fetched = [_lasting(seconds, call_id, execution_id) for call_id in calls]
    letters = [dead_letter(call_id) for call_id in given_up]
    return bundle_of(
        *(call.listed if call.listed.call_execution_id in given_up else call for call in fetched),
        of=_of_the_day(execution_id, date=date, version=version),
        dead_letters=(*letters, *(() if is_proved else (dead_letter(execution_id, endpoint=RUNS),))),
        key=key,
    )


def an_unlisted_bundle(
    execution_id: str = "e1", *, status: str = "completed", is_given_up: bool = False
) -> ExecutionBundle:
    """An execution whose calls were not asked for, or could not be listed."""
    letters = (dead_letter(execution_id, endpoint=RUNS),) if is_given_up else ()
    return not_listed(_of_the_day(execution_id, status=status), letters)


def _of_the_day(execution_id: str, *, date: str = DAY, status: str = "completed", version: int = 1) -> Execution:
    started_at, completed_at = f"{date}T08:00:00Z", f"{date}T09:00:00.5Z"
    return execution(execution_id, status, started_at=started_at, completed_at=completed_at, total_calls=version)


def _lasting(seconds: float, call_id: str, execution_id: str) -> FetchedCall:
    output = {"name": "Tone", "output_type": "score", "output": seconds, "reason": "calm"}
    return fetched_call(
        call_id,
        {"duration_seconds": seconds, "cost": {"total_cost_cents": 2**53 + 1}},
        {"scenario_name": "Refund", "eval_outputs": {"tone": output}},
        execution_id,
    )


def dead_letter(subject_id: str = "call", message: str = "no answer", *, endpoint: str = METRICS) -> DeadLetter:
    """A call whose metrics could not be had, or another request that was given up."""
    return DeadLetter(endpoint=endpoint, subject_id=subject_id, status=500, message=message, excerpt="<html>", tries=6)


def recorded_cases(selector: str, prefix: str = "") -> list[str]:
    """Names of the recorded answers of status 200 that were asked for with the query parameter."""
    return [
        path.stem
        for path in sorted(SAMPLES.glob(f"{prefix}*.json"))
        if (recording := json.loads(path.read_text("utf-8")))["status"] == 200
        and selector in dict(parse_qsl(urlsplit(recording["request"]["target"]).query))
    ]


def recorded(case: str) -> Any:
    """The result of a recorded answer, as it is read from its body."""
    return parse_json((SAMPLES / f"{case}.json").read_bytes())["body"]["result"]


def through_parquet(rows: pa.Table) -> pa.Table:
    """The rows, written as Parquet and read back."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return pq.ParquetFile(pa.BufferReader(sink.getvalue())).read()


def flattened(bundles: Iterable[ExecutionBundle], export: ExportStamp = EXPORT) -> list[FlatBundle]:
    """The bundles as a commit takes them."""
    return [flatten(bundle, include_raw=export.include_raw) for bundle in bundles]


def _of_bundles(make: Callable[..., Frame]) -> Callable[..., Frame]:
    """The frame of bundles as a crawl hands them over. Other arguments are those of ``make``, the export last."""

    def frame(bundles: Iterable[ExecutionBundle], *given: Any) -> Frame:
        return make(flattened(bundles, given[-1]), *given)

    return frame


calls_frame = _of_bundles(frames.calls_frame)
evals_frame = _of_bundles(frames.evals_frame)
errors_frame = _of_bundles(frames.errors_frame)
executions_frame = _of_bundles(frames.executions_frame)


def frame_of_executions(*executions: Execution, export: ExportStamp = EXPORT) -> Frame:
    """The frame of executions that were exported with one of two calls."""
    ids = [each.execution_id for each in executions]
    held = HeldRows(listed_calls=2, exported_calls=1, calls_digest="digest")
    states, verified_at = dict.fromkeys(ids, "exported"), dict.fromkeys(ids, EXPORT.exported_at)
    bundles = [bundle_of(of=each) for each in executions]
    return executions_frame(bundles, dict.fromkeys(ids, held), states, verified_at, export)


def planned(execution_id: str) -> Planned:
    """An execution that was never exported."""
    return Planned(
        run_test_name="A",
        run_test_key="a",
        execution=as_listed(Execution(execution_id=execution_id, status="completed", payload={})),
        reason=Reason.NEW,
        route=Route.BARE,
        stored=None,
        estimated_calls=0,
    )
