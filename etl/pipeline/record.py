"""What the steps of one run have found and done so far, however far it came."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

from etl.extract.plan import Planned, Reason
from etl.extract.run_tests import Discovered
from etl.load.commit import Arrived
from etl.load.last_run import LastRun
from etl.load.state import StoredState
from etl.model.findings import Finding, Kind, alarms
from etl.model.lifecycle import KNOWN_EXECUTION, ExecutionList
from etl.model.records import DeadLetter
from etl.model.wording import counted, quoted
from etl.pipeline.engine.contract import Counts
from etl.pipeline.summary import RunTestSummary
from etl.settings import RunTest


@dataclass(slots=True)
class Record:
    """What the steps noted as they went. Mappings are by the name of the run test; what has no value yet has not happened.

    ``before`` is what the run before left. ``state`` is what the dataset held. ``lists`` are those that were
    read, ``failures`` say why another one could not be, ``not_found`` are run tests that the API does not know, ``unreachable`` the
    errors for which the source is to blame. ``deleted`` is how many executions were marked. ``committed`` are execution_ids.
    ``fetched`` is what all crawls did, ``arrived`` what each commit received.
    """

    run_tests: tuple[RunTest, ...]
    before: LastRun = field(default_factory=LastRun)
    state: StoredState | None = None
    discovered: Discovered | None = None
    findings: list[Finding] = field(default_factory=list)
    completed_files: int = 0
    lists: dict[str, ExecutionList] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    not_found: set[str] = field(default_factory=set)
    unreachable: list[str] = field(default_factory=list)
    planned: dict[str, list[Planned]] = field(default_factory=dict)
    deleted: Counter[str] = field(default_factory=Counter)
    fetched: Counts = field(default_factory=Counts)
    committed: set[str] = field(default_factory=set)
    arrived: list[dict[str, Arrived]] = field(default_factory=list)
    necessary_requests: int = 0

    def find(self, kind: Kind, subject: str, text: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(kind, subject, text))

    def listed_ids(self) -> set[str]:
        """The execution_ids of all lists."""
        return {execution_id for found in self.lists.values() for execution_id in found.executions}

    def complete_before(self) -> set[str]:
        """The names of the run tests of which an earlier run left nothing out."""
        return {each.name for each in self.run_tests if self.before.last_complete_at.get(each.key)}

    def all_planned(self) -> Iterator[Planned]:
        """What is planned for all run tests."""
        return chain.from_iterable(self.planned.values())

    def run_test_summaries(self, *, is_cut_short: bool, settled_before: datetime) -> list[RunTestSummary]:
        """Each run test's share of the run, whose findings are noted, too.

        ``is_cut_short``: something ended the run before it had done everything. Of what has not changed since ``settled_before``,
        no change is expected.
        """
        summaries = [self._summary_of(each, is_cut_short=is_cut_short) for each in self.run_tests]
        for summary in summaries:
            self._find_in(summary, settled_before)
        alarming = {finding.subject for finding in alarms(self.findings)}
        for summary in summaries:
            is_done = summary.name in self.planned and not summary.missed
            summary.is_complete = is_done and summary.name not in alarming
        return summaries

    def _summary_of(self, run_test: RunTest, *, is_cut_short: bool) -> RunTestSummary:
        planned = self.planned.get(run_test.name, [])
        summary = RunTestSummary(
            run_test.name,
            run_test.key,
            listed=len(self.lists[run_test.name].executions) if run_test.name in self.lists else 0,
            reasons=count_reasons(planned),
            deleted=self.deleted[run_test.name],
            dead_letters=len(self._letters(run_test.name)),
            error=self.failures.get(run_test.name),
        )
        for arrived in self._arrived_of(run_test.name):
            summary.executions += arrived.rows["executions"]
            summary.calls += arrived.rows["calls"]
            summary.evals += arrived.rows["evals"]
            summary.misfits += arrived.misfits
        if is_cut_short:  # otherwise what was planned and never arrived has been deleted since
            due = [item for item in planned if item.is_fetched or is_waiting_row_due(item)]
            summary.missed = sum(item.execution.execution_id not in self.committed for item in due)
        return summary

    def _find_in(self, summary: RunTestSummary, settled_before: datetime) -> None:
        """Note what is missing of the run test, and what is worth knowing."""
        name = summary.name
        if letters := self._letters(name):
            first = min(letters.values(), key=lambda letter: letter.message)
            text = f"{counted(len(letters), 'request')} given up: {first.message}"
            self.find(Kind.DEAD_LETTER, name, text)
        without_rows = {each for arrived in self._arrived_of(name) for each in arrived.without_rows}
        if without_rows:
            executions = counted(len(without_rows), "execution")
            self.find(Kind.NOT_FETCHED, name, f"{executions} incomplete, because stored rows are gone")
        if summary.missed:
            executions = counted(summary.missed, "execution")
            self.find(Kind.NOT_FETCHED, name, f"{executions} not fetched yet, because the run ended early")
        if summary.deleted:
            executions = counted(summary.deleted, "execution")
            self.find(Kind.DELETED, name, f"{executions} deleted at the source; the rows are kept, see deleted_at")
        unknown = Counter(
            item.execution.status for item in self.planned.get(name, ()) if item.execution.status not in KNOWN_EXECUTION
        )
        ended = Counter(
            item.execution.status
            for item in self.planned.get(name, ())
            if item.execution.status in unknown and _has_waited(item, settled_before)
        )
        for status, count in sorted(ended.items()):
            executions = counted(count, "execution")
            text = f"{executions} ended in the status {quoted(status)}, which this version does not know: no calls are fetched"
            self.find(Kind.NEW_STATUS_ENDED, name, text)
        for arrived in self._arrived_of(name):
            unknown += arrived.unknown_statuses
        for status, count in sorted((unknown - ended).items()):
            text = f"the status {quoted(status)}, which counts as not finished, is new to this version: {counted(count, 'time')}"
            self.find(Kind.NEW_STATUS, name, text)

    def _letters(self, name: str) -> dict[tuple[str, str, str], DeadLetter]:
        """The dead letters of the run test. An execution that arrives in pieces tells of all of its own each time."""
        latest: dict[str, tuple[DeadLetter, ...]] = {}
        for arrived in self._arrived_of(name):
            latest |= arrived.dead_letters
        return {
            (letter.endpoint, letter.subject_id, execution_id): letter
            for execution_id, letters in latest.items()
            for letter in letters
        }

    def _arrived_of(self, name: str) -> Iterator[Arrived]:
        return (commit[name] for commit in self.arrived if name in commit)


def count_reasons(planned: Iterable[Planned]) -> Counter[str]:
    """How many executions are planned for each reason, in the order of ``Reason``."""
    counts = Counter(item.reason for item in planned)
    return Counter({reason.value: counts[reason] for reason in Reason if counts[reason]})


def is_waiting_row_due(item: Planned) -> bool:
    """Whether the dataset has yet to say that the execution still runs."""
    return item.reason is Reason.WAITING and not item.is_waiting_row_current


def _has_waited(item: Planned, since: datetime) -> bool:
    """Whether the execution has waited in vain, as it is now, since then."""
    written_at = item.stored.exported_at if item.stored else None
    is_long = written_at is not None and written_at <= since
    return is_long and item.reason is Reason.WAITING and item.is_waiting_row_current
