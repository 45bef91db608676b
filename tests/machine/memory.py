"""What is remembered of earlier nights. It expects nothing: each part of ``expected/`` reads of it what its law needs.

A night may leave things open: a list hid something, rows were damaged, a change was visible in no list. What the laws
may demand of the next nights depends on that, and only on that.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from etl.dataset.last_run import _MOST_OTHERS
from etl.errors import ExitCode
from etl.model.findings import Kind
from etl.model.records import DETAIL, METRICS, RUNS, VOICE_CALLS
from tests.forms import LOST
from tests.machine.dataset import Follower, Rows, is_vouched_for
from tests.machine.source import Source, State

if TYPE_CHECKING:
    from tests.machine.driver import Night

AT_ONCE = 1
"""With so few ``sweep_days``, each run compares every final execution."""
NIGHTS_TO_HEAL = 2
BEGUN = ("incomplete", "listed")
"""In these export states an execution goes on with what was fetched, and is compared in the next night."""


@dataclass(slots=True)
class Memory:
    """What earlier nights, and damage between them, left open."""

    follower: Follower = field(default_factory=Follower)
    """A copy of the dataset that is kept by its feed alone."""
    is_struck: bool = False
    """Something other than an export changed files since a run over everything ended."""
    lost: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)
    """Rows that damage took, by table and key, until a run has ended."""
    hurt: set[str] = field(default_factory=set)
    """Executions of which damage took a row, ever."""
    last_good_state: dict[str, State] = field(default_factory=dict)
    """The source as the last run over everything that ended with 0 found it, as long as nothing came between."""
    healing: dict[str, int] = field(default_factory=dict)
    """Executions of which a list did not show all, and in how many clean nights they must be right."""

    differed_at: dict[str, datetime] = field(default_factory=dict)
    """When the last night began that left an execution other than it was."""
    complete: dict[str, set[str]] = field(default_factory=dict)
    """The keys of the run tests that the last complete run over everything exported, by the scope of its settings."""

    told: Mapping[str, str] = field(default_factory=dict)
    """What the last run said of run tests whose answers changed, by their names; of single executions, ``odd``."""
    odd: Mapping[str, str] = field(default_factory=dict)
    form: str = ""
    """The form that answers had in the last night that judged them."""

    def complete_before(self, night: "Night") -> set[str]:
        """The names of the night's run tests that were complete before: what is new there is no first export."""
        keys = self.complete.get(night.scope, set())
        return {name for name, key in night.keys.items() if key in keys}

    def note_damage(self, before: Rows, after: Rows) -> None:
        """Something other than an export changed files: these rows were there before, and those are left."""
        gone = {
            (table, key): held
            for table, rows in before.tables.items()
            for key, held in rows.items()
            if key not in after.tables[table]
        }
        self.hurt |= {held.row["execution_id"] for held in gone.values()}
        whole = {each for each in before.of if is_vouched_for(before.of[each])}  # of others a loss was told
        self.lost |= {key for key, held in gone.items() if key[0] != "errors" and held.row["execution_id"] in whole}
        self.is_struck = True
        self.last_good_state = {}

    def begin(self, night: "Night") -> None:
        """Take in what a night shows before it is judged."""
        self.follower.follow(night.after)
        if not night.is_complete:
            return
        if night.is_clean and night.is_full:
            seen = night.in_scope
            self.healing = {
                each: nights - (each in seen) for each, nights in self.healing.items() if nights > 1 or each not in seen
            }

    def end(self, source: Source, night: "Night") -> None:
        """Take in what is known from now on, once the night is judged."""
        if night.is_complete and night.is_clean and not told(night, Kind.NOT_COMPARED):
            self._forget_what_was_seen(source, night)
        changed = (each for each, rows in night.after.of.items() if night.before.of.get(each) != rows)
        self.differed_at |= {each: night.began_at for each in changed if night.differs(each)}
        if night.is_full:
            others = [each for each in self.complete.items() if each[0] != night.scope][-_MOST_OTHERS:]
            keys = {*night.keys.values()}
            complete = keys if night.is_complete else keys & self.complete.get(night.scope, set())
            self.complete = dict(others) | {night.scope: complete}
        self.healing |= dict.fromkeys(hidden(source, night), NIGHTS_TO_HEAL)
        if night.options.get("metrics") == "listed":  # what no list has is not missing then, and final without it
            source.unseen |= self.healing.keys()
        # No alarm where a judge never had other words, or where no detail says otherwise: then it is final.
        if source.form == "a verdict" or "settle_by" in night.options:
            source.unseen |= {each.execution_id for test in source.formed for each in test.executions}
        # A call that came back while its list hid it stays marked, and its execution may be final then.
        source.unseen |= {
            each.execution_id for each, call in source.calls() if call.call_execution_id in night.lie.calls
        }
        if night.summary is not None:
            self.form = source.form
            self.told, self.odd = told(night, Kind.ANSWERS_CHANGED), told(night, Kind.ANSWERS_ODD)
        if night.is_full and night.exit_code in (ExitCode.COMPLETE, ExitCode.PARTIAL):
            self.is_struck = False
            self.lost.clear()
        elif night.is_killed or night.exit_code:
            self.lost.clear()  # what becomes of it depends on how far that run came
        if not (night.is_clean and night.is_complete):
            self.last_good_state = {}
            return
        scope = night.in_scope - night.before.in_state(*BEGUN)
        if not night.is_full:  # what it saw of some may be another state
            scope = {each for each, state in self.last_good_state.items() if night.source_after.get(each) == state}
        self.last_good_state = {each: state for each, state in night.source_after.items() if each in scope}

    def _forget_what_was_seen(self, source: Source, night: "Night") -> None:
        """A run that fetched all calls of an execution, or compared its two lists, has seen what changed."""
        listed = {request.query.get("execution_id") for request in night.requests if request.path == RUNS}
        voice = {request.query["test_execution_id"] for request in night.requests if request.path == VOICE_CALLS}
        is_of_no_use = told(night, Kind.ONE_BY_ONE)
        detailed = {request.path.removeprefix(DETAIL).strip("/") for request in night.requests}
        asked = Counter(
            request.query["call_execution_id"]
            for request in night.requests
            if request.path == METRICS and "call_execution_id" in request.query
        )
        scope = night.in_scope
        for execution in source.executions(is_finished=True):
            calls = [each for each in execution.calls if not each.is_deleted]
            has_all = bool(calls) and all(asked[each.call_execution_id] for each in calls)
            rows = [night.after.tables["calls"].get((each.call_execution_id,)) for each in calls]
            is_stored = all(
                row and row.row["cost_stt_cost_cents"] == each.stt_cost_cents
                for row, each in zip(rows, calls, strict=True)
            )
            is_staged = not is_stored and execution.execution_id in source.staged
            of_calls = (set() if is_of_no_use else voice) if is_staged else listed | voice
            is_compared = execution.execution_id in of_calls and (not calls or execution.execution_id in detailed)
            is_seen = night.options.get("full_refresh") or has_all or is_compared
            if execution.execution_id in scope and is_seen:
                source.unseen.discard(execution.execution_id)
                source.staged.discard(execution.execution_id)


def told(night: "Night", kind: Kind) -> dict[str, str]:
    """What a night said of this kind, by run test."""
    return {each.subject: each.text for each in (night.summary.findings if night.summary else ()) if each.kind is kind}


def hidden(source: Source, night: "Night") -> set[str]:
    """Executions of which the answers of this night did not show all, or not where it is declared."""
    is_blind = "settle_by" in night.options  # calls are fetched without a detail
    formed = source.formed_names() if source.form in LOST or is_blind else set[str]()
    return {*night.lie.executions} | {
        each.execution_id
        for each in source.all_executions()
        if each.run_test.name in formed or any(call.call_execution_id in night.lie.calls for call in each.calls)
    }
