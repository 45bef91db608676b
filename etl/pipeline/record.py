"""What the steps of one run have found and done so far, and the summary that is made of it at the end, however far the run came."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

from etl.errors import DestinationError, ExporterError
from etl.extract.plan import Planned, Reason
from etl.extract.run_tests import Discovered
from etl.load.attempt import Attempt
from etl.load.commit import Arrived
from etl.load.index import Index
from etl.load.last_run import LastRun
from etl.model.lifecycle import KNOWN_EXECUTION
from etl.model.listed_execution import ExecutionList
from etl.model.records import RUNS
from etl.pipeline.engine.counts import Counts
from etl.pipeline.run import Run
from etl.pipeline.run_test_summary import RunTestSummary
from etl.pipeline.summary import Summary
from etl.settings import RunTest
from etl.version import __version__


@dataclass(slots=True)
class VanishedCounts:
    """Stored executions of a run test that no list shows any more: how many exist, could not be looked up, were deleted.

    Of those that exist, ``unfinished`` have not been exported whole.
    """

    not_listed: int
    not_answered: int
    unfinished: int = 0
    deleted: int = 0


@dataclass(slots=True)
class Record:
    """What the steps noted as they went. Mappings are by the key of the run test; what has no value yet has not happened.

    ``listed`` is how many executions each list had when it was read. ``lists`` has the lists that are used; ``failures`` says why
    another run test is left alone, ``unreachable`` those that the source is to blame for, ``not_found`` are keys of those that it
    does not have, ``not_found_by_id`` executions that were gone after they were listed. ``relisted`` are executions that the index
    remembers as deleted and that some list has again, used or not. ``before`` and ``last_attempt`` are what the run before left,
    ``asked_for`` are keys of run tests that are gone and whose executions were all looked up, or accepted as deleted; ``ask_again``
    are keys where some could not be, as ``not_looked_up`` says. ``begun`` is what was fetched of the plan while some list was
    still held up. ``committed`` are execution_ids. ``fetched`` is what all crawls did, ``arrived`` what each commit received.
    ``index`` is that of the files when they were last looked through. ``in_two_lists`` are executions by the keys of two run tests
    that have them.
    """

    run_tests: tuple[RunTest, ...]
    index: Index | None = None
    before: LastRun | None = None
    last_attempt: Attempt | None = None
    ignored: list[str] = field(default_factory=list)
    last_run_error: DestinationError | None = None
    discovered: Discovered | None = None
    quarantined: list[str] = field(default_factory=list)
    completed_files: int = 0
    listed: dict[str, int] = field(default_factory=dict)
    lists: dict[str, ExecutionList] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    in_two_lists: defaultdict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    unreachable: list[str] = field(default_factory=list)
    not_found: set[str] = field(default_factory=set)
    not_found_by_id: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    relisted: set[str] = field(default_factory=set)
    left_behind: dict[str, int] = field(default_factory=dict)
    deleted_elsewhere: dict[str, int] = field(default_factory=dict)
    asked_for: set[str] = field(default_factory=set)
    ask_again: set[str] = field(default_factory=set)
    not_looked_up: list[str] = field(default_factory=list)
    keys_without_run_test: list[str] = field(default_factory=list)
    moved: Counter[str] = field(default_factory=Counter)
    vanished: dict[str, VanishedCounts] = field(default_factory=dict)
    planned: dict[str, list[Planned]] = field(default_factory=dict)
    begun: list[Planned] = field(default_factory=list)
    fetched: Counts = field(default_factory=Counts)
    moved_calls: int = 0
    dropped: int = 0
    committed: set[str] = field(default_factory=set)
    arrived: list[dict[str, Arrived]] = field(default_factory=list)
    necessary_requests: int = 0

    def names(self) -> dict[str, str]:
        """The run tests' names."""
        return {run_test.key: run_test.name for run_test in self.run_tests}

    def listed_ids(self) -> set[str]:
        """The execution_ids of all lists that are used."""
        return {execution_id for found in self.lists.values() for execution_id in found.executions}

    def living_ids(self) -> set[str]:
        """The execution_ids of all lists that are used, and those that are remembered as deleted and stand in any list."""
        return self.listed_ids() | self.relisted

    def complete_before(self) -> set[str]:
        """Keys of the run tests of which a run before left nothing out, from the day on from which they are exported now."""
        if self.before is None:
            return set()
        before = self.before.within({each.key: each.since for each in self.run_tests}, is_all=False)
        return {key for key, at in before.last_complete_at.items() if at}

    def not_listed_before(self, key: str) -> int:
        """How many executions that exist the list of the run test lacked when it was read last."""
        return self.before.not_listed.get(key, 0) if self.before else 0

    def asked_before(self) -> set[str]:
        """Keys that are not exported and whose executions a run before looked up, all of them, or accepted as deleted."""
        return {*self.before.asked_for} if self.before else set()

    def unanswered_before(self) -> set[str]:
        """Keys that are not exported and of whose executions a run before could not look up some."""
        return {*self.before.ask_again} - {each.key for each in self.run_tests} if self.before else set()

    @property
    def gone(self) -> set[str]:
        """Keys of the run tests that the dataset holds or the settings name, and the source does not have."""
        return {*self.keys_without_run_test} | self.not_found

    def all_planned(self) -> Iterator[Planned]:
        """What is planned for all run tests."""
        return chain.from_iterable(self.planned.values())

    def waiting_ids(self) -> set[str]:
        """The execution_ids of those that run at the source, and are not fetched before they have finished."""
        return {item.execution.execution_id for item in self.all_planned() if item.reason is Reason.WAITING}

    def committed_of(self) -> dict[str, set[str]]:
        """The executions that were committed, by the key of their run test."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for item in self.all_planned():
            if (execution_id := item.execution.execution_id) in self.committed:
                found[item.run_test_key].add(execution_id)
        return found

    def not_planned(self, execution_ids: Mapping[str, AbstractSet[str]]) -> dict[str, set[str]]:
        """Those of these executions, by key, with which this run had nothing to do.

        No list has them, or it only waited for them, and they lacked rows before.
        """
        planned = {
            item.execution.execution_id
            for item in (self.all_planned() if execution_ids else ())
            if item.is_fetched or item.stored is None or not item.stored.is_damaged
        }
        return {key: left for key, ids in execution_ids.items() if (left := {*ids} - planned)}

    def note_planned(self, planned: Iterable[Planned]) -> None:
        """This is the plan now."""
        self.planned = {key: [] for key in self.planned}
        for item in planned:
            self.planned[item.run_test_key].append(item)

    def run_test_summaries(self, *, is_cut_short: bool, settled_before: datetime) -> list[RunTestSummary]:
        """Each run test's share of the run; ``is_cut_short``: something ended the run before it had done everything.

        Of what has not changed since ``settled_before``, no change is expected.
        """
        return [
            self._summary_of(run_test, is_cut_short=is_cut_short, settled_before=settled_before)
            for run_test in self.run_tests
        ]

    def _summary_of(self, run_test: RunTest, *, is_cut_short: bool, settled_before: datetime) -> RunTestSummary:
        found, planned = self.lists.get(run_test.key), self.planned.get(run_test.key, [])
        summary = RunTestSummary(
            run_test.name,
            run_test.key,
            listed=self.listed.get(run_test.key, 0),
            is_complete=found is not None and found.is_complete,
            reasons=count_reasons(planned),
            moved=self.moved[run_test.key],
            error=self.failures.get(run_test.key),
        )
        for keys, execution_ids in self.in_two_lists.items():
            if run_test.key in keys:
                other = next(key for key in keys if key != run_test.key)
                summary.shared[self.names().get(other, other)] = len(execution_ids)
        if found is not None:
            summary.unreadable = [*found.unreadable, *(letter.message for letter in found.heads.values())]
        if found is not None and run_test.key in self.planned:
            summary.unknown_statuses = Counter(
                row.status for row in found.executions.values() if row.status not in KNOWN_EXECUTION
            )
            summary.never_fetched = Counter(
                item.execution.status
                for item in planned
                if item.execution.status in summary.unknown_statuses and _has_waited(item, settled_before)
            )
        if (gone := self.vanished.get(run_test.key)) is not None:
            summary.is_compared = True
            summary.deleted, summary.not_listed, summary.not_answered = gone.deleted, gone.not_listed, gone.not_answered
            summary.unfinished = gone.unfinished
        dead_letters: dict[str, frozenset[tuple[str, str]]] = {}
        for arrived in self._arrived_of(run_test.key):
            summary.executions += arrived.rows["executions"]
            summary.calls += arrived.rows["calls"]
            summary.evals += arrived.rows["evals"]
            dead_letters |= arrived.dead_letters
            summary.without_rows += arrived.without_rows
            summary.misfits += arrived.misfits
            summary.unknown_statuses += arrived.unknown_statuses
        summary.dead_letters = sum(map(len, dead_letters.values()))
        summary.doubted = sum(bool(dead_letters[each]) for each in dead_letters.keys() & self.fetched.doubted)
        if is_cut_short:  # otherwise what was planned and never arrived has been deleted since
            left = [item for item in planned if item.execution.execution_id not in self.committed]
            summary.missed = sum(item.is_fetched for item in left)
            if run_test.key not in self.planned or any(is_waiting_row_due(item) for item in left):
                summary.is_complete = False
        return summary

    def resolve(self, key: str, call_ids: Mapping[str, AbstractSet[str]]) -> None:
        """Count those dead letters of this run no more that said of these calls, by execution_id, that they are not listed."""
        for arrived in self._arrived_of(key):
            for execution_id in arrived.dead_letters.keys() & call_ids.keys():
                arrived.dead_letters[execution_id] -= {(RUNS, call_id) for call_id in call_ids[execution_id]}

    def _arrived_of(self, key: str) -> Iterator[Arrived]:
        return (commit[key] for commit in self.arrived if key in commit)


def count_reasons(planned: Iterable[Planned]) -> Counter[str]:
    """How many executions are planned for each reason, in the order of ``Reason``."""
    counts = Counter(item.reason for item in planned)
    return Counter({reason.value: counts[reason] for reason in Reason if counts[reason]})


def _has_waited(item: Planned, since: datetime) -> bool:
    """Whether the execution has waited in vain, as it is now, since then."""
    written_at = item.stored.exported_at if item.stored else None
    is_long = written_at is not None and written_at <= since
    return is_long and item.reason is Reason.WAITING and item.is_waiting_row_current


def is_waiting_row_due(item: Planned) -> bool:
    """Whether the dataset has yet to say that the execution still runs."""
    return item.reason is Reason.WAITING and not item.is_waiting_row_current


def summarize(run: Run, record: Record, *, failure: ExporterError | None, finished_at: datetime) -> Summary:
    """The run as one value; ``failure`` is what ended it early."""
    traffic, discovered = run.client.traffic, record.discovered
    return Summary(
        export_run_id=run.export_run_id,
        version=__version__,
        dataset=run.settings.destination.path,
        started_at=run.by_source(run.started_at),
        finished_at=run.by_source(finished_at),
        finished_here_at=finished_at,
        run_tests=record.run_test_summaries(
            is_cut_short=failure is not None, settled_before=run.settled_before(finished_at)
        ),
        requests_by_purpose=traffic.requests_by_purpose,
        necessary_requests=record.necessary_requests + record.fetched.necessary_requests,
        retries=traffic.retries,
        rejections=traffic.rejections,
        requests_per_minute=run.client.quota.requests_per_minute,
        redactions=traffic.redactions,
        files=run.dataset.written.files,
        size_bytes=run.dataset.written.size_bytes,
        store_requests=dict(run.dataset.files.requests),
        rows=run.dataset.written.rows,
        removed=run.dataset.written.removed,
        receipt=run.dataset.receipt,
        quarantined=record.quarantined,
        completed_files=record.completed_files,
        left_behind=record.left_behind,
        deleted_elsewhere=record.deleted_elsewhere,
        asked_for=sorted(record.asked_for),
        ask_again=sorted(record.ask_again),
        moved_calls=record.moved_calls,
        dropped=record.dropped,
        compared=record.fetched.compared,
        saved_requests=record.fetched.saved_requests,
        listed_differently=record.fetched.listed_differently,
        fetched_whole=record.fetched.fetched_whole,
        why_whole=record.fetched.failure,
        knows_all=discovered is None or discovered.is_complete,
        undiscovered=list(discovered.problems) if discovered else [],
        not_looked_up=record.not_looked_up,
        namesakes=discovered.namesakes if discovered else {},
        unlisted=record.keys_without_run_test,
        failure=failure,
    )
