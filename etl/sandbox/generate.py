"""Generate a world that makes realistic charts, and let time pass in it.

Owns the agents, when their executions start (fewer at weekends), how their calls end, and when the first run test got
worse; the values of a call are drawn in ``measures``. Pure: the same ``rng`` and arguments give the same world. The
order in which numbers are drawn is part of that: a new draw changes every world, and with them the demo's pictures.
"""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

from etl.sandbox.measures import LONGEST_CALL_SECONDS, measure
from etl.sandbox.world import (
    TERMINAL_STATUSES,
    EvalConfig,
    Profile,
    Scenario,
    SimulatedCall,
    SimulatedExecution,
    SimulatedRunTest,
    World,
    add_run_test,
    touch_call,
)

AGENTS = (
    ("Checkout flow", Profile(latency_median_ms=1150.0, duration_median_seconds=120.0, pass_rate=0.93)),
    ("Support triage", Profile(latency_median_ms=1650.0, duration_median_seconds=170.0, pass_rate=0.86)),
    ("Refund chat", Profile(is_chat=True, latency_median_ms=1400.0, duration_median_seconds=95.0, pass_rate=0.89)),
    ("Appointment booking", Profile(latency_median_ms=980.0, duration_median_seconds=90.0, pass_rate=0.95)),
    ("Card dispute hotline", Profile(latency_median_ms=2100.0, duration_median_seconds=230.0, pass_rate=0.81)),
    ("Order status chat", Profile(is_chat=True, latency_median_ms=900.0, duration_median_seconds=60.0, pass_rate=0.96)),
)
SCENARIOS = (
    "Refund, angry caller",
    "Changes the delivery address",
    "Billing question",
    "Cancels the subscription",
    "Does not hear well",
    "Switches the language",
    "Forgot the order number",
)
EVALS = (("Caller Sentiment", "choices"), ("Tone Score", "score"), ("Task Completion", "Pass/Fail"))
UNFINISHED = ("running", "evaluating", "pending", "cancelling")
CALL_STATUS_WEIGHTS = {
    "pending": {"pending": 100},
    "running": {"completed": 45, "analyzing": 12, "ongoing": 13, "queued": 10, "pending": 20},
    "evaluating": {"completed": 70, "failed": 5, "analyzing": 25},
    "cancelling": {"completed": 40, "ongoing": 20, "cancelled": 40},
    "cancelled": {"completed": 40, "failed": 5, "cancelled": 55},
    "failed": {"completed": 45, "failed": 55},
    "completed": {"completed": 950, "failed": 35, "cancelled": 15},
}
WEEKEND_SHARE = 0.3
PROGRESS = timedelta(minutes=15)


def make_world(  # noqa: PLR0913 all but rng and end have defaults, and a user sets one or two
    rng: Random,
    *,
    end: datetime,
    run_tests: int = 3,
    executions: int = 20,
    calls: int = 30,
    calls_spread: int = 0,
    days: int = 30,
    names: Sequence[str] | None = None,
    include_unfinished: bool = True,
) -> World:
    """A world of the ``days`` days before ``end``, with randomness from ``rng`` alone.

    Each execution has ``calls`` calls, plus or minus ``calls_spread``. ``names`` are those of the run tests, in place
    of invented ones for so many ``run_tests``; a name may occur twice. With ``include_unfinished``, the two newest
    executions of each run test have not finished. The first run test gets worse after 70 % of the days.
    """
    if names is None:
        names = [_agent_name(number) for number in range(run_tests)]
    world = World(organization_id=new_id(rng))
    templates = {name: new_id(rng) for name, _ in EVALS}
    for number, name in enumerate(names):
        regression_at = end - timedelta(days=0.3 * days) if number == 0 else None
        profile = replace(AGENTS[number % len(AGENTS)][1], regression_at=regression_at)
        created_at = end - timedelta(days=days + 1) + timedelta(minutes=number)
        run_test = new_run_test(rng, name, created_at, profile, templates)
        add_run_test(world, run_test)
        unfinished = min(2, executions) if include_unfinished else 0
        for order, start in enumerate(_starts(rng, executions - unfinished, end, days)):
            size = max(0, calls + rng.randint(-calls_spread, calls_spread))
            status = {7: "failed", 13: "cancelled"}.get((order + 5 * number) % 16, "completed")
            add_execution(world, run_test, rng, start, size, status=status)
        for order in reversed(range(unfinished)):
            status = UNFINISHED[(2 * number + order) % len(UNFINISHED)]
            start = end - timedelta(seconds=rng.uniform(960, 1100) + 300 * order)
            size = max(0, calls + rng.randint(-calls_spread, calls_spread))
            add_execution(world, run_test, rng, start, size, status=status)
    return world


def settled_world(rng: Random, now: datetime, *, run_tests: int, executions: int, calls: int) -> World:
    """A world in which everything ended at least two days before the latest Friday: it is the same all week."""
    end = latest_friday(now) - timedelta(days=2)
    return make_world(rng, end=end, run_tests=run_tests, executions=executions, calls=calls, include_unfinished=False)


def latest_friday(now: datetime) -> datetime:
    """15:00 UTC of the latest Friday: times are drawn by hour and weekday."""
    friday = (now - timedelta(days=(now.weekday() - 4) % 7)).replace(hour=15, minute=0, second=0, microsecond=0)
    return friday if friday <= now else friday - timedelta(weeks=1)


def new_run_test(
    rng: Random, name: str, created_at: datetime, profile: Profile, templates: dict[str, str] | None = None
) -> SimulatedRunTest:
    """A run test with the usual evals and scenarios, without executions; ``templates`` are template ids by eval."""
    templates = templates or {name: new_id(rng) for name, _ in EVALS}
    return SimulatedRunTest(
        run_test_id=new_id(rng),
        name=name,
        created_at=created_at,
        description="Chat agent" if profile.is_chat else "Voice agent",
        profile=profile,
        eval_configs=[
            EvalConfig(new_id(rng), name, output_type, templates[name], name.lower().replace(" ", "_"))
            for name, output_type in EVALS
        ],
        scenarios=[Scenario(new_id(rng), name) for name in SCENARIOS],
    )


def add_execution(
    world: World, run_test: SimulatedRunTest, rng: Random, now: datetime, calls: int, *, status: str = "completed"
) -> SimulatedExecution:
    """A new execution, created at ``now``. If ``status`` is a final one, it ended about 20 minutes after ``now``."""
    started_at = now + timedelta(seconds=1)
    execution = SimulatedExecution(
        execution_id=new_id(rng),
        run_test=run_test,
        status="pending",
        created_at=now,
        started_at=started_at,
        total_calls=calls,
        agent_version="v2" if run_test.profile.is_regressed(now) else "v1",
        calls=[
            SimulatedCall(
                call_execution_id=new_id(rng),
                scenario=run_test.scenarios[number % len(run_test.scenarios)],
                status="pending",
                updated_at=started_at + timedelta(milliseconds=number),
            )
            for number in range(calls)
        ],
    )
    run_test.executions.append(execution)
    world.index_execution(execution)
    took = timedelta(seconds=rng.uniform(1100, 1400)) if status in TERMINAL_STATUSES else PROGRESS
    _advance(execution, rng, now + took, status)
    return execution


def finish_execution(execution: SimulatedExecution, rng: Random, now: datetime) -> None:
    """Let an execution complete at ``now``: all its calls get a terminal status and its values."""
    _advance(execution, rng, now, "completed")


def new_id(rng: Random) -> str:
    """A new UUID, drawn from ``rng``."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _agent_name(number: int) -> str:
    round_, agent = divmod(number, len(AGENTS))
    return f"{AGENTS[agent][0]} {round_ + 1}" if round_ else AGENTS[agent][0]


def _starts(rng: Random, count: int, end: datetime, days: int) -> list[datetime]:
    """Start times, oldest first: most in office hours, few at weekends, all early enough to finish before ``end``."""
    starts: list[datetime] = []
    while len(starts) < count:
        start = end - timedelta(seconds=rng.uniform(1800, max(3600, days * 86400)))
        weight = (WEEKEND_SHARE if start.weekday() >= 5 else 1.0) * (1.0 if 7 <= start.hour < 19 else 0.4)
        if rng.random() < weight:
            starts.append(start)
    return sorted(starts)


def _advance(execution: SimulatedExecution, rng: Random, at: datetime, status: str) -> None:
    """Let the execution reach ``status`` at ``at``; each call that is not terminal gets a status that fits it."""
    weights = CALL_STATUS_WEIGHTS[status]
    spread = max(5.0, (at - execution.started_at).total_seconds() - LONGEST_CALL_SECONDS - 10)
    for call in execution.calls:
        if call.status in TERMINAL_STATUSES:
            continue
        call.status = rng.choices(list(weights), list(weights.values()))[0]
        ended_at = at - timedelta(seconds=rng.uniform(5.0, min(spread, 450.0)))
        measure(execution.run_test, call, rng, ended_at)
        if call.status != "pending":
            touch_call(call, ended_at + (at - ended_at) * rng.uniform(0.2, 0.9))
    execution.status = status
    execution.error_reason = "The simulation stopped: its worker was lost." if status == "failed" else None
    execution.completed_at = at if status in TERMINAL_STATUSES else None
    statuses = [call.status for call in execution.calls]
    execution.completed_calls, execution.failed_calls = statuses.count("completed"), statuses.count("failed")
