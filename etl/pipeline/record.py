"""What the steps of one run have found and done so far, however far it came.

Each step notes here what it learned, and later steps read it. At the end it becomes the summary of each run test.
Nothing here sends a request, or reads or writes a file.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

from etl.dataset.commit import Arrived
from etl.dataset.last_run import LastRun
from etl.extract.plan import Planned, Reason
from etl.extract.settling import Counts
from etl.model.findings import Finding, Kind, alarms
from etl.model.lifecycle import KNOWN_EXECUTION, ExecutionList
from etl.model.records import ListedRunTest
from etl.model.wording import counted, quoted
from etl.pipeline.summary import RunTestSummary
from etl.settings import RunTest
from etl.transform.drift import Answers


@dataclass(slots=True)
class Record:
    """What the steps noted as they went. Mappings are by run test name; one without an entry has not come so far."""

    run_tests: tuple[RunTest, ...]
    """The run tests of this run: the configured ones; with ``run_tests = "all"`` those that ``discover_all`` finds."""
    before: LastRun = field(default_factory=LastRun)
    """What the last run over the same scope left behind."""
    findings: list[Finding] = field(default_factory=list)
    """Everything worth saying, in the order in which it was found."""
    completed_files: int = 0
    """How many files of an older version got this version's columns."""
    lists: dict[str, ExecutionList] = field(default_factory=dict)
    """The lists of executions that were read, whether proved or not."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why the list of a run test could not be read; its run test may not exist."""
    not_found: set[str] = field(default_factory=set)
    """Names of run tests that the API does not know."""
    unreachable: list[str] = field(default_factory=list)
    """One error for each list that the API could not give; lists that it gave in an unexpected form do not count."""
    planned: dict[str, list[Planned]] = field(default_factory=dict)
    """What to do with each listed execution, most valuable first. Only run tests whose list was read have an entry."""
    listed_run_tests: Mapping[str, Sequence[ListedRunTest]] | None = None
    """By name, the run tests of the workspace; None before their list was read."""
    deleted: Counter[str] = field(default_factory=Counter)
    """How many executions were marked as deleted."""
    fetched: Counts = field(default_factory=Counts)
    """What all crawls of this run found and spared."""
    swept: Mapping[str, str] = field(default_factory=dict)
    """The execution_ids of what is compared again if it is final, as in ``Policy``."""
    last_step: Kind | None = None
    """What to say if something ends the run now; None while that would leave out what a run promises."""
    committed: set[str] = field(default_factory=set)
    """The execution_ids of executions that were committed whole."""
    previewed: set[str] = field(default_factory=set)
    """The execution_ids of executions that were stored from their lists first."""
    answers: dict[str, Answers] = field(default_factory=dict)
    """What the answers have shown of the API's form; see ``answers_of``."""
    left_alone: set[str] = field(default_factory=set)
    """The run tests of which executions were not compared, since the API's answers have not changed back."""
    arrived: dict[str, Arrived] = field(default_factory=dict)
    """What all commits received, except for previews: their executions arrive once more."""

    def find(self, kind: Kind, subject: str, text: str) -> None:
        """Note a finding. Its subject is the run test or file that it is about; empty for the run as a whole."""
        self.findings.append(Finding(kind, subject, text))

    def listed_ids(self) -> set[str]:
        """The execution_ids of all lists that were read."""
        return {execution_id for listed in self.lists.values() for execution_id in listed.executions}

    def complete_before(self) -> set[str]:
        """The names of the run tests from which some earlier run exported everything."""
        return {run_test.name for run_test in self.run_tests if self.before.last_complete_at.get(run_test.key)}

    def answers_of(self, name: str) -> Answers:
        """What the answers about the run test have shown so far."""
        if name not in self.answers:
            told = next((each for each in self.before.answers if each.subject == name), None)
            self.answers[name] = Answers(told.text, told.is_alarm) if told else Answers()
        return self.answers[name]

    def all_planned(self) -> Iterator[Planned]:
        """What is planned for all run tests."""
        return chain.from_iterable(self.planned.values())

    def note_arrival(self, arrived: Mapping[str, Arrived]) -> None:
        """Add what one commit received, by the run test's name.

        Rows add up. Dead letters are kept by execution, because each piece of an execution brings all of them.
        """
        for name, received in arrived.items():
            total = self.arrived.setdefault(name, Arrived())
            total.rows += received.rows
            total.misfits += received.misfits
            total.dead_letters |= received.dead_letters
            total.without_rows |= received.without_rows
            total.unknown_statuses += received.unknown_statuses

    def run_test_summaries(self, *, is_cut_short: bool, settled_before: datetime) -> list[RunTestSummary]:
        """What was done for each run test. Call it once, at the end: it also notes the findings of each.

        ``is_cut_short``: something ended the run before it had done everything. An execution that has not changed since
        ``settled_before`` is not expected to change any more.
        """
        summaries = [self._summary_of(run_test, is_cut_short=is_cut_short) for run_test in self.run_tests]
        for summary in summaries:
            self._find_in(summary, settled_before)
        alarming = {finding.subject for finding in alarms(self.findings)}
        for summary in summaries:
            is_done = summary.name in self.planned and not is_cut_short
            summary.is_complete = is_done and summary.name not in alarming
        return summaries

    def _summary_of(self, run_test: RunTest, *, is_cut_short: bool) -> RunTestSummary:
        name = run_test.name
        planned = self.planned.get(name, [])
        arrived = self.arrived.get(name, Arrived())
        due = [item for item in planned if item.is_awaited or is_waiting_row_due(item)]
        previewed = self.previewed - self.committed
        return RunTestSummary(
            name,
            run_test.key,
            listed=len(self.lists[name].executions) if name in self.lists else 0,
            reasons=count_reasons(planned),
            # If the run did everything, an execution that was planned and never arrived has been deleted since.
            missed=sum(item.execution.execution_id not in self.committed for item in due) if is_cut_short else 0,
            previewed=sum(item.execution.execution_id in previewed for item in due),
            deleted=self.deleted[name],
            executions=arrived.rows["executions"],
            calls=arrived.rows["calls"],
            evals=arrived.rows["evals"],
            dead_letters=sum(map(len, arrived.dead_letters.values())),
            misfits=arrived.misfits,
            error=self.failures.get(name),
        )

    def _find_in(self, summary: RunTestSummary, settled_before: datetime) -> None:
        """Note what is missing of the run test, and what is worth knowing."""
        name = summary.name
        arrived = self.arrived.get(name, Arrived())
        if summary.dead_letters:
            messages = (letter.message for letters in arrived.dead_letters.values() for letter in letters)
            self.find(Kind.DEAD_LETTER, name, f"{counted(summary.dead_letters, 'request')} failed: {min(messages)}")
        for count, kind, text in (
            (len(arrived.without_rows), Kind.NOT_FETCHED, "could not be completed, because stored rows are gone"),
            (summary.missed, Kind.NOT_FETCHED, "could not be fetched, because the run ended early"),
            (summary.deleted, Kind.DELETED, "disappeared from the source and got a deleted_at"),
        ):
            if count:
                self.find(kind, name, f"{counted(count, 'execution')} {text}")
        self._find_in_answers(name)
        self._find_unknown_statuses(name, arrived, settled_before)

    def _find_in_answers(self, name: str) -> None:
        """Note which columns lost their values. What nobody looked at again is said again."""
        answers = self.answers_of(name)
        changed, odd = answers.text(is_drift=True), answers.text(is_drift=False)
        if changed:
            self.find(Kind.ANSWERS_CHANGED, name, f"the API's answers changed {changed}")
        if odd:
            self.find(Kind.ANSWERS_ODD, name, f"values may be missing {odd}")
        if text := answers.text(is_drift=True, is_filled=True):
            self.find(Kind.FROM_DETAILS, name, f"the API's answers changed {text}")
        has_looked = name in self.planned and name not in self.left_alone
        if answers.was_alarm and not (has_looked or changed):
            self.find(Kind.ANSWERS_CHANGED, name, answers.told)

    def _find_unknown_statuses(self, name: str, arrived: Arrived, settled_before: datetime) -> None:
        """Note statuses that this version does not know. An execution that stays in one for long has probably ended."""
        odd = [item for item in self.planned.get(name, ()) if item.execution.status not in KNOWN_EXECUTION]
        ended = Counter(item.execution.status for item in odd if _has_waited_since(item, settled_before))
        for status, count in sorted(ended.items()):
            text = f"ended in status {quoted(status)}, which this version does not know, so no calls are fetched"
            self.find(Kind.NEW_STATUS_ENDED, name, f"{counted(count, 'execution')} {text}")
        unknown = Counter(item.execution.status for item in odd) + arrived.unknown_statuses
        for status, count in sorted((unknown - ended).items()):
            text = f"seen {counted(count, 'time')}, is new to this version and counts as not finished"
            self.find(Kind.NEW_STATUS, name, f"status {quoted(status)}, {text}")


def count_reasons(planned: Iterable[Planned]) -> Counter[str]:
    """How many executions are planned for each reason, in the order of ``Reason``."""
    counts = Counter(item.reason for item in planned)
    return Counter({reason.value: counts[reason] for reason in Reason if counts[reason]})


def is_waiting_row_due(item: Planned) -> bool:
    """Whether the execution still runs, and the dataset has no current row that says so."""
    return item.reason is Reason.WAITING and not item.is_waiting_row_current


def _has_waited_since(item: Planned, moment: datetime) -> bool:
    """Whether the execution counts as running, and its row, which is still current, was written by that moment."""
    is_old = item.stored is not None and item.stored.exported_at is not None and item.stored.exported_at <= moment
    return is_old and item.reason is Reason.WAITING and item.is_waiting_row_current
