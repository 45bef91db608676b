"""What the rows say of each run test, and what is missing of those that are configured. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from etl.dataset.last_run import LastRun
from etl.inspect.stored import StoredFile
from etl.model.findings import Finding, Kind
from etl.model.lifecycle import LONG_AGO, ExportState
from etl.model.values import python_values
from etl.model.wording import counted

EXECUTION_COLUMNS = (
    "execution_id", "run_test_name", "started_at", "export_state", "deleted_at", "exported_at", "exported_calls",
    "verified_at",
)  # fmt: skip
_Rows = Sequence[dict[str, Any]]
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


def execution_rows(found: Iterable[StoredFile]) -> list[dict[str, Any]]:
    """The rows of these files of executions: ``EXECUTION_COLUMNS``, the ``key`` where each lies, and its ``state``."""
    rows = []
    for file in found:
        for values in zip(*(python_values(file.columns[name]) for name in EXECUTION_COLUMNS), strict=True):
            row = dict(zip(EXECUTION_COLUMNS, values, strict=True))
            row["key"], row["state"] = (
                file.part.run_test_key,
                _DELETED if row["deleted_at"] else row["export_state"] or "",
            )
            rows.append(row)
    return rows


def run_tests_of(rows: _Rows, configured: Mapping[str, str], last_run: LastRun) -> Iterator[RunTestStatus]:
    """The run tests that are ``configured``, keys by name, and those of which there are rows beside them."""
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in configured}
    for row in rows:
        groups.setdefault(row["run_test_name"] or "", []).append(row)
    for name, mine in sorted(groups.items()):
        key = configured.get(name) or places_of(mine)[-1][1]
        states = Counter(row["state"] for row in mine)
        verified = [row["verified_at"] for row in mine if row["verified_at"] and row["state"] == ExportState.EXPORTED]
        complete_at = last_run.last_complete_at.get(key) if name in configured else None
        yield RunTestStatus(
            name=name,
            key=key,
            executions=len(mine),
            **{state: states[state] for state in (*map(str, ExportState), _DELETED)},
            calls=sum(row["exported_calls"] or 0 for row in mine),
            newest_started_at=_latest(row["started_at"] for row in mine),
            exported_at=_latest(row["exported_at"] for row in mine),
            verified_at=min(verified, default=None),
            complete_at=complete_at,
            is_configured=name in configured,
            is_complete=complete_at is not None and key not in last_run.incomplete,
        )


def missing_of(rows: _Rows, letters: _Rows, configured: Mapping[str, str]) -> list[Finding]:
    """What was not fetched of the configured run tests, as their rows say, or where an execution has them its dead ``letters``."""
    lettered = {letter["execution_id"] for letter in letters}
    wanted = (row for row in rows if row["state"] == ExportState.INCOMPLETE or row["execution_id"] in lettered)
    states = {row["execution_id"]: row for row in wanted}
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


def places_of(rows: _Rows) -> list[tuple[datetime, str, str]]:
    """When a row of each pair of key and name last changed, in order."""
    found: dict[tuple[str, str], datetime] = {}
    for row in rows:
        place = row["key"], row["run_test_name"] or ""
        found[place] = max(found.get(place, LONG_AGO), row["exported_at"] or LONG_AGO)
    return sorted((at, key, name) for (key, name), at in found.items())


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    return max((at for at in times if at), default=None)
