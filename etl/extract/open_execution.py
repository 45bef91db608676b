"""An execution whose calls are being fetched: what its lists showed, what was fetched, what is missing. Requests nothing."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from etl.errors import SourceError
from etl.extract.call_list import CallList
from etl.extract.plan import Planned
from etl.model.records import METRICS, CallMetrics, DeadLetter, ExecutionBundle, FetchedCall, ListedCall
from etl.transform.detail import is_as_measured


@dataclass(slots=True, eq=False)
class OpenExecution:
    """An execution whose calls are being fetched; calls are by call_execution_id.

    ``round`` is how often its list was read. ``count`` is what the list counted after it was read, None when it fits one page.
    ``gone`` are calls that were listed and then not found. ``must_relist``: one of them is missing from the latest list's calls.
    ``left_out`` are calls that are listed, but name another execution, or whose entry in the list cannot be had; ``kept`` are those
    whose stored rows stay. ``lacks_evals``: each call's entry has to be requested by itself.
    ``unreadable_calls`` says how many calls the list cannot give, ``doubt`` why it is not believed, ``stored`` are the calls that
    the dataset holds, with the configs of their evals, ``detailed`` those that the execution's detail names and the list does not;
    those that the list leaves out and of which no row was ever there are ``rowless``. ``rows`` are the stored rows of the calls,
    read when a list comes without evals; ``changed`` are the calls whose metrics say something else. ``outstanding`` calls are
    queued or under way. ``listed_at`` is when the list was read, by the event loop. ``is_in_parts``: what had arrived of it was
    taken.
    """

    planned: Planned
    stored: Mapping[str, AbstractSet[str]] = field(default_factory=dict)
    rowless: AbstractSet[str] = frozenset()
    detailed: AbstractSet[str] = frozenset()
    rows: Mapping[str, Sequence[Any]] | None = None
    changed: set[str] = field(default_factory=set)
    doubt: DeadLetter | None = None
    round: int = 0
    listed: dict[str, ListedCall] = field(default_factory=dict)
    count: int | None = None
    fetched: dict[str, CallMetrics] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    left_out: set[str] = field(default_factory=set)
    kept: frozenset[str] = frozenset()
    must_relist: bool = False
    lacks_evals: bool = False
    unreadable_calls: DeadLetter | None = None
    is_in_parts: bool = False
    outstanding: int = 0
    listed_at: float = 0.0

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

    @property
    def execution_id(self) -> str:
        """Its id."""
        return self.planned.execution.execution_id

    @property
    def with_evals(self) -> Mapping[str, ListedCall]:
        """The listed calls of which the evals are known."""
        return self.arrived if self.lacks_evals else self.listed

    @property
    def arrived(self) -> Mapping[str, ListedCall]:
        """The listed calls that need not be fetched any more."""
        return {key: call for key, call in self.listed.items() if key in self.fetched or key in self.kept}

    @property
    def alive(self) -> int:
        """How many of its calls exist. One that could not be fetched counts: nothing says that it was deleted."""
        return len(self.fetched) + len(self.kept) + len(self.dead_letters)

    def changed_calls(self) -> AbstractSet[str]:
        """``changed``, with those of the calls that were fetched since it was asked last.

        Where it can be told of some, those of which it cannot, since they failed or have no row, are no reason for a doubt either.
        """
        rows = self.rows or {}
        self.changed |= {
            call.metrics.call_execution_id
            for call in self._fetched_calls()
            if (row := rows.get(call.metrics.call_execution_id)) is not None and not is_as_measured(call, row)
        }
        told = rows.keys() & (self.fetched.keys() | self.kept)
        return self.changed | (self.stored.keys() - told) if told else self.changed

    def is_repeated_by(self, latest: CallList) -> bool:
        """Whether a list of many pages says the same again, although the calls that it names were fetched since."""
        is_same = latest.count == self.count and latest.calls.keys() == self.listed.keys() | self.gone
        return is_same and self.count is not None and self.alive > 0

    def take_list(self, latest: CallList) -> list[str]:
        """Take in a list that was just read; returns the calls that are still to be fetched."""
        self.round += 1
        self.must_relist = False
        self.lacks_evals = latest.lacks_evals
        if latest.unreadable:
            self.unreadable_calls = latest.unreadable
        else:
            self.count = latest.count
        calls, done = dict(latest.calls), self._done()
        if latest.lacks_evals:
            # What is not fetched again must keep the entry that has its evals.
            calls |= {key: call for key, call in self.listed.items() if key in calls and key in done}
        if self.unreadable_calls:
            # Rows that cannot be read: there is no proof to be had, so every call that any read has shown is fetched once.
            self.listed |= calls
        elif self.count is None:
            # One page: this read is the list. What an earlier read had and this one does not was deleted since.
            self.listed = calls
            self.fetched = {key: call for key, call in self.fetched.items() if key in self.listed}
            self.dead_letters = [each for each in self.dead_letters if each.subject_id in self.listed]
            self.left_out |= self.gone if self.lacks_evals else set()
            for key in self.gone & self.listed.keys():
                contradiction = SourceError(f"call {key}: listed, but its metrics are not found", status=404)
                self.dead_letters.append(DeadLetter.of(METRICS, key, contradiction))
        else:
            # Many pages: only what is found alive after the latest count proves it, so every call is fetched again.
            self.listed |= calls
            self.fetched.clear()
            self.dead_letters.clear()
            self.left_out.clear()
            self.kept = frozenset()
        done = self._done()
        return [key for key in self.listed if key not in done]

    def _fetched_calls(self) -> tuple[FetchedCall, ...]:
        return tuple(FetchedCall(listed=self.listed[key], metrics=metrics) for key, metrics in self.fetched.items())

    def _done(self) -> set[str]:
        """Calls that need no request any more."""
        return self.fetched.keys() | self.kept | {letter.subject_id for letter in self.dead_letters}

    def bundle(self, *, is_listed: bool = True) -> ExecutionBundle:
        """All that is known of it; unless ``is_listed``, nothing is said of its calls."""
        planned = self.planned
        bundle = ExecutionBundle(
            run_test_name=planned.run_test_name,
            run_test_key=planned.run_test_key,
            execution=planned.execution.unpack(),
            dead_letters=(
                *self.dead_letters,
                *filter(None, (self.unreadable_calls, self.doubt, planned.unreadable)),
            ),
        )
        if not is_listed:
            return bundle
        return structs.replace(
            bundle,
            listed=tuple(call for key, call in self.listed.items() if key not in self.left_out),
            calls=self._fetched_calls(),
            kept=self.kept & self.listed.keys(),
        )
