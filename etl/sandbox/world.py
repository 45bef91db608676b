"""The sandbox's world: run tests, executions and calls, and the changes that they can undergo.

Owns the records, the order in which the API lists them, and the changes that need no invented values; the others are in
``generate``. Pure: clocks, ids and randomness are parameters. Timestamps are aware UTC datetimes, ids are UUID strings.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

TERMINAL_STATUSES = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """One eval of a run test, and the template that it was made from."""

    config_id: str
    """The key of its outputs in ``SimulatedCall.eval_outputs``."""
    name: str
    output_type: str
    """``Pass/Fail``, ``score`` or ``choices``."""
    template_id: str
    template_name: str
    model: str | None = None
    """The language model that judges."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario that the simulated customer plays."""

    scenario_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Profile:
    """How an agent behaves: the parameters for drawing a run test's values."""

    is_chat: bool = False
    """Whether it chats; otherwise it speaks."""
    latency_median_ms: float = 1500.0
    duration_median_seconds: float = 140.0
    pass_rate: float = 0.9
    """The share of calls that solve their task, from 0 to 1."""
    regression_at: datetime | None = None
    """When it got slower and worse; None for never."""

    def is_regressed(self, at: datetime) -> bool:
        """Whether it was slower and worse then: that is version 2 of the agent."""
        return self.regression_at is not None and at >= self.regression_at


@dataclass(slots=True, kw_only=True)
class SimulatedCall:
    """One simulated call. Every measure is None until the call has been measured."""

    call_execution_id: str
    scenario: Scenario
    status: str
    updated_at: datetime
    """When it was saved last: calls are listed by it."""
    is_chat: bool = False
    """Whether it is a chat beside voice calls; where all are chats, the profile of their run test says it."""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    ended_reason: str | None = None
    agent_version: str | None = None
    call_summary: str | None = None
    duration_seconds: float | None = None
    overall_score: float | None = None
    avg_agent_latency_ms: float | None = None
    response_time_ms: float | None = None
    system_metrics: dict[str, Any] | None = None
    """An open-ended object of the voice provider."""
    total_cost_cents: float | None = None
    stt_cost_cents: float | None = None
    llm_cost_cents: float | None = None
    tts_cost_cents: float | None = None
    cost_breakdown: dict[str, Any] | None = None
    """An open-ended object of the provider, in dollars."""
    user_wpm: float | None = None
    bot_wpm: float | None = None
    talk_ratio: float | None = None
    user_interruption_count: float | None = None
    user_interruption_rate: float | None = None
    ai_interruption_count: float | None = None
    ai_interruption_rate: float | None = None
    avg_stop_time_after_interruption_ms: float | None = None
    chat_metrics: dict[str, Any] | None = None
    tool_outputs: dict[str, Any] | None = None
    eval_outputs: dict[str, Any] = field(default_factory=dict)
    """By ``EvalConfig.config_id``."""
    rerun_snapshots: list[dict[str, Any]] = field(default_factory=list)
    """What it was before each rerun, newest first."""
    is_deleted: bool = False


MEASURES = tuple(attribute.name for attribute in fields(SimulatedCall) if attribute.default is None)
"""The fields of a call that its measurement sets, and that a rerun clears."""
CONVERSATION = MEASURES[MEASURES.index("user_wpm") : MEASURES.index("chat_metrics")]
"""What a voice provider reports, too: the fields of a call from ``user_wpm`` to the one before ``chat_metrics``. The
execution's detail shows all but the last under the same name.
"""


@dataclass(slots=True, kw_only=True)
class SimulatedExecution:
    """One execution of a run test."""

    execution_id: str
    run_test: "SimulatedRunTest" = field(repr=False, compare=False)
    status: str
    created_at: datetime
    started_at: datetime
    completed_at: datetime | None = None
    total_calls: int = 0
    """As the other two counters, stored as on the real server: deleting a call does not change it."""
    completed_calls: int = 0
    failed_calls: int = 0
    agent_version: str | None = None
    """The name of the agent's version; None where the execution has none, and is shown with the newest one."""
    error_reason: str | None = None
    calls: list[SimulatedCall] = field(default_factory=list)
    is_deleted: bool = False


@dataclass(slots=True, kw_only=True)
class SimulatedRunTest:
    """One run test."""

    run_test_id: str
    name: str
    """Not unique."""
    created_at: datetime
    description: str = ""
    profile: Profile = field(default_factory=Profile)
    eval_configs: list[EvalConfig] = field(default_factory=list)
    scenarios: list[Scenario] = field(default_factory=list)
    executions: list[SimulatedExecution] = field(default_factory=list)


@dataclass
class World:
    """Everything that an organization has, indexed by id.

    Add run tests with ``add_run_test``, and index each execution that is added to one of them (``index_execution``).
    Other changes are made to the records directly, such as a new name or ``is_deleted``. Requests for what is deleted
    get a 404; but as on the real server, the calls of a deleted execution can still be had by their ids, and an
    execution's aggregates count its deleted calls.
    """

    organization_id: str
    run_tests: list[SimulatedRunTest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._executions: dict[str, SimulatedExecution] = {}
        self._calls: dict[str, tuple[SimulatedExecution, SimulatedCall]] = {}
        for run_test in self.run_tests:
            for execution in run_test.executions:
                self.index_execution(execution)

    def execution(self, execution_id: str) -> SimulatedExecution | None:
        """The execution with this id, or None if there is none or it was deleted."""
        execution = self._executions.get(execution_id)
        return None if execution is None or execution.is_deleted else execution

    def call(self, call_execution_id: str) -> tuple[SimulatedExecution, SimulatedCall] | None:
        """The call with this id and its execution, or None if there is none or it was deleted; its execution may be."""
        found = self._calls.get(call_execution_id)
        return None if found is None or found[1].is_deleted else found

    def run_test(self, run_test_id: str) -> SimulatedRunTest | None:
        """The run test with this id, or None."""
        return next((run_test for run_test in self.run_tests if run_test.run_test_id == run_test_id), None)

    def run_tests_named(self, name: str) -> list[SimulatedRunTest]:
        """All run tests with exactly this name."""
        return [run_test for run_test in self.run_tests if run_test.name == name]

    def index_execution(self, execution: SimulatedExecution) -> None:
        """Make the execution and its calls known by their ids."""
        self._executions[execution.execution_id] = execution
        self._calls.update((call.call_execution_id, (execution, call)) for call in execution.calls)


def listable_executions(world: World, name: str) -> list[SimulatedExecution]:
    """The executions of all run tests of this name, as the API lists them: newest created first."""
    executions = (execution for run_test in world.run_tests_named(name) for execution in run_test.executions)
    listable = (execution for execution in executions if not execution.is_deleted)
    return sorted(listable, key=lambda execution: execution.created_at, reverse=True)


def listable_calls(execution: SimulatedExecution) -> list[SimulatedCall]:
    """The execution's calls as the API lists them: last updated first."""
    listable = (call for call in execution.calls if not call.is_deleted)
    return sorted(listable, key=lambda call: call.updated_at, reverse=True)


def add_run_test(world: World, run_test: SimulatedRunTest) -> None:
    """Add a run test with its executions."""
    world.run_tests.append(run_test)
    for execution in run_test.executions:
        world.index_execution(execution)


def rerun_execution(execution: SimulatedExecution, now: datetime) -> None:
    """Run a finished execution again: its calls keep their ids and lose their values, of which a snapshot stays."""
    execution.status = "running"
    execution.completed_at = None
    execution.completed_calls = execution.failed_calls = 0
    for number, call in enumerate(execution.calls):
        snapshot = {name: getattr(call, name) for name in ("status", *MEASURES, "eval_outputs")}
        snapshot["conversation_metrics_data"] = snapshot.pop("chat_metrics")
        call.rerun_snapshots = [{"snapshot_timestamp": now.isoformat(), **snapshot}, *call.rerun_snapshots]
        for measure in MEASURES:
            setattr(call, measure, None)
        call.eval_outputs = {}
        call.status = "pending"
        touch_call(call, now + timedelta(microseconds=number))


def touch_call(call: SimulatedCall, now: datetime) -> None:
    """Save a call without another change: it is then listed first."""
    call.updated_at = now
