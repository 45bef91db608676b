"""What the rows say of each run test, and what is missing of those that are configured. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.inspect.status_files import StoredFile
from etl.load.last_run import LastRun
from etl.model.findings import Finding, Kind
from etl.model.lifecycle import LONG_AGO, ExportState
from etl.model.wording import counted

_DELETED = "deleted"
_NOT_FETCHED = {_DELETED, ExportState.WAITING.value}
"""What failed of these is of no account: they are fetched once they have finished, or never."""


@dataclass(frozen=True, slots=True)
class RunTestStatus:
    """The rows of one name, wherever they lie, and of no rows a run test that is configured. ``deleted`` ones have no other state.

    ``key``: the configured one, or where the row that changed last lies. ``calls``: as its executions count them.
    ``newest_started_at``: when its newest execution was created. ``exported_at``: the last time that a row of its executions
    changed. ``complete_at``: the last time that everything in it was exported; None when it never was, or when it is not
    configured. ``is_complete``: the last run over it left nothing out.
    """

    name: str
    key: str
    executions: int
    exported: int
    settling: int
    waiting: int
    incomplete: int
    deleted: int
    calls: int
    newest_started_at: datetime | None
    exported_at: datetime | None
    complete_at: datetime | None
    is_configured: bool
    is_complete: bool


def execution_rows(found: Iterable[StoredFile]) -> pa.Table:
    """The rows of these files of executions: ``execution_id``, ``name``, ``key``, ``state``, ``calls`` and two times."""
    tables = []
    for file in found:
        if (rows := file.columns) is not None and file.part:
            is_deleted = pc.is_valid(rows["deleted_at"])
            columns = {
                "execution_id": rows["execution_id"],
                "name": pc.fill_null(rows["run_test_name"], ""),
                "key": pa.repeat(pa.scalar(file.part.run_test_key), len(rows)),
                "state": pc.if_else(is_deleted, _DELETED, pc.fill_null(rows["export_state"], "")),
                "calls": rows["exported_calls"],
                "started_at": rows["started_at"],
                "exported_at": rows["exported_at"],
            }
            tables.append(pa.table(columns))
    empty = [("execution_id", pa.string()), ("name", pa.string()), ("key", pa.string()), ("state", pa.string())]
    empty += [("calls", pa.int64()), *((name, pa.timestamp("us", "UTC")) for name in ("started_at", "exported_at"))]
    return pa.concat_tables([pa.schema(empty).empty_table(), *tables])


def names_by_key(rows: pa.Table) -> dict[str, str]:
    """The name of the row that changed last under each key."""
    return {key: name for (_, key, name) in sorted(_places(rows))}


def run_tests_of(rows: pa.Table, configured: Mapping[str, str], last_run: LastRun) -> Iterator[RunTestStatus]:
    """The run tests that are ``configured``, keys by name, and those of which there are rows beside them."""
    counts = rows.group_by(["name", "state"]).aggregate(
        [("execution_id", "count"), ("calls", "sum"), ("started_at", "max"), ("exported_at", "max")]
    )
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in configured}
    for group in counts.to_pylist():
        groups.setdefault(group["name"], []).append(group)
    keys = {name: key for (_, key, name) in sorted(_places(rows))}
    for name, mine in sorted(groups.items()):
        key = configured.get(name) or keys.get(name, "")
        by_state = {group["state"]: group["execution_id_count"] for group in mine}
        complete_at = last_run.last_complete_at.get(key) if name in configured else None
        yield RunTestStatus(
            name=name,
            key=key,
            executions=sum(by_state.values()),
            **{state: by_state.get(state, 0) for state in (*map(str, ExportState), _DELETED)},
            calls=sum(group["calls_sum"] or 0 for group in mine),
            newest_started_at=_latest(group["started_at_max"] for group in mine),
            exported_at=_latest(group["exported_at_max"] for group in mine),
            complete_at=complete_at,
            is_configured=name in configured,
            is_complete=complete_at is not None and key not in last_run.incomplete,
        )


def missing_of(rows: pa.Table, letters: Sequence[Mapping[str, Any]], configured: Mapping[str, str]) -> list[Finding]:
    """What was not fetched of the configured run tests, as their rows say and the ``letters``, which are rows of ``errors``.

    An execution that is incomplete for its dead letters is told by these.
    """
    ids = pa.array({letter["execution_id"] for letter in letters}, pa.string())
    lettered = rows.filter(pc.is_in(rows["execution_id"], value_set=ids)).select(["execution_id", "name", "state"])
    known = {row["execution_id"]: row for row in lettered.to_pylist()}
    told: dict[str, list[str]] = {}
    executions: dict[str, set[str]] = {}
    for letter in letters:
        row = known.get(letter["execution_id"], {"name": letter["run_test_name"], "state": ""})
        if row["name"] in configured and row["state"] not in _NOT_FETCHED:
            told.setdefault(row["name"], []).append(letter["message"] or "")
            if row["state"] == ExportState.INCOMPLETE:
                executions.setdefault(row["name"], set()).add(letter["execution_id"])
    findings = [
        Finding(Kind.DEAD_LETTER, name, f"{counted(len(messages), 'request')} given up: {min(messages)}")
        for name, messages in sorted(told.items())
    ]
    incomplete = rows.filter(pc.equal(rows["state"], ExportState.INCOMPLETE.value))
    for name, count in sorted(
        (each["values"], each["counts"]) for each in pc.value_counts(incomplete["name"]).to_pylist()
    ):
        if name in configured and (left := count - len(executions.get(name, ()))) > 0:
            findings.append(Finding(Kind.NOT_FETCHED, name, f"{counted(left, 'execution')} incomplete"))
    return findings


def _places(rows: pa.Table) -> Iterator[tuple[datetime, str, str]]:
    """When a row of each pair of key and name last changed."""
    for each in rows.group_by(["key", "name"]).aggregate([("exported_at", "max")]).to_pylist():
        yield each["exported_at_max"] or LONG_AGO, each["key"], each["name"]


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    return max((at for at in times if at), default=None)
