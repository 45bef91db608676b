"""What the steps of one run have found and done so far, however far it came."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

from etl.dataset.commit import Arrived
from etl.dataset.last_run import LastRun
from etl.extract.plan import Planned, Reason
from etl.extract.settling import Counts
from etl.model.findings import Finding, Kind, alarms
from etl.model.lifecycle import KNOWN_EXECUTION, ExecutionList
from etl.model.records import DeadLetter
from etl.model.wording import counted, quoted
from etl.pipeline.summary import RunTestSummary
from etl.settings import RunTest
from etl.transform.drift import drift_text


@dataclass(slots=True)
class Record:
    """What the steps noted as they went. Mappings are by the name of the run test; what has no value yet has not happened.

    ``before`` is what the run before left. ``lists`` are those that were read, ``failures`` say why another one could not be,
    ``not_found`` are run tests that the API does not know, ``unreachable`` the errors for which the source is to blame.
    ``deleted`` is how many executions were marked. ``committed`` are execution_ids, ``previewed`` those that were stored from their
    lists before. ``fetched`` is what all crawls did, ``arrived``
    what all commits received.
    """

    run_tests: tuple[RunTest, ...]
    before: LastRun = field(default_factory=LastRun)
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
    previewed: set[str] = field(default_factory=set)
    arrived: dict[str, Arrived] = field(default_factory=dict)

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

    def note_arrival(self, arrived: Mapping[str, Arrived]) -> None:
        """Add what a commit received."""
        for name, each in arrived.items():
            total = self.arrived.setdefault(name, Arrived())
            total.rows += each.rows
            total.misfits += each.misfits
            total.dead_letters |= each.dead_letters
            total.without_rows |= each.without_rows
            total.unknown_statuses += each.unknown_statuses
            total.drift |= each.drift

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
        name = run_test.name
        planned, arrived = self.planned.get(name, []), self.arrived.get(name, Arrived())
        due = [item for item in planned if item.is_fetched or is_waiting_row_due(item)]
        previewed = self.previewed - self.committed
        return RunTestSummary(
            name,
            run_test.key,
            listed=len(self.lists[name].executions) if name in self.lists else 0,
            reasons=count_reasons(planned),
            # Where nothing cut the run short, what was planned and never arrived has been deleted since.
            missed=sum(item.execution.execution_id not in self.committed for item in due) if is_cut_short else 0,
            previewed=sum(item.execution.execution_id in previewed for item in due),
            deleted=self.deleted[name],
            executions=arrived.rows["executions"],
            calls=arrived.rows["calls"],
            evals=arrived.rows["evals"],
            dead_letters=len(_letters(arrived)),
            misfits=arrived.misfits,
            error=self.failures.get(name),
        )

    def _find_in(self, summary: RunTestSummary, settled_before: datetime) -> None:
        """Note what is missing of the run test, and what is worth knowing."""
        name, arrived = summary.name, self.arrived.get(summary.name, Arrived())
        if letters := _letters(arrived):
            first = min(letter.message for letter in letters)
            self.find(Kind.DEAD_LETTER, name, f"{counted(len(letters), 'request')} failed: {first}")
        for count, kind, text in (
            (len(arrived.without_rows), Kind.NOT_FETCHED, "incomplete, because stored rows are gone"),
            (summary.missed, Kind.NOT_FETCHED, "not fetched yet, because the run ended early"),
            (summary.deleted, Kind.DELETED, "deleted at the source; the rows stay, with a deleted_at"),
        ):
            if count:
                self.find(kind, name, f"{counted(count, 'execution')} {text}")
        if drift := [*chain.from_iterable(arrived.drift.values())]:
            self.find(Kind.ANSWERS_CHANGED, name, drift_text(drift))
        odd = [item for item in self.planned.get(name, ()) if item.execution.status not in KNOWN_EXECUTION]
        ended = Counter(item.execution.status for item in odd if _has_waited(item, settled_before))
        for status, count in sorted(ended.items()):
            executions = counted(count, "execution")
            text = f"{executions} ended in status {quoted(status)}, which this version does not know, so no calls are fetched"
            self.find(Kind.NEW_STATUS_ENDED, name, text)
        unknown = Counter(item.execution.status for item in odd) + arrived.unknown_statuses
        for status, count in sorted((unknown - ended).items()):
            text = f"status {quoted(status)}, seen {counted(count, 'time')}, is new to this version and counts as not finished"
            self.find(Kind.NEW_STATUS, name, text)


def count_reasons(planned: Iterable[Planned]) -> Counter[str]:
    """How many executions are planned for each reason, in the order of ``Reason``."""
    counts = Counter(item.reason for item in planned)
    return Counter({reason.value: counts[reason] for reason in Reason if counts[reason]})


def is_waiting_row_due(item: Planned) -> bool:
    """Whether the dataset has yet to say that the execution still runs."""
    return item.reason is Reason.WAITING and not item.is_waiting_row_current


def _letters(arrived: Arrived) -> list[DeadLetter]:
    return [letter for letters in arrived.dead_letters.values() for letter in letters]


def _has_waited(item: Planned, since: datetime) -> bool:
    """Whether the execution has waited in vain, as it is now, since then."""
    written_at = item.stored.exported_at if item.stored else None
    is_long = written_at is not None and written_at <= since
    return is_long and item.reason is Reason.WAITING and item.is_waiting_row_current
