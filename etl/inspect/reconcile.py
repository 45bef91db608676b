"""Compare the aggregates that the API computes over an execution's calls with those of the exported calls.

It reads each run test's list once, which holds the aggregates, and writes nothing. An execution whose entry in the list
has changed since it was exported is not compared: the next run fetches it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date
from typing import Any

from etl.dataset.layout import Part, days_of
from etl.errors import NotFoundError, SourceError, SourceUnavailableError, UnexpectedAnswerError
from etl.extract.client import Client
from etl.extract.executions import is_before, read_executions_once
from etl.extract.run_tests import discover, why_unknown
from etl.model.findings import Finding, Kind
from etl.model.lifecycle import TERMINAL_EXECUTION, ExecutionList, ExportState, ListedExecution
from etl.model.values import fields_of
from etl.model.wording import Word, counted, first_few
from etl.settings import Settings
from etl.transform.aggregates import AGGREGATES, NO_CALLS, Cause, Recomputed, mismatches


class Skipped(Word):
    """Why an execution is not compared; see ``Word``."""

    IN_FLIGHT = "in_flight", "still running: its calls may still change"
    CHANGED = "changed", "it has changed in the API since it was exported: metrics-etl run fetches it again"
    NEW = "new", "not in the dataset yet: metrics-etl run fetches it"
    DELETED = "deleted", "deleted at the source; its rows are kept"
    NOT_LISTED = "not_listed", "not in the list: deleted since the last run, or the list changed while it was read"
    UNREADABLE = "unreadable", "the API cannot return its aggregates"
    UNSOUND = "unsound", "verify found problems in its files"


EXPORTED_COLUMNS = ("execution_id", "run_test_name", "started_at", "export_state", "fingerprint", "deleted_at")
"""What ``Exported.row`` has of an execution's row."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An execution of the dataset, as far as a comparison needs it."""

    part: Part
    """Where it lies."""
    row: Mapping[str, Any]
    """The ``EXPORTED_COLUMNS`` of its row."""
    has_letters: bool
    """Whether a request for it, or for one of its calls, failed for good."""
    recomputed: Recomputed | None
    """The aggregates of its exported calls; None if it has no calls."""

    @property
    def started_on(self) -> date:
        """The UTC day on which it began; if the API does not say, the first day of the month of its part."""
        started_at = self.row["started_at"]
        return started_at.astimezone(UTC).date() if started_at else days_of(self.part.folder)[0]


@dataclass(slots=True)
class Reconciliation:
    """The result of a comparison with the API."""

    compared: int = 0
    """How many executions were compared."""
    skipped: dict[Skipped, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By reason, the ids of executions that were not compared."""
    values: int = 0
    """How many aggregates were compared."""
    explained: Counter[Cause] = field(default_factory=Counter)
    """By known cause, how many aggregates differ for it."""
    unexplained: int = 0
    """How many aggregates differ for no known cause."""
    requests: int = 0
    """How many requests the comparison sent."""
    findings: list[Finding] = field(default_factory=list)
    """Differences without a known cause, and lists that could not be read."""

    @property
    def same(self) -> int:
        """How many aggregates do not differ."""
        return self.values - sum(self.explained.values()) - self.unexplained

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object, as ``verify --json`` prints it."""
        return {
            **fields_of(self, "requests", "compared"),
            "not_compared": {reason.value: self.skipped.get(reason, []) for reason in Skipped},
            **fields_of(self, "values", "same"),
            "explained": dict(self.explained),
            "unexplained": self.unexplained,
        }


async def reconcile(
    settings: Settings, exported: Mapping[str, Exported], *, unsound: Collection[Part], on_hold: Callable[[float], None]
) -> Reconciliation:
    """Compare the exported executions with the lists of their run tests.

    The settings name these, or all that the API has are meant. Executions that were created before the day that the
    settings name for their run test are left out.

    Args:
        settings: With keys for the API.
        exported: By execution_id, what ``verify`` read.
        unsound: Parts with missing or wrong rows, whose executions are not compared.
        on_hold: Called, before a long wait in which nothing is sent, with its seconds.

    Raises:
        SourceUnavailableError: no list can be read. Other SourceErrors as ``Client`` raises them.
    """
    result = Reconciliation()
    async with Client(settings, on_hold=on_hold) as client:
        if not settings.run_tests:
            discovered = await discover(client, page_limit=settings.api.page_limit)
            settings = settings.with_run_tests(discovered.run_tests)
            result.findings += [Finding(Kind.RUN_TESTS_UNKNOWN, "", text) for text in discovered.problems]
        lists = await _read_lists(client, settings, result)
    result.requests = client.traffic.requests
    since = {run_test.name: run_test.since for run_test in settings.run_tests}
    listed: set[str] = set()
    for name, listing in lists.items():
        listed |= listing.executions.keys()
        for execution_id, execution in listing.executions.items():
            known = exported.get(execution_id)
            if (day := since[name]) and is_before(execution, day):
                continue
            reason = _reason_to_skip(execution, known, is_head=execution_id in listing.heads, unsound=unsound)
            if reason:
                result.skipped[reason].append(execution_id)
            elif known:
                _reconcile(result, execution, known)
    for execution_id in exported.keys() - listed:
        known = exported[execution_id]
        name = known.row["run_test_name"]
        if name in lists and known.started_on >= (since[name] or date.min):
            result.skipped[Skipped.DELETED if known.row["deleted_at"] else Skipped.NOT_LISTED].append(execution_id)
    return result


async def _read_lists(client: Client, settings: Settings, result: Reconciliation) -> dict[str, ExecutionList]:
    """The lists of the run tests, by name. One that cannot be read is a finding; SourceUnavailableError if none can."""
    lists: dict[str, ExecutionList] = {}
    unreachable: list[str] = []
    page_limit = settings.api.page_limit
    for run_test in settings.run_tests:
        try:
            listing = await read_executions_once(client, run_test.name, page_limit=page_limit, since=run_test.since)
        except NotFoundError:
            configured = {each.name for each in settings.configured}
            text = await why_unknown(client, run_test.name, configured, page_limit=page_limit)
            result.findings.append(Finding(Kind.NO_SUCH_RUN_TEST, run_test.name, text))
            continue
        except SourceError as error:
            result.findings.append(Finding(Kind.LIST_FAILED, run_test.name, str(error)))
            if not isinstance(error, UnexpectedAnswerError):
                unreachable.append(str(error))
            continue
        lists[run_test.name] = listing
        if messages := [*listing.unreadable, *(letter.message for letter in listing.heads.values())]:
            text = f"{counted(len(messages), 'row')} of its list cannot be read: {messages[-1]}"
            result.findings.append(Finding(Kind.ROW_UNREADABLE, run_test.name, text))
    if len(unreachable) == len(settings.run_tests):
        raise SourceUnavailableError(f"no list of executions could be read: {unreachable[0]}")
    return lists


def _reason_to_skip(
    execution: ListedExecution, known: Exported | None, *, is_head: bool, unsound: Collection[Part]
) -> Skipped | None:
    """Why a listed execution is not compared; None if it is. ``is_head``: its entry has no aggregates."""
    if known and known.part in unsound:
        return Skipped.UNSOUND
    if is_head:
        return Skipped.UNREADABLE
    if (
        known
        and known.row["export_state"] != ExportState.WAITING
        and not known.row["deleted_at"]
        and known.row["fingerprint"] == execution.fingerprint
    ):
        return None
    if execution.status not in TERMINAL_EXECUTION:
        return Skipped.IN_FLIGHT
    return Skipped.CHANGED if known else Skipped.NEW


def _reconcile(result: Reconciliation, execution: ListedExecution, known: Exported) -> None:
    """Compare one execution, and add what differs to the result."""
    differences = mismatches(execution.unpack().payload, known.recomputed or NO_CALLS, has_letters=known.has_letters)
    causes = Counter(difference.cause for difference in differences)
    result.compared += 1
    result.values += len(AGGREGATES)
    result.unexplained += causes.pop(None, 0)
    result.explained.update({cause: count for cause, count in causes.items() if cause})
    if unexplained := [str(difference) for difference in differences if difference.cause is None]:
        text = first_few(unexplained, shown=3)
        result.findings.append(Finding(Kind.DIFFERENCE, execution.execution_id, text))
