"""An execution whose calls are being fetched: what its lists showed, what was fetched, what is missing. Requests nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from etl.extract.call_list import CallList
from etl.extract.plan import Planned
from etl.model.lifecycle import StoredCalls
from etl.model.records import RUNS, CallMetrics, DeadLetter, ExecutionBundle, FetchedCall, ListedCall


@dataclass(slots=True, eq=False)
class OpenExecution:
    """An execution whose calls are being fetched; calls are by call_execution_id.

    ``stored`` is what the dataset holds of it. ``round`` is how often the list was read. ``count`` is what the list counted after
    it was read, None when one page showed it whole. ``not_found`` are listed calls that the API does not know by their ids. Once
    the list was read again, those of before are ``lagging`` if it still had them, else ``gone``. ``deleted`` calls are to be
    marked, the stored rows of ``kept`` ones stay. ``elsewhere`` calls are listed, but their metrics name another execution, which
    has them. ``left_out`` are listed, but their entries cannot be had;
    ``lacks_evals``: each call's entry has to be requested by itself. ``unproved`` says why the list does not count. ``outstanding``
    calls are queued or under way. ``listed_at`` is when the list was read, by the event loop. ``is_in_parts``: what had arrived of
    it was taken. ``shown`` is what the detail alone has of calls, ``at_hand`` are metrics that it has of calls whose entries are
    still to come. ``lacking`` and ``amended`` as in the bundle, by call.
    """

    planned: Planned
    stored: StoredCalls = field(default_factory=StoredCalls)
    round: int = 0
    listed: dict[str, ListedCall] = field(default_factory=dict)
    count: int | None = None
    fetched: dict[str, CallMetrics] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    not_found: set[str] = field(default_factory=set)
    lagging: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    deleted: frozenset[str] = frozenset()
    elsewhere: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)
    kept: frozenset[str] = frozenset()
    at_hand: Mapping[str, CallMetrics] = field(default_factory=dict)
    amended: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    shown: dict[str, dict[str, Any]] = field(default_factory=dict)
    lacking: Mapping[str, int] = field(default_factory=dict)
    lacks_evals: bool = False
    unproved: DeadLetter | None = None
    is_in_parts: bool = False
    outstanding: int = 0
    listed_at: float = 0.0

    @property
    def execution_id(self) -> str:
        """Its id."""
        return self.planned.execution.execution_id

    @property
    def alive(self) -> int:
        """How many of its calls exist. One that could not be fetched counts: nothing says that it was deleted."""
        return len(self.fetched) + len(self.kept) + len(self.elsewhere) + len(self.dead_letters)

    @property
    def living(self) -> set[str]:
        """The stored calls that are not marked."""
        return {key for key, is_deleted in self.stored.calls.items() if not is_deleted}

    def is_repeated_by(self, latest: CallList) -> bool:
        """Whether a list of many pages says the same again, although the calls that it names were fetched since."""
        known = self.listed.keys() | self.gone | self.not_found
        is_same = latest.count == self.count and latest.calls.keys() == known
        return is_same and self.count is not None and 0 < len(self.listed) <= self.alive

    @property
    def lags(self) -> bool:
        """Whether calls are not found although the list, read again since, still has them."""
        return not self.not_found.isdisjoint(self.lagging)

    def take_list(self, latest: CallList) -> list[str]:
        """Take in a list that was just read; returns the calls that are still to be fetched."""
        self.round += 1
        self.lacks_evals = latest.lacks_evals
        self.count = latest.count
        if latest.unreadable:
            self.unproved = DeadLetter.of(RUNS, self.execution_id, latest.unreadable)
        calls = dict(latest.calls)
        self.lagging = self.not_found & calls.keys()
        self.gone |= self.not_found - calls.keys()
        self.not_found.clear()
        if latest.lacks_evals:
            # What is not fetched again must keep the entry that has its evals.
            calls |= {key: self.listed[key] for key in (self.fetched.keys() | self.kept) & calls.keys()}
        if self.count is None:
            self.listed = calls
            self.fetched = {key: call for key, call in self.fetched.items() if key in calls}
            self.dead_letters = [each for each in self.dead_letters if each.subject_id in calls]
        else:
            self.listed |= calls
            # Only what is found alive after the latest count proves a list of many pages, so every call is fetched again.
            self.fetched.clear()
            self.dead_letters.clear()
            self.elsewhere.clear()
            self.left_out.clear()
            if not self.planned.is_resumed:
                self.kept = frozenset()
        done = self.fetched.keys() | self.kept | self.elsewhere | {letter.subject_id for letter in self.dead_letters}
        return [key for key in self.listed if key not in done]

    def take_arrived(self) -> ExecutionBundle:
        """What has arrived since it was asked last, as a bundle of its own; from now on these calls are ``kept``."""
        arrived = structs.replace(
            self.bundle(is_listed=False),
            listed=tuple(self.listed[key] for key in self.fetched),
            calls=self._fetched_calls(),
            part_of=len(self.listed),
        )
        self.kept |= self.fetched.keys()
        self.fetched.clear()
        self.is_in_parts = True
        return arrived

    def cut_short(self) -> ExecutionBundle:
        """What is known of it, and nothing of its calls; where a part was taken its row vouches for what is stored by then."""
        bundle = self.bundle(is_listed=False)
        return structs.replace(bundle, listed=()) if self.is_in_parts else bundle

    def bundle(self, *, is_listed: bool = True) -> ExecutionBundle:
        """All that is known of it; unless ``is_listed``, nothing is said of its calls."""
        planned = self.planned
        bundle = ExecutionBundle(
            run_test_name=planned.run_test_name,
            run_test_key=planned.run_test_key,
            execution=planned.execution.unpack(),
            dead_letters=(*self.dead_letters, *filter(None, (self.unproved, planned.unreadable))),
        )
        if not is_listed:
            return bundle
        return structs.replace(
            bundle,
            listed=tuple(call for key, call in self.listed.items() if key not in self.left_out | self.elsewhere),
            calls=self._fetched_calls(),
            kept=self.kept & self.listed.keys(),
            amended=tuple(row for key, row in self.amended.items() if key in self.kept & self.listed.keys()),
            lacking=self.lacking,
            deleted=self.deleted,
            lacks_evals=self.lacks_evals,
        )

    def _fetched_calls(self) -> tuple[FetchedCall, ...]:
        return tuple(
            FetchedCall(listed=self.listed[key], metrics=metrics, shown=self.shown.get(key, {}))
            for key, metrics in self.fetched.items()
        )
