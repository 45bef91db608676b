"""What the rows say of each run test, and what is missing of those that are configured. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.inspect.stored import StoredFile
from etl.load.last_run import LastRun
from etl.model import schema
from etl.model.findings import Finding, Kind
from etl.model.lifecycle import LONG_AGO, ExportState
from etl.model.wording import counted

EXECUTION_COLUMNS = (
    "execution_id", "run_test_name", "started_at", "export_state", "deleted_at", "exported_at", "exported_calls",
    "verified_at",
)  # fmt: skip
_DELETED = "deleted"
_NOT_FETCHED = {_DELETED, ExportState.WAITING.value}
"""What failed of these is of no account: they are fetched once they have finished, or never."""


@dataclass(frozen=True, slots=True)
class RunTestStatus:
    """The rows of one name, wherever they lie, and of no rows a run test that is configured. ``deleted`` ones have no other state.

    ``key``: the configured one, or where the row that changed last lies. ``calls``: as its executions count them.
    ``newest_started_at``: when its newest execution was created. ``exported_at``: the last time that a row of its executions
    changed. ``complete_at``: the last time that everything in it was exported; None when it never was, or when it is not
    configured. ``is_complete``: the last run over it left nothing out. ``verified_at``: when the calls were fetched of the
    execution that was verified longest ago, of those that are final.
    """

    name: str
    key: str
    executions: int
    exported: int
    settling: int
    listed: int
    waiting: int
    incomplete: int
    deleted: int
    calls: int
    newest_started_at: datetime | None
    exported_at: datetime | None
    verified_at: datetime | None
    complete_at: datetime | None
    is_configured: bool
    is_complete: bool


def execution_rows(found: Iterable[StoredFile]) -> pa.Table:
    """The rows of these files of executions: ``EXECUTION_COLUMNS``, the ``key`` where each lies, and its ``state``."""
    tables = [schema.EXECUTIONS.no_rows.select(EXECUTION_COLUMNS).append_column("key", pa.array([], pa.string()))]
    for file in found:
        if file.part:
            keys = pa.repeat(pa.scalar(file.part.run_test_key), file.columns.num_rows)
            tables.append(file.columns.append_column("key", keys))
    rows = pa.concat_tables(tables)
    states = pc.if_else(pc.is_valid(rows["deleted_at"]), _DELETED, pc.fill_null(rows["export_state"], ""))
    return rows.append_column("state", states)


def run_tests_of(rows: pa.Table, configured: Mapping[str, str], last_run: LastRun) -> Iterator[RunTestStatus]:
    """The run tests that are ``configured``, keys by name, and those of which there are rows beside them."""
    counts = rows.group_by(["run_test_name", "state"]).aggregate(
        [
            ("execution_id", "count"),
            ("exported_calls", "sum"),
            *((name, "max") for name in ("started_at", "exported_at")),
            ("verified_at", "min"),
        ]
    )
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in configured}
    for group in counts.to_pylist():
        groups.setdefault(group["run_test_name"] or "", []).append(group)
    keys = {name: key for _, key, name in places_of(rows)}
    for name, mine in sorted(groups.items()):
        key = configured.get(name) or keys.get(name, "")
        by_state = {group["state"]: group["execution_id_count"] for group in mine}
        complete_at = last_run.last_complete_at.get(key) if name in configured else None
        yield RunTestStatus(
            name=name,
            key=key,
            executions=sum(by_state.values()),
            **{state: by_state.get(state, 0) for state in (*map(str, ExportState), _DELETED)},
            calls=sum(group["exported_calls_sum"] or 0 for group in mine),
            newest_started_at=_latest(group["started_at_max"] for group in mine),
            exported_at=_latest(group["exported_at_max"] for group in mine),
            verified_at=next((each["verified_at_min"] for each in mine if each["state"] == ExportState.EXPORTED), None),
            complete_at=complete_at,
            is_configured=name in configured,
            is_complete=complete_at is not None and key not in last_run.incomplete,
        )


def missing_of(rows: pa.Table, letters: Sequence[dict[str, Any]], configured: Mapping[str, str]) -> list[Finding]:
    """What was not fetched of the configured run tests, as their rows say and the ``letters``, which are rows of ``errors``.

    An execution that is incomplete for its dead letters is told by these.
    """
    lettered = {letter["execution_id"] for letter in letters}
    is_lettered = pc.is_in(rows["execution_id"], value_set=pa.array(lettered, pa.string()))
    wanted = rows.filter(pc.or_(is_lettered, pc.equal(rows["state"], ExportState.INCOMPLETE.value)))
    states = {row["execution_id"]: row for row in wanted.select(["execution_id", "run_test_name", "state"]).to_pylist()}
    messages = defaultdict[str, list[str]](list)
    for letter in letters:
        row = states.get(letter["execution_id"], letter | {"state": ""})
        if row["state"] not in _NOT_FETCHED:
            messages[row["run_test_name"]].append(letter["message"] or "")
    incomplete = Counter(row["run_test_name"] for each, row in states.items() if each not in lettered)
    findings = [
        Finding(Kind.DEAD_LETTER, name, f"{counted(len(told), 'request')} failed: {min(told)}")
        for name, told in messages.items()
    ]
    findings += [
        Finding(Kind.NOT_FETCHED, name, f"{counted(count, 'execution')} incomplete")
        for name, count in incomplete.items()
    ]
    return sorted((each for each in findings if each.subject in configured), key=lambda each: (each.kind, each.subject))


def places_of(rows: pa.Table) -> list[tuple[datetime, str, str]]:
    """When a row of each pair of key and name last changed, in order."""
    found = rows.group_by(["key", "run_test_name"]).aggregate([("exported_at", "max")]).to_pylist()
    return sorted((each["exported_at_max"] or LONG_AGO, each["key"], each["run_test_name"] or "") for each in found)


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    return max((at for at in times if at), default=None)
