"""What the rows say about each run test, and what is missing of those that are configured. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from etl.dataset.last_run import LastRun
from etl.inspect.stored import StoredFile
from etl.model.findings import Finding, Kind
from etl.model.keys import default_key
from etl.model.lifecycle import LONG_AGO, ExportState, unless_future
from etl.model.values import python_values
from etl.model.wording import counted

_TIMES = ("started_at", "deleted_at", "exported_at", "verified_at")
EXECUTION_COLUMNS = ("execution_id", "run_test_name", "export_state", "exported_calls", *_TIMES)
"""What is needed of each execution's row."""
_Rows = Sequence[dict[str, Any]]
_DELETED = "deleted"
"""The state of an execution that the source no longer has, whatever its export state."""
_NOT_FETCHED = {_DELETED, ExportState.WAITING.value}
"""The states in which failed requests do not count: these executions are fetched once they have finished, or never."""


@dataclass(frozen=True, slots=True)
class RunTestStatus:
    """One run test: all executions of its name, under whatever key they lie; or a configured one that has none yet."""

    name: str
    """The name that the rows have."""
    key: str
    """The name of its folder: the key in the settings; without one, that of the row that changed last, if any."""
    executions: int
    """How many executions it has, which are in the following states."""
    exported: int
    """Final."""
    settling: int
    """Fetched, but compared again, because data may come late."""
    listed: int
    """Stored from the lists; the metrics of calls come later."""
    waiting: int
    """Not finished yet."""
    incomplete: int
    """Part of it could not be fetched."""
    forgotten: int
    """Removed by its owner, but for its row."""
    deleted: int
    """The source no longer has it; in no other state."""
    calls: int
    """How many calls its executions have, as their rows count them."""
    newest_started_at: datetime | None
    """When its newest execution was created; a time after its export is wrong, and does not count."""
    exported_at: datetime | None
    """When a row of its executions changed last."""
    compared_at: datetime | None
    """When that of its final executions was fetched or compared whose last comparison is the oldest."""
    complete_at: datetime | None
    """When everything in it was exported last; None if it never was, or if it is not configured."""
    is_configured: bool
    """Whether runs export it."""
    is_complete: bool
    """Whether the last run over it left nothing out."""


def execution_rows(files: Iterable[StoredFile], compared: Mapping[str, datetime]) -> list[dict[str, Any]]:
    """The rows of these files of ``executions``: ``EXECUTION_COLUMNS``, and ``key``, ``state`` and ``compared_at``.

    ``compared`` is when executions were compared without a difference, by id.
    """
    rows = []
    for file in files:
        for values in zip(*(python_values(file.columns[name]) for name in EXECUTION_COLUMNS), strict=True):
            row = dict(zip(EXECUTION_COLUMNS, values, strict=True))
            row["key"] = file.part.run_test_key
            row["compared_at"] = _latest((row["verified_at"], compared.get(row["execution_id"])))
            is_deleted = row["deleted_at"] and row["export_state"] != ExportState.FORGOTTEN
            row["state"] = _DELETED if is_deleted else row["export_state"] or ""
            rows.append(row)
    return rows


def run_tests_of(rows: _Rows, configured: Mapping[str, str], last_run: LastRun) -> Iterator[RunTestStatus]:
    """The run tests that are configured, keys by name, and all others that have rows; in the order of their names."""
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in configured}
    for row in rows:
        groups.setdefault(row["run_test_name"] or "", []).append(row)
    for name, own in sorted(groups.items()):
        key = configured.get(name, "")
        has_own_key = key not in ("", default_key(name))
        states = Counter(row["state"] for row in own)
        compared = [row["compared_at"] for row in own if row["compared_at"] and row["state"] == ExportState.EXPORTED]
        complete_at = last_run.last_complete_at.get(key)
        yield RunTestStatus(
            name=name,
            key=key if has_own_key or not own else places_of(own)[-1][1],
            executions=len(own),
            **{state: states[state] for state in (*map(str, ExportState), _DELETED)},
            calls=sum(row["exported_calls"] or 0 for row in own),
            newest_started_at=_latest(unless_future(row["started_at"], row["exported_at"]) for row in own),
            exported_at=_latest(row["exported_at"] for row in own),
            compared_at=min(compared, default=None),
            complete_at=complete_at,
            is_configured=name in configured,
            is_complete=complete_at is not None and key not in last_run.incomplete,
        )


def missing_of(rows: _Rows, letters: _Rows, configured: Mapping[str, str]) -> list[Finding]:
    """Findings about what was not fetched of the configured run tests.

    ``rows`` are executions, and ``letters`` rows of ``errors``. An execution that has dead letters is reported by these
    alone.
    """
    with_letters = {letter["execution_id"] for letter in letters}
    wanted = (row for row in rows if row["state"] == ExportState.INCOMPLETE or row["execution_id"] in with_letters)
    row_of = {row["execution_id"]: row for row in wanted}
    messages = defaultdict[str, list[str]](list)
    for letter in letters:
        row = row_of.get(letter["execution_id"], letter | {"state": ""})
        if row["state"] not in _NOT_FETCHED:
            messages[row["run_test_name"]].append(letter["message"] or "")
    incomplete = Counter(row["run_test_name"] for id_, row in row_of.items() if id_ not in with_letters)
    findings = [
        Finding(Kind.DEAD_LETTER, name, f"{counted(len(texts), 'request')} failed: {min(texts)}")
        for name, texts in messages.items()
    ]
    findings += [
        Finding(Kind.NOT_FETCHED, name, f"{counted(count, 'execution')} could not be fully exported")
        for name, count in incomplete.items()
    ]
    of_configured = [finding for finding in findings if finding.subject in configured]
    return sorted(of_configured, key=lambda finding: (finding.kind, finding.subject))


def places_of(rows: _Rows) -> list[tuple[datetime, str, str]]:
    """For each pair of key and name that rows have, when one of these rows changed last; sorted by this time.

    Each item is time, key and name.
    """
    changed_at: dict[tuple[str, str], datetime] = {}
    for row in rows:
        place = row["key"], row["run_test_name"] or ""
        changed_at[place] = max(changed_at.get(place, LONG_AGO), row["exported_at"] or LONG_AGO)
    return sorted((at, key, name) for (key, name), at in changed_at.items())


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    """The latest of these times; None if there is none."""
    return max((at for at in times if at), default=None)
