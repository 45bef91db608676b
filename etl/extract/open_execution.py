"""An execution whose calls are being fetched: what was planned, what its list showed, what has arrived.

``crawl.py`` opens one for each planned execution, fills it, and turns it into a bundle when everything has arrived. A
call is always known by its call_execution_id. Nothing is requested here.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from etl.errors import SourceError
from etl.extract.call_list import CallList
from etl.extract.plan import Planned
from etl.model.lifecycle import StoredCalls
from etl.model.records import DETAIL, RUNS, CallMetrics, DeadLetter, ExecutionBundle, FetchedCall, ListedCall
from etl.model.values import fields_of
from etl.model.wording import first_few
from etl.transform.voice import differing

_MOST_JUDGES = 3
"""So many calls are tried to confirm what lists show of all."""


@dataclass(slots=True)
class ListedCalls:
    """What the list of an execution's calls has shown, however often it was read."""

    calls: dict[str, ListedCall] = field(default_factory=dict)
    """The calls that it has, without those not found by their ids; of a list of many pages, those of all readings."""
    count: int | None = None
    """As ``CallList.count``, by the last reading; None before it was read."""
    readings: int = 0
    """How often it was read."""
    read_at: float = 0.0
    """When it was read last, by the event loop's clock."""
    lacks_evals: bool = False
    """Its entries have no evals: each call's entry has to be requested by itself."""
    not_found: set[str] = field(default_factory=set)
    """Calls of the last reading that the API does not know by their ids."""
    lagging: set[str] = field(default_factory=set)
    """Calls that were not found after an earlier reading, and that the list had again when it was read since."""
    gone: set[str] = field(default_factory=set)
    """Calls that were not found, and that the list no longer had when it was read since."""

    def take(self, latest: CallList, *, has_entry: AbstractSet[str]) -> None:
        """Take in a reading; calls that ``has_entry`` names keep the entry that came with their evals."""
        calls = dict(latest.calls)
        if latest.lacks_evals:
            calls |= {key: self.calls[key] for key in has_entry & calls.keys()}
        self.readings += 1
        self.lacks_evals = latest.lacks_evals
        self.count = latest.count
        self.lagging = self.not_found & calls.keys()
        self.gone |= self.not_found - calls.keys()
        self.not_found.clear()
        self.calls = calls if self.count is None else self.calls | calls

    @property
    def lags(self) -> bool:
        """Whether calls are not found although the list, read again since, still has them."""
        return not self.not_found.isdisjoint(self.lagging)


@dataclass(slots=True)
class ArrivedCalls:
    """What has arrived of an execution's calls since it was opened, and what of its stored calls stays."""

    metrics: dict[str, CallMetrics] = field(default_factory=dict)
    """The calls that were fetched, or made of the lists, and not handed over yet."""
    shown: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each call, what only the execution's detail shows."""
    unjudged: Mapping[str, CallMetrics] = field(default_factory=dict)
    """Whole metrics that the lists give, until one call's own metrics confirm them; that call comes first."""
    at_hand: dict[str, CallMetrics] = field(default_factory=dict)
    """The metrics of calls whose entries are still to come."""
    kept: frozenset[str] = frozenset()
    """Calls whose stored rows stay, also those that were handed over in parts."""
    amended: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Of kept calls, stored rows that take what the detail shows now."""
    by_lists: dict[str, dict[int, Any]] = field(default_factory=dict)
    """Of each call, what the lists show, as in ``FetchedCall``."""
    detail_fields: frozenset[str] | None = None
    """As in ``ExecutionBundle``."""
    kept_losses: dict[str, int] = field(default_factory=dict)
    """As in ``ExecutionBundle``."""
    kept_has: frozenset[str] = frozenset()
    """As in ``ExecutionBundle``."""
    detailed: AbstractSet[str] | None = None
    """The calls that the execution's detail has; None where the route reads none, or the API has none."""
    no_detail: SourceError | None = None
    """Why calls are missing from the detail."""
    without_evals: frozenset[str] = frozenset()
    """Calls of which the list does not show evals that the detail still shows: they stay as they are stored."""
    keeps_unseen: bool = False
    """Stored calls that are missing from it are kept all the same."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    """Requests that were given up, the detail's apart: about single calls, or about the list where it failed."""
    elsewhere: set[str] = field(default_factory=set)
    """Calls that are listed here, but whose own metrics name another execution, which has them."""
    left_out: set[str] = field(default_factory=set)
    """Calls that are listed, but whose entries cannot be had."""
    is_in_parts: bool = False
    """Calls were handed over before the others had arrived."""

    @property
    def alive(self) -> int:
        """How many calls exist. One that could not be fetched counts: nothing says that it was deleted."""
        return len(self.done)

    @property
    def done(self) -> set[str]:
        """The calls that need no further request."""
        failed = {letter.subject_id for letter in self.dead_letters}
        return {*self.metrics, *self.kept, *self.elsewhere, *self.without_evals, *failed}

    def restrict_to(self, listed: Collection[str]) -> None:
        """Forget what is not in a list that one page showed whole."""
        self.metrics = {key: metrics for key, metrics in self.metrics.items() if key in listed}
        self.dead_letters = [letter for letter in self.dead_letters if letter.subject_id in listed]

    def begin_again(self, *, has_kept: bool) -> None:
        """Forget what arrived: a list of many pages is proved by calls that are found alive after its latest count."""
        self.metrics.clear()
        self.dead_letters.clear()
        self.elsewhere.clear()
        self.left_out.clear()
        if not has_kept:
            self.kept = frozenset()


@dataclass(slots=True, eq=False)
class OpenExecution:
    """An execution whose calls are being fetched."""

    planned: Planned
    """The execution, and by which route its calls are fetched."""
    stored: StoredCalls = field(default_factory=StoredCalls)
    """What the dataset holds of its calls."""
    listed: ListedCalls = field(default_factory=ListedCalls)
    """What its list has shown."""
    arrived: ArrivedCalls = field(default_factory=ArrivedCalls)
    """What has arrived."""
    outstanding: int = 0
    """How many of its calls are queued or under way."""
    unproved: SourceError | None = None
    """Why its list is not proved. It becomes a dead letter, so that the next run reads the list again."""
    deleted: frozenset[str] = frozenset()
    """Stored calls to mark: not found by id, or naming another execution; none if they were not looked up."""

    @property
    def execution_id(self) -> str:
        """Its id."""
        return self.planned.execution.execution_id

    @property
    def living(self) -> set[str]:
        """The stored calls that are not marked."""
        return {key for key, is_deleted in self.stored.calls.items() if not is_deleted}

    def due_first(self, pending: Sequence[str]) -> list[str]:
        """Of the calls that are not there yet, those to fetch at once: of those that lists show whole, only one.

        One that was fetched already does as well.
        """
        arrived = self.arrived
        sampled = arrived.unjudged.keys() & arrived.metrics.keys()
        if arrived.unjudged and not sampled:
            sampled = {next(iter(arrived.unjudged))}
        return [key for key in pending if key not in arrived.unjudged or key in sampled]

    def judge(self) -> tuple[str | None, list[str]]:
        """Take the metrics that the lists give, if the call that was fetched of these has the same by itself.

        If it could not be fetched, the next one is. Then the lists give that one's, too.

        Returns in which columns it differs, empty if in none, or None if none could be fetched yet; and the calls that
        are still to be fetched by their own metrics.
        """
        arrived = self.arrived
        given, arrived.unjudged = arrived.unjudged, {}
        left = {key: metrics for key, metrics in given.items() if key in self.listed.calls and key not in arrived.done}
        sampled = given.keys() & arrived.metrics.keys()
        failed = given.keys() & {letter.subject_id for letter in arrived.dead_letters}
        if not sampled:
            if not left or len(failed) == _MOST_JUDGES:
                return None, [*left]
            arrived.unjudged = given
            return None, [next(iter(left))]
        call = next(call for call in self._fetched_calls() if call.metrics.call_execution_id in sampled)
        key = call.metrics.call_execution_id
        if columns := differing(call, given[key]):
            return f"columns of call {key} ({first_few(columns, shown=3)})", [*left]
        arrived.metrics |= left | {each: given[each] for each in failed}
        arrived.dead_letters = [letter for letter in arrived.dead_letters if letter.subject_id not in failed]
        return "", []

    def is_repeated_by(self, latest: CallList) -> bool:
        """Whether a list of many pages says the same again, although the calls that it names were fetched since."""
        listed = self.listed
        known = listed.calls.keys() | listed.gone | listed.not_found
        is_same = latest.count == listed.count and latest.calls.keys() == known
        return is_same and listed.count is not None and 0 < len(listed.calls) <= self.arrived.alive

    def take_list(self, latest: CallList) -> list[str]:
        """Take in a list that was just read; returns the calls that are still to be fetched."""
        self.unproved = latest.unreadable or self.unproved
        self.listed.take(latest, has_entry=self.arrived.metrics.keys() | self.arrived.kept)
        if latest.count is None:
            self.arrived.restrict_to(latest.calls)
        else:
            self.arrived.begin_again(has_kept=self.planned.route.keeps_fetched)
        done = self.arrived.done
        return [key for key in self.listed.calls if key not in done]

    def take_arrived(self) -> ExecutionBundle:
        """What has arrived since this was called last, as a bundle of its own; from now on these calls are ``kept``."""
        arrived = self.arrived
        part = structs.replace(
            self.bundle_without_calls(),
            listed=tuple(self.listed.calls[key] for key in arrived.metrics),
            calls=self._fetched_calls(),
            detail_fields=arrived.detail_fields,
            part_of=len(self.listed.calls),
        )
        arrived.kept |= arrived.metrics.keys()
        arrived.metrics.clear()
        arrived.is_in_parts = True
        return part

    def cut_short(self) -> ExecutionBundle:
        """What is known of it, and nothing of its calls.

        Where a part was handed over, its row vouches for what is stored by then.
        """
        bundle = self.bundle_without_calls()
        return structs.replace(bundle, listed=()) if self.arrived.is_in_parts else bundle

    def bundle_without_calls(self) -> ExecutionBundle:
        """The execution and its dead letters; nothing is said of its calls."""
        planned = self.planned
        unproved = DeadLetter.of(RUNS, self.execution_id, self.unproved) if self.unproved else None
        return ExecutionBundle(
            run_test_name=planned.run_test_name,
            run_test_key=planned.run_test_key,
            execution=planned.execution.unpack(),
            dead_letters=(
                *self.arrived.dead_letters,
                *self._letters_of_detail(),
                *self._letters_of_evals(),
                *filter(None, (unproved, planned.unreadable)),
            ),
        )

    def _letters_of_detail(self) -> list[DeadLetter]:
        """A dead letter for each listed call that is missing from the detail, or one for the execution if all are."""
        arrived = self.arrived
        if arrived.detailed is None:
            return []
        missing = self.listed.calls.keys() - arrived.detailed - arrived.elsewhere
        if missing and not arrived.detailed:
            missing = {self.execution_id}
        failure = arrived.no_detail or SourceError(f"detail of execution {self.execution_id} is missing a listed call")
        return [DeadLetter.of(DETAIL, subject, failure) for subject in sorted(missing)]

    def _letters_of_evals(self) -> Iterator[DeadLetter]:
        """A dead letter for each call of which the list does not show all evals."""
        for key in sorted(self.arrived.without_evals):
            error = SourceError(f"the list of calls is missing evals of call {key} that the execution's detail shows")
            yield DeadLetter.of(RUNS, key, error)

    def bundle(self) -> ExecutionBundle:
        """All that is known of it."""
        arrived = self.arrived
        absent = arrived.left_out | arrived.elsewhere | arrived.without_evals
        kept = arrived.kept & self.listed.calls.keys()
        return structs.replace(
            self.bundle_without_calls(),
            listed=tuple(call for key, call in self.listed.calls.items() if key not in absent),
            calls=self._fetched_calls(),
            kept=kept,
            amended=tuple(row for key, row in arrived.amended.items() if key in kept),
            **fields_of(arrived, "detail_fields", "kept_losses", "kept_has", "keeps_unseen"),
            deleted=self.deleted,
            lacks_evals=self.listed.lacks_evals,
        )

    def _fetched_calls(self) -> tuple[FetchedCall, ...]:
        shown, by_lists = self.arrived.shown, self.arrived.by_lists
        return tuple(
            FetchedCall(
                listed=self.listed.calls[key], metrics=metrics, shown=shown.get(key, {}), by_lists=by_lists.get(key, {})
            )
            for key, metrics in self.arrived.metrics.items()
        )
