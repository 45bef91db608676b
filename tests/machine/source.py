"""The source of a history: what it has, what happens to it, what it shows wrongly, and what the settings say of it."""

import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from operator import attrgetter
from typing import Any

import msgspec

from etl.model.keys import default_key
from etl.model.records import DETAIL, METRICS, RUNS, VOICE_CALLS
from etl.sandbox import Fault, Sandbox, SandboxRequest, World
from etl.sandbox.dispatch import HTML_404, answer_to, not_found
from etl.sandbox.generate import add_execution, finish_execution, make_world
from etl.sandbox.world import SimulatedCall, SimulatedExecution, SimulatedRunTest, listable_executions, rerun_execution
from tests.e2e.truth import outputs_of
from tests.forms import FILLED, LOST, OF_SOME_CALLS, VOICE_LISTS, formed, in_rows, lie
from tests.machine.in_process import BASE_URL
from tests.support import poison_details
from tests.worlds import CALL_STATUSES, EXECUTION_STATUSES, add_late_data, add_mixed_execution

SETTLE = timedelta(hours=24)
FINISHED = ("completed", "failed", "cancelled")
NAMES = ("Checkout", "Support", "Refund", "Billing")

State = tuple[str, bool, tuple[Any, ...], tuple[Any, ...]]
"""Of an execution: the name of its run test, whether it is deleted, and everything else, its calls last."""
Hook = Callable[[SandboxRequest, int], Fault | None]

_of_execution = attrgetter(
    *(
        each.name
        for each in fields(SimulatedExecution)
        if each.name not in ("execution_id", "run_test", "calls", "is_deleted")
    )
)
call_state = attrgetter(*(each.name for each in fields(SimulatedCall) if each.name != "updated_at"))
"""Whatever an export can see of a call."""

_KEYS = {"X-Api-Key": "sandbox-key", "X-Secret-Key": "sandbox-secret"}

ODD = "Maybe"
"""A verdict that is none."""
FORMS = {name: (concerns, edit) for name, (concerns, edit, _) in LOST.items() if name != OF_SOME_CALLS} | FILLED
"""Not one of which a night's calls may have few: these are no alarm, and stay null."""

NOT_A_DETAIL = (
    Fault(status=404, body=HTML_404),
    Fault(status=403, body=b'{"status": false, "message": "Forbidden"}'),
    Fault(status=400, body=b'{"status": false, "message": "Unknown field."}'),
    Fault(status=500, body=b'{"status": false, "message": "Failed to retrieve test execution."}'),
    Fault(status=200, body=b"<html>Welcome</html>"),
    Fault(status=200, body=b'{"id": "x", "calls": []}'),
    Fault(edit=lambda body: body.replace(b'"cost_cents"', b'"price_cents"')),
)


@dataclass(slots=True)
class Entry:
    """A configured run test, as the settings call it; None for the key is the default."""

    run_test: SimulatedRunTest
    name: str
    key: str | None = None
    is_exported: bool = True

    @property
    def partition(self) -> str:
        return self.key or default_key(self.name)


@dataclass(frozen=True, slots=True)
class Lie:
    """What lists do not show for a night although the source has it, and answers for its id."""

    executions: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()


class Source:
    """The world and its clock.

    ``unseen`` are executions of which something changed that no list of executions shows, and that may have been final
    then: the sweep finds it. ``staged`` are those of which only a list of voice calls shows it. ``deleted`` are run
    tests that are gone from the list of them; the API still has their executions by their ids. ``fault`` is what the
    server does wrong until further notice, ``lie`` what its lists do not show.
    ``struck`` counts the answers that were not as they should be, ``struck_lists`` those but of details. ``form`` names
    the form in which the API gives values of the run tests that are ``formed``, if it is another one than it was.
    """

    def __init__(self, rng: random.Random, *, is_all: bool) -> None:
        self.rng, self.is_all = rng, is_all
        self.now = datetime(2026, 11, 1, 12, tzinfo=UTC)
        self.world = make_world(
            rng,
            end=self.now - rng.choice((0, 2, 2)) * SETTLE,
            names=NAMES[: rng.randint(1, 3)],
            executions=rng.choice((0, 1, 2, 3, 4, 6)),
            calls=(calls := rng.choice((0, 1, 2))),
            calls_spread=calls,
            days=2,
        )
        self.entries = [Entry(run_test, run_test.name) for run_test in self.world.run_tests]
        self.server = Sandbox(self.world, fault=self._answer)
        self.fault: Hook | None = None
        self.lie = Lie()
        self.ahead = timedelta(0)
        self.delays: random.Random | None = None
        self.struck = self.struck_lists = 0
        self.deleted: list[SimulatedRunTest] = []
        self.forgotten: set[str] = set()
        """Executions that the server still has, and that nobody expects anything of: their owner forgot them."""
        self.unseen: set[str] = set()
        self.staged: set[str] = set()
        self.poisoned: dict[str, dict[str, Any] | None] = {}
        self.undetailed: set[str] = set()
        """Calls that make each page of their execution's detail a 500."""
        self.nameless: set[str] = set()
        """Executions of which a fetch may change rows although nothing else tells: a score has changed, which only the
        detail shows."""
        self.form = ""
        self.formed: list[SimulatedRunTest] = []
        self.tells_chats = rng.random() < 0.7
        """Details say which calls are chats."""

    # what it has

    def executions(self, *, is_finished: bool | None = None) -> list[SimulatedExecution]:
        return [
            each
            for run_test in self.world.run_tests
            for each in run_test.executions
            if not each.is_deleted and is_finished in (None, each.status in FINISHED)
            if each.execution_id not in self.forgotten
        ]

    def calls(
        self, among: Iterable[SimulatedExecution] | None = None
    ) -> list[tuple[SimulatedExecution, SimulatedCall]]:
        found = self.executions() if among is None else among
        return [(each, call) for each in found if not each.is_deleted for call in each.calls if not call.is_deleted]

    def all_executions(self) -> list[SimulatedExecution]:
        """Those that were deleted, and those of run tests that were deleted, too."""
        return [each for each in self.everything() if each.execution_id not in self.forgotten]

    def everything(self) -> list[SimulatedExecution]:
        """The forgotten ones, too."""
        return [each for test in (*self.world.run_tests, *self.deleted) for each in test.executions]

    def state(self) -> dict[str, State]:
        """Whatever an export can see of each execution; a call that was touched is seen as before."""
        return {
            each.execution_id: (
                each.run_test.name,
                each.is_deleted,
                _of_execution(each),
                tuple(map(call_state, each.calls)),
            )
            for each in self.all_executions()
        }

    def listed(self) -> dict[str, str]:
        """The executions that lists show now, lies included, each with the name of its run test."""
        return {
            each.execution_id: each.run_test.name
            for each in self.executions()
            if each.execution_id not in self.lie.executions
        }

    # what it answers

    def _answer(self, request: SandboxRequest, nth: int) -> Fault | None:
        found = (self.fault and self.fault(request, nth)) or self._lying(request)
        found = found or poison_details(self.server, self.undetailed)(request, nth)
        self.struck += found is not None
        self.struck_lists += found is not None and not request.path.startswith(DETAIL)
        if self.form and FORMS[self.form][0](request) and self._names_of(request) & self.formed_names():
            found = replace(found or Fault(), edit=self._in_form(found))
        if not self.tells_chats and request.path.startswith(DETAIL):
            edit = found.edit if found and found.edit else bytes
            found = replace(found or Fault(), edit=lambda body: edit(body).replace(b"simulation_call_type", b"kind"))
        if self.ahead:
            date = format_datetime(datetime.now(UTC) - self.ahead, usegmt=True)
            found = replace(found or Fault(), headers={**(found.headers if found else {}), "Date": date})
        if self.delays is not None:
            found = replace(found or Fault(), delay_seconds=self.delays.choice((0, 0.1, 3, 20)))
        return found

    def _lying(self, request: SandboxRequest) -> Fault | None:
        """The answer of a world that lacks what the lie hides; ids and aggregates are answered by the true one."""
        if self.lie.executions and "run_test_name" in request.query:
            tests = [
                replace(
                    test, executions=[each for each in test.executions if each.execution_id not in self.lie.executions]
                )
                for test in self.world.run_tests
            ]
        elif self.lie.calls and (request.path in (RUNS, VOICE_CALLS) or request.path.startswith(DETAIL)):
            ids = (request.query.get(name) for name in ("execution_id", "test_execution_id"))
            execution_id = next(filter(None, ids), request.path.removeprefix(DETAIL).strip("/"))
            if (execution := self.world.execution(execution_id)) is None:
                return None
            calls = [each for each in execution.calls if each.call_execution_id not in self.lie.calls]
            tests = [replace(execution.run_test, executions=[replace(execution, calls=calls)])]
        else:
            return None
        answer = answer_to(World("", tests), request, _KEYS, BASE_URL, self.server._rules)
        return Fault(status=answer.status, body=answer.body)

    def _in_form(self, found: Fault | None) -> Callable[[bytes], bytes]:
        """What makes an answer that of the form, after whatever else is wrong with it."""
        edit = found.edit if found and found.edit else bytes
        return lambda body: formed(edit(body), FORMS[self.form][1])

    def _names_of(self, request: SandboxRequest) -> set[str]:
        """The run tests that a request is about, by what it names."""
        ids = {*request.query.values(), request.path.removeprefix(DETAIL).strip("/")}
        of_calls = {each.run_test.name for each, call in self.calls() if call.call_execution_id in ids}
        return ids | of_calls | {each.run_test.name for each in self.all_executions() if each.execution_id in ids}

    def formed_names(self) -> set[str]:
        """The names of the run tests that have the form."""
        return {each.name for each in self.formed} if self.form else set()

    # what happens to it

    def begin(
        self,
        run_test: SimulatedRunTest,
        calls: int,
        *,
        is_finished: bool,
        age: timedelta = timedelta(0),
        chats: int = 0,
    ) -> SimulatedExecution:
        """A new execution; one with an ``age`` is backfilled. One with ``chats`` is finished."""
        if chats:
            return add_mixed_execution(self.world, run_test, self.rng, self.now - age, calls, chats=chats)
        status = "completed" if is_finished else "running"
        execution = add_execution(self.world, run_test, self.rng, self.now - age, calls, status=status)
        if not age:
            self.now += timedelta(minutes=30)
        return execution

    def finish(self, execution: SimulatedExecution, status: str = "completed") -> None:
        self._give_a_start(execution)
        finish_execution(execution, self.rng, self.now)
        execution.status = status

    def rerun(self, execution: SimulatedExecution) -> None:
        self._give_a_start(execution)
        rerun_execution(execution, self.now)

    def _give_a_start(self, execution: SimulatedExecution) -> None:
        started_at: datetime | None = execution.started_at
        execution.started_at = execution.created_at if started_at is None else started_at

    def give_odd_verdict(self, execution: SimulatedExecution, call: SimulatedCall) -> None:
        """An eval that should say Passed or Failed says something else."""
        for config_id, output in outputs_of(call).items():
            if isinstance(output, dict) and output.get("output_type") == "Pass/Fail":
                self.change_unseen(execution)
                call.eval_outputs = call.eval_outputs | {config_id: output | {"output": ODD}}

    def odd_verdicts(self) -> set[str]:
        """The executions with a verdict that is none."""
        return {
            each.execution_id
            for each, call in self.calls()
            if any(isinstance(output, dict) and output.get("output") == ODD for output in outputs_of(call).values())
        }

    def change_unseen(self, execution: SimulatedExecution) -> None:
        """Something is about to change that no list of executions shows; what has settled is found by the sweep."""
        if execution.completed_at is None or self.now - execution.completed_at >= SETTLE:
            self.unseen.add(execution.execution_id)

    def lose_times(self, execution: SimulatedExecution) -> None:
        execution.started_at = execution.completed_at = None  # type: ignore[assignment]

    def come_late(self, execution: SimulatedExecution) -> None:
        self.change_unseen(execution)
        add_late_data(execution, self.rng, self.now)

    def delete_call(self, execution: SimulatedExecution, call: SimulatedCall) -> None:
        self.change_unseen(execution)
        call.is_deleted = True

    def delete_eval(self, execution: SimulatedExecution, call: SimulatedCall) -> None:
        self.change_unseen(execution)
        call.eval_outputs = dict(list(call.eval_outputs.items())[1:])

    def hold(self, execution: SimulatedExecution, call: SimulatedCall) -> None:
        self.change_unseen(execution)
        call.status = "on_hold"

    def poison(self, call: SimulatedCall) -> None:
        """A fractional token count turns every page of the list that holds its execution into a 500."""
        if call.call_execution_id not in self.poisoned:
            self.poisoned[call.call_execution_id] = call.chat_metrics
            call.chat_metrics = {**(call.chat_metrics or {}), "total_tokens": 12.5}

    def is_poisoned(self, execution: SimulatedExecution) -> bool:
        return any(call.call_execution_id in self.poisoned for call in execution.calls)

    def give_odd_eval(self, execution: SimulatedExecution, call: SimulatedCall) -> None:
        """An output of a type that the server cannot sum up: from now on it refuses to list the execution's calls."""
        self.change_unseen(execution)
        for config in execution.run_test.eval_configs[:1]:
            output = {"name": config.name, "output": 0.5, "output_type": "numeric", "reason": "r"}
            call.eval_outputs = call.eval_outputs | {config.config_id: output}

    def fail_details(self, seed: int, share: float) -> None:
        """The details of this share of the executions cannot be had, each for its own reason; nothing else fails."""

        def fail(request: SandboxRequest, _nth: int) -> Fault | None:
            rng = random.Random(f"{seed} {request.path}")
            return rng.choice(NOT_A_DETAIL) if request.path.startswith(DETAIL) and rng.random() < share else None

        self.fault = fail

    def fail_voice_lists(self, seed: int, share: float) -> None:
        """The lists of voice calls of this share of the executions are wrong, each in its own way; nothing else is."""

        def fail(request: SandboxRequest, _nth: int) -> Fault | None:
            rng = random.Random(f"{seed} {request.query.get('test_execution_id')}")
            is_wrong = request.path == VOICE_CALLS and rng.random() < share
            return rng.choice([*VOICE_LISTS.values()]) if is_wrong else None

        self.fault = fail

    def lie_in_a_cell(self, execution: SimulatedExecution, call: SimulatedCall) -> None:
        """One cell of one call is wrong in the list of voice calls: it is taken, unless that call is fetched."""
        self.unseen.add(execution.execution_id)
        edit = in_rows(lambda row: lie(row) if row["id"] == call.call_execution_id else None)
        fault = Fault(edit=lambda body: formed(body, edit))
        self.fault = lambda request, _nth: fault if request.path == VOICE_CALLS else None

    def come_between(self, name: str, *, deletes_at: int) -> None:
        """An execution begins after the server has counted a list, and before it reads the rows of its first page.

        So the page is cut to the old count. One of those that it had may be deleted before the nth of the requests that
        follow.
        """
        seen = 0

        def fail(request: SandboxRequest, _nth: int) -> Fault | None:
            nonlocal seen
            if request.query.get("run_test_name") != name:
                return None
            seen += 1
            listed = listable_executions(self.world, name)
            if seen == deletes_at and len(listed) > 1:
                listed[1].is_deleted = True
            if seen > 1 or not listed:
                return None
            self.begin(listed[0].run_test, 1, is_finished=True)
            answer = answer_to(self.world, request, _KEYS, BASE_URL, self.server._rules)
            body = msgspec.json.decode(answer.body)
            if answer.status == 200:
                body["result"] |= {"count": len(listed), "results": body["result"]["results"][: len(listed)]}
                limit = int(request.query["limit"])
                body["result"]["total_pages"] = -(-len(listed) // min(limit, self.server._rules.max_limit or limit))
            return Fault(status=answer.status, body=msgspec.json.encode(body))

        self.fault = fail

    def lag(self, ids: Collection[str]) -> None:
        """The metrics of these calls are not found, unless lists lie, too: who is told so twice believes it."""
        body = msgspec.json.encode(not_found("Call execution"))

        def fail(request: SandboxRequest, _nth: int) -> Fault | None:
            is_lagging = request.path == METRICS and request.query.get("call_execution_id") in ids
            return Fault(status=404, body=body) if is_lagging and self.lie == Lie() else None

        self.fault = fail

    def heal(self) -> None:
        self.undetailed.clear()
        for execution in self.everything():
            for call in execution.calls:
                if call.call_execution_id in self.poisoned:
                    healthy = self.poisoned.pop(call.call_execution_id)
                    if (call.chat_metrics or {}).get("total_tokens") == 12.5:
                        call.chat_metrics = healthy

    def follow(self) -> None:
        """The settings name each run test as the source does."""
        for entry in self.entries:
            entry.name = entry.run_test.name

    def configured(self) -> list[Entry]:
        """The entries of the settings, one per name: to name one twice is an error; or one per name that there is."""
        if self.is_all:
            return [Entry(each, each.name) for each in {each.name: each for each in self.world.run_tests}.values()]
        return list({entry.name: entry for entry in reversed(self.entries) if entry.is_exported}.values())

    def calm_down(self) -> None:
        """Faults end, the settings name what there is, everything finishes, what is left of deleted run tests goes."""
        self.fault, self.lie, self.ahead, self.delays, self.form = None, Lie(), timedelta(0), None, ""
        self.server._rules = replace(self.server._rules, max_limit=None)
        self.heal()
        self.follow()
        for entry in self.entries:
            entry.is_exported = True
        for test in self.deleted:
            for execution in test.executions:
                execution.is_deleted = True
        for execution in self.executions():
            for call in execution.calls:
                for config_id, output in outputs_of(call).items():
                    if isinstance(output, dict) and output.get("output") == ODD:
                        self.unseen.add(execution.execution_id)
                        call.eval_outputs = call.eval_outputs | {config_id: output | {"output": "Passed"}}
                if call.status not in CALL_STATUSES:
                    call.status = "completed"
                    self.unseen.add(execution.execution_id)
            if execution.status not in FINISHED:
                self.finish(execution)


def has_unknown_status(execution: SimulatedExecution) -> bool:
    return execution.status not in EXECUTION_STATUSES
