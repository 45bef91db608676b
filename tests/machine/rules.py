"""What may happen in a history. Each rule takes the history and its own random numbers, which pick to whom and how.

So a step is a name and a number, and means much the same when others are taken away before it.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from etl import sandbox
from etl.files.names import INDEX
from etl.model.records import DETAIL
from etl.sandbox import Fault, SandboxRequest, generate
from etl.sandbox.dispatch import HTML_404
from etl.sandbox.world import (
    SimulatedCall,
    SimulatedExecution,
    SimulatedRunTest,
    add_run_test,
    listable_calls,
    touch_call,
)
from tests.machine.dataset import is_marked
from tests.machine.driver import History
from tests.machine.in_process import Death
from tests.machine.memory import AT_ONCE
from tests.machine.source import FINISHED, FORMS, NAMES, Entry, Lie
from tests.support import cap_pages

T = TypeVar("T")
Rule = Callable[[History, random.Random], None]

RULES: dict[str, tuple[float, Rule]] = {}
"""By name: how often it happens, and what."""

KEYS = (None, "alpha", "beta", "gamma")


def rule(weight: float) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        RULES[function.__name__] = (weight, function)
        return function

    return add


def some(rng: random.Random, among: list[T]) -> list[T]:
    """One of them; now and then several, all but one, or all."""
    if not among:
        return []
    number = rng.choice((1, 1, 1, 2, 3, len(among) - 1, len(among)))
    return rng.sample(among, min(max(1, number), len(among)))


@rule(1)
def forget(history: History, rng: random.Random) -> None:
    """The owner forgets executions, which may be killed, or calls that the source no longer has."""
    marked = [key[0] for key, held in history.rows.tables["calls"].items() if is_marked(held.row)]
    if marked and rng.random() < 0.5:
        history.forget(calls=some(rng, sorted(marked)))
    elif history.rows.executions:
        executions = some(rng, sorted(history.rows.executions))
        history.forget(executions=executions, death=rng.choice((None, Death(rng.randrange(9)))))


# the source


@rule(4)
def begin(history: History, rng: random.Random) -> None:
    run_test = rng.choice(history.source.world.run_tests)
    history.source.begin(run_test, rng.randint(0, 5), is_finished=rng.random() < 0.6)


@rule(1)
def backfill(history: History, rng: random.Random) -> None:
    """An execution of long ago appears."""
    run_test = rng.choice(history.source.world.run_tests)
    history.source.begin(run_test, rng.randint(0, 4), is_finished=True, age=timedelta(days=rng.choice((2, 20, 40))))


@rule(2)
def voice_and_chats(history: History, rng: random.Random) -> None:
    """An execution of both: one of just now, or of long ago. It has calls that the list of voice calls lacks."""
    run_test, age = rng.choice(history.source.world.run_tests), timedelta(days=rng.choice((0, 2, 20)))
    history.source.begin(run_test, rng.randint(2, 4), is_finished=True, age=age, chats=rng.randint(1, 2))
    history.source.now += timedelta(minutes=30)


@rule(2)
def finish(history: History, rng: random.Random) -> None:
    for execution in some(rng, history.source.executions(is_finished=False))[:2]:
        history.source.finish(execution, rng.choice(FINISHED))


@rule(2)
def rerun(history: History, rng: random.Random) -> None:
    for execution in some(rng, history.source.executions(is_finished=True))[:2]:
        history.source.rerun(execution)


@rule(1)
def release(history: History, rng: random.Random) -> None:
    """From now on, a run test tests another version of its agent."""
    run_test = rng.choice(history.source.world.run_tests)
    run_test.profile = replace(run_test.profile, regression_at=history.source.now)


@rule(0.3)
def archive(history: History, rng: random.Random) -> None:
    for execution in some(rng, history.source.executions(is_finished=True))[:1]:
        execution.status = "archived"


@rule(0.3)
def lose_times(history: History, rng: random.Random) -> None:
    for execution in some(rng, history.source.executions(is_finished=True))[:1]:
        history.source.lose_times(execution)


@rule(4)
def delete_executions(history: History, rng: random.Random) -> None:
    among = history.source.executions()
    if rng.random() < 0.5 and among:  # those of one run test
        run_test = rng.choice(among).run_test
        among = [each for each in among if each.run_test is run_test]
    for execution in some(rng, among):
        execution.is_deleted = True


def _calls(history: History, rng: random.Random) -> list[tuple[SimulatedExecution, SimulatedCall]]:
    """Calls of one execution."""
    executions = [each for each in history.source.executions() if history.source.calls([each])]
    return some(rng, history.source.calls([rng.choice(executions)])) if executions else []


@rule(4)
def delete_calls(history: History, rng: random.Random) -> None:
    for execution, call in _calls(history, rng):
        history.source.delete_call(execution, call)


@rule(1.5)
def delete_evals(history: History, rng: random.Random) -> None:
    for execution, call in _calls(history, rng):
        history.source.delete_eval(execution, call)


@rule(2)
def late_data(history: History, rng: random.Random) -> None:
    for execution in some(rng, history.source.executions())[:2]:
        history.source.come_late(execution)


@rule(0.5)
def touch(history: History, rng: random.Random) -> None:
    for _, call in _calls(history, rng):
        touch_call(call, history.source.now)


@rule(0.5)
def poison(history: History, rng: random.Random) -> None:
    for _, call in _calls(history, rng)[:1]:
        history.source.poison(call)


@rule(0.4)
def hold(history: History, rng: random.Random) -> None:
    for execution, call in _calls(history, rng)[:1]:
        history.source.hold(execution, call)


@rule(0.4)
def odd_eval(history: History, rng: random.Random) -> None:
    for execution, call in _calls(history, rng)[:1]:
        history.source.give_odd_eval(execution, call)


@rule(2)
def rename(history: History, rng: random.Random) -> None:
    run_test = rng.choice(history.source.world.run_tests)
    run_test.name = rng.choice(NAMES)
    if rng.random() < 0.5:
        history.source.follow()


def _made_anew(history: History, rng: random.Random, old: SimulatedRunTest) -> SimulatedRunTest:
    """A new run test of the same name, with executions or without; the settings mean this one from now on."""
    source = history.source
    new = generate.new_run_test(source.rng, old.name, source.now, old.profile)
    add_run_test(source.world, new)
    for _ in range(rng.choice((0, 1, 2))):
        source.begin(new, rng.randint(0, 3), is_finished=rng.random() < 0.8)
    source.now += timedelta(minutes=30)
    for entry in source.entries:
        entry.run_test = new if entry.run_test is old else entry.run_test
    return new


@rule(1.5)
def clone(history: History, rng: random.Random) -> None:
    """A run test gets another name, and another one takes its name; the settings may name both from now on."""
    run_tests = history.source.world.run_tests
    if len(run_tests) > len(NAMES):
        return
    old = rng.choice(run_tests)
    _made_anew(history, rng, old)
    old.name = rng.choice((f"{old.name} old", *NAMES))
    if rng.random() < 0.3:
        history.source.entries.append(Entry(old, old.name))


@rule(1)
def swap(history: History, rng: random.Random) -> None:
    """Two run tests swap their names; the settings may name one of them from now on, or have named one before."""
    run_tests, entry = history.source.world.run_tests, _entry(history, rng)
    if len(run_tests) > 1:
        one, other = rng.sample(run_tests, 2)
        one.name, other.name = other.name, one.name
        entry.is_exported = rng.random() < 0.5


@rule(1)
def replace_all_executions(history: History, rng: random.Random) -> None:
    """Those of one run test are deleted, or the run test with them, and new ones are made under the same name."""
    source = history.source
    run_test = rng.choice(source.world.run_tests)
    if rng.random() < 0.5:
        _made_anew(history, rng, run_test)
        source.world.run_tests.remove(run_test)
        source.deleted.append(run_test)
    else:
        for execution in run_test.executions:
            execution.is_deleted = True
        for _ in range(rng.choice((0, 1, 2))):
            source.begin(run_test, rng.randint(0, 3), is_finished=True)


@rule(0.5)
def delete_run_test(history: History, rng: random.Random) -> None:
    run_tests = history.source.world.run_tests
    if history.source.is_all and len(run_tests) > 1:
        history.source.deleted.append(run_tests.pop(rng.randrange(len(run_tests))))


@rule(0.5)
def new_run_test(history: History, rng: random.Random) -> None:
    source, run_tests = history.source, history.source.world.run_tests
    if source.is_all and len(run_tests) < len(NAMES):
        name = rng.choice(NAMES)
        add_run_test(source.world, generate.new_run_test(source.rng, name, source.now, run_tests[0].profile))
        source.now += timedelta(minutes=30)  # as after a new execution: what is new costs a second look


@rule(1)
def first_night_of_short_lists(history: History, rng: random.Random) -> None:
    """A run test is new, its executions ended long ago, and for a night their lists lack calls."""
    source = history.source
    known = len(source.world.run_tests)
    new_run_test(history, rng)
    for run_test in source.world.run_tests[known:]:
        for _ in range(2):
            source.begin(run_test, rng.randint(2, 4), is_finished=True, age=timedelta(days=20))
        calls = [call.call_execution_id for execution in run_test.executions for call in execution.calls]
        source.lie = Lie(calls=_hide(rng, calls))
        history.night()
        source.lie = Lie()


@rule(4)
def time_passes(history: History, rng: random.Random) -> None:
    history.source.now += timedelta(hours=rng.choice((1, 12, 23, 25, 25, 72)))


@rule(0.7)
def pages_are_capped(history: History, rng: random.Random) -> None:
    cap_pages(history.source.server, rng.choice((None, 1, 3, 7)))


@rule(0.8)
def requests_fail(history: History, rng: random.Random) -> None:
    history.source.fault = sandbox.random_faults(rng, rng.choice((0.05, 0.2, 0.5, 1.0)))


@rule(0.5)
def details_fail(history: History, rng: random.Random) -> None:
    history.source.fail_details(rng.randrange(99), rng.choice((0.4, 1.0)))


@rule(0.8)
def voice_lists_fail(history: History, rng: random.Random) -> None:
    history.source.fail_voice_lists(rng.randrange(99), rng.choice((0.4, 1.0)))


@rule(1)
def night_of_a_voice_list_that_lies_in_a_cell(history: History, rng: random.Random) -> None:
    fault = history.source.fault
    for execution, call in _calls(history, rng)[:1]:
        history.source.lie_in_a_cell(execution, call)
    history.night(**_options(rng))
    history.source.fault = fault


@rule(1.5)
def stages_change(history: History, rng: random.Random) -> None:
    """What a stage of a call costs comes late, alone: only a list of voice calls shows it, and not beside chats."""
    for execution, call in _calls(history, rng):
        if execution.run_test.profile.is_chat or any(each.is_chat or each.chat_metrics for each in execution.calls):
            continue
        call.stt_cost_cents = rng.randrange(100)
        history.source.unseen.add(execution.execution_id)
        history.source.staged.add(execution.execution_id)


@rule(1)
def details_are_poisoned(history: History, rng: random.Random) -> None:
    history.source.undetailed |= {call.call_execution_id for _, call in _calls(history, rng)}


@rule(1)
def nights_without_details(history: History, rng: random.Random) -> None:
    """Those of an execution that ran again, too, and of a new run test, whose executions ended long ago."""
    source, known = history.source, len(history.source.world.run_tests)
    for execution in some(rng, source.executions(is_finished=True))[:1]:
        source.rerun(execution)
        source.finish(execution)
    new_run_test(history, rng)
    for run_test in source.world.run_tests[known:]:
        source.begin(run_test, rng.randint(1, 4), is_finished=True, age=timedelta(days=20))
    fault, failure = source.fault, Fault(status=rng.choice((404, 500, 502)), body=HTML_404)
    source.fault = lambda request, _nth: failure if request.path.startswith(DETAIL) else None
    for _ in range(rng.choice((1, 1, 4))):
        history.night(**_options(rng))
        source.now += timedelta(hours=rng.choice((12, 25)))
    source.fault = fault


@rule(2)
def scores_change(history: History, rng: random.Random) -> None:
    """Only the detail shows them."""
    for execution, call in _calls(history, rng):
        call.overall_score = rng.randint(0, 100) / 10
        history.source.nameless.add(execution.execution_id)


@rule(0.5)
def one_subject_fails(history: History, rng: random.Random) -> None:
    endpoint = rng.choice(("metrics", "runs"))
    if found := history.source.calls():
        execution, call = rng.choice(found)
        subject = call.call_execution_id if endpoint == "metrics" else execution.execution_id

        def fail(request: SandboxRequest, _nth: int) -> Fault | None:
            return Fault(status=500) if endpoint in request.path and subject in request.target else None

        history.source.fault = fail


@rule(0.5)
def replica_lags(history: History, rng: random.Random) -> None:
    """Lists have some calls whose ids the API does not know yet."""
    history.source.lag({call.call_execution_id for _, call in some(rng, history.source.calls())})


@rule(3)
def something_is_fixed(history: History, rng: random.Random) -> None:
    history.source.fault = None
    if rng.random() < 0.6:
        history.source.heal()
    if rng.random() < 0.6:
        history.source.follow()


# the settings


def _entry(history: History, rng: random.Random) -> Entry:
    return rng.choice(history.source.entries)


@rule(0.7)
def another_key(history: History, rng: random.Random) -> None:
    entry, key = _entry(history, rng), rng.choice(KEYS)
    holder = next((each for each in history.source.entries if key and each.key == key), entry)
    holder.key, entry.key = entry.key, key


@rule(0.7)
def leave_out_or_take_in(history: History, rng: random.Random) -> None:
    entry = _entry(history, rng)
    entry.is_exported = not entry.is_exported


# the dataset


@rule(0.8)
def damage_a_file(history: History, rng: random.Random) -> None:
    table = rng.choice(("calls", "calls", "evals", "executions", "errors", "runs"))
    if not (found := [path for path in sorted(history.store.content) if path.startswith(f"{table}/")]):
        return
    path = rng.choice(found)
    data = history.store.content[path][1]
    match rng.choice(("drop", "drop", "cut", "empty", "garbage", "flip")):
        case "cut":
            history.damage(path, data[: len(data) // 2])
        case "empty":
            history.damage(path, b"")
        case "garbage":
            history.damage(path, rng.randbytes(len(data)))
        case "flip" if len(data) >= 12:
            history.damage(path, data[:-12] + bytes([data[-12] ^ 0xFF]) + data[-11:])
        case _:
            history.damage(path, None)


def _spoil_index(history: History, rng: random.Random) -> None:
    content = history.store.content.get(INDEX, (0, b""))[1]
    spoiled = (None, content[: rng.randrange(500)], rng.randbytes(300), *history.indexes)
    history.store.put(INDEX, rng.choice(spoiled))


@rule(1.5)
def night_without_index(history: History, rng: random.Random) -> None:
    """It is a cache: whatever becomes of it, a night leaves the rows that it would have left (L3)."""
    if history.memory.is_struck or history.source.fault is not None:
        return
    nights = history.twice(lambda: _spoil_index(history, rng), **_options(rng))
    if nights is not None:
        with_it, without = nights
        assert with_it.exit_code == without.exit_code, "L3: without the index a night ends otherwise"
        for table, rows in with_it.after.tables.items():
            kept, found = (
                {key: {**held.row, "export_run_id": None, "verified_at": None} for key, held in each.items()}
                for each in (rows, without.after.tables[table])
            )
            assert kept == found, f"L3: {table} differ without the index"


# the runs


def _options(rng: random.Random) -> dict[str, Any]:
    """Those of most nights are the usual ones."""
    if rng.random() < 0.5:
        return {}
    every: dict[str, Any] = {
        "page_limit": rng.choice((1, 2, 4, 16)),
        "sweep_days": rng.choice((0, AT_ONCE)),
        "full_refresh": True,
        "accept_deletions": True,
        "calls": "all",
        "commit_interval_seconds": 1e-6,
        "settle_by": "refetch",
        "metrics": rng.choice(("listed", "calls")),
        "requests_per_minute": 1,  # so that lists come first
    }
    return {name: every[name] for name in sorted(every) if rng.random() < 0.2}


@rule(14)
def night(history: History, rng: random.Random) -> None:
    history.night(**_options(rng))


@rule(1)
def night_with_a_wrong_clock(history: History, rng: random.Random) -> None:
    history.source.ahead = timedelta(days=rng.choice((1, 365)))
    history.night(**_options(rng))
    history.source.ahead = timedelta(0)


@rule(1.5)
def night_of_one_run_test(history: History, rng: random.Random) -> None:
    if configured := history.source.configured():
        history.night(only=rng.choice(configured), **_options(rng))


@rule(1)
def night_of_other_settings(history: History, rng: random.Random) -> None:
    """Another settings file exports into the dataset: that makes a status neither fresh nor stale (L9)."""
    entries, before = history.source.entries, history.freshness()
    if history.source.is_all or before is None:
        return
    others = rng.sample(entries, rng.randint(1, len(entries)))
    for _ in range(2):
        for each in others:
            each.is_exported = not each.is_exported
        if history.scope() not in (None, before[0]):
            history.night(death=rng.choice((None, Death(rng.randrange(20)))), **_options(rng))
    assert history.freshness() == before, "L9: what others export makes a status fresh or stale"


@rule(5)
def night_is_killed(history: History, rng: random.Random) -> None:
    nth = rng.choice((rng.randrange(4), rng.randrange(20)))
    history.night(death=Death(nth, is_after=rng.random() < 0.5), **_options(rng))


@rule(0.6)
def night_overlaps(history: History, rng: random.Random) -> None:
    history.night(overlap_at=rng.choice(("run_started", "planned", "committed")))


@rule(1.2)
def slow_night(history: History, rng: random.Random) -> None:
    """Each answer takes its time, what has arrived is saved meanwhile, and the run may end before it is done."""
    history.source.delays = random.Random(rng.randrange(99))
    options: dict[str, Any] = {"commit_interval_seconds": rng.choice((1e-6, 30)), "minutes": rng.choice((None, 1, 3))}
    options |= rng.choice(({}, {"full_refresh": True}, {"sweep_days": AT_ONCE}))
    history.night(**{name: value for name, value in options.items() if value})
    history.source.delays = None


def _hide(rng: random.Random, ids: list[str]) -> frozenset[str]:
    return frozenset(some(rng, ids))


@rule(2)
def night_of_short_lists(history: History, rng: random.Random) -> None:
    """Lists lack something for a night, while ids answer."""
    executions, calls = history.source.executions(), history.source.calls()
    if rng.random() < 0.5:
        history.source.lie = Lie(executions=_hide(rng, [each.execution_id for each in executions]))
    else:
        history.source.lie = Lie(calls=_hide(rng, [call.call_execution_id for _, call in calls]))
    history.night(**_options(rng))
    history.source.lie = Lie()


@rule(2)
def night_of_an_empty_source(history: History, rng: random.Random) -> None:
    """The source has lost something for a night, for lists and ids alike, and has it again in the morning."""
    executions = some(rng, history.source.executions())
    calls = _calls(history, rng) if rng.random() < 0.5 else []
    gone: list[SimulatedExecution | SimulatedCall] = [*(call for _, call in calls)] or [*executions]
    options = _options(rng) | ({"accept_deletions": True} if rng.random() < 0.5 else {})
    for execution, _ in calls:
        history.source.change_unseen(execution)
    for each in gone:
        each.is_deleted = True
    night = history.night(**options)
    for each in gone:
        each.is_deleted = False
    for execution, call in calls:  # one that was not there the night before either is missed by nobody
        if night is None or (call.call_execution_id,) not in night.before.tables["calls"]:
            history.source.change_unseen(execution)


@rule(2)
def answers_change(history: History, rng: random.Random) -> None:
    """The API gives values in another form from now on, in one run test or in all; or as before."""
    source = history.source
    source.form = rng.choice(("", *FORMS, *FORMS))
    source.formed = rng.choice((source.world.run_tests, source.world.run_tests[:1]))


@rule(2)
def nights_of_changed_answers(history: History, rng: random.Random) -> None:
    """The API gives values in another form for some nights, and nothing else is wrong."""
    source = history.source
    source.fault = None
    cap_pages(source.server, None)
    answers_change(history, rng)
    for _ in range(rng.randint(1, 5)):
        for _ in range(rng.randint(0, 2)):
            age = timedelta(days=rng.choice((0, 0, 20)))
            source.begin(rng.choice(source.world.run_tests), rng.randint(1, 6), is_finished=True, age=age)
        history.night()
        source.now += timedelta(hours=rng.choice((12, 25)))
    source.form = rng.choice(("", source.form))


@rule(0.5)
def odd_verdict(history: History, rng: random.Random) -> None:
    for execution, call in _calls(history, rng)[:1]:
        history.source.give_odd_verdict(execution, call)


@rule(4)
def source_changes_during_a_night(history: History, rng: random.Random) -> None:
    changes = finish, rerun, delete_executions, begin, late_data, touch, delete_calls, delete_evals, poison
    change, pick = rng.choice(changes), random.Random(rng.randrange(1000))
    history.night(
        change=lambda: change(history, pick),
        nth_request=rng.randrange(20),
        times=rng.choice((1, 1, 4)),
        **_options(rng),
    )


@rule(1)
def lists_shift_during_a_night(history: History, rng: random.Random) -> None:
    """Only what is new can be missed by a list: the head of it goes, or its tail jumps to the head."""
    source, changes = history.source, rng.choice((["delete"], ["delete call"], ["touch"], ["touch", "delete call"]))
    new = [source.begin(source.world.run_tests[0], 3, is_finished=True) for _ in range(3)]

    def shift() -> None:
        living = [each for each in new if not each.is_deleted]
        calls = [calls for each in living if (calls := listable_calls(each))]
        change = rng.choice(changes)
        if change == "delete" and living:
            living[-1].is_deleted = True
        elif change == "delete call" and calls:
            rng.choice(calls)[0].is_deleted = True
        elif change == "touch" and calls:
            touch_call(rng.choice(calls)[-1], source.now)

    tell = rng.choice((history.night, partial(_night_of_pages, history)))
    page_limit = rng.choice((1, 2))
    tell(page_limit=page_limit, change=shift, nth_request=rng.randrange(12), times=rng.randint(1, 4))


def _night_of_pages(history: History, *, page_limit: int, **options: Any) -> None:
    """The server gives no larger pages than are requested."""
    rules = history.source.server._rules
    cap_pages(history.source.server, page_limit)
    history.night(page_limit=page_limit, **options)
    history.source.server._rules = rules


@rule(1.5)
def execution_begins_while_it_is_listed(history: History, rng: random.Random) -> None:
    """A list is cut to the count that the server took just before another execution began: an old one is missing."""
    source, run_test, fault = history.source, rng.choice(history.source.world.run_tests), history.source.fault
    for age in (0, 0, 0, 40):
        source.begin(run_test, 1, is_finished=True, age=timedelta(days=age))
    source.come_between(run_test.name, deletes_at=rng.choice((4, 5)))
    if rng.random() < 0.4:
        history.night()
    else:
        _night_of_pages(history, page_limit=rng.choice((1, 2)))
    source.fault = fault


@rule(2)
def night_of_a_wrong_list(history: History, rng: random.Random) -> None:
    """Some of what is stored is gone, and in the same night the list lacks something of it that is still there."""
    source, options = history.source, _options(rng)
    if rng.random() < 0.5:
        stored = [each for each in source.executions() if each.execution_id in history.rows.of]
        if len(stored) > 1:
            gone, *others = rng.sample(stored, min(len(stored), 4))
            gone.is_deleted = True
            source.lie = Lie(executions=frozenset(each.execution_id for each in others))
    else:
        calls = {(held.row["call_execution_id"]) for held in history.rows.tables["calls"].values()}
        found = [(each, call) for each, call in source.calls() if call.call_execution_id in calls]
        several = [pair for pair in found if sum(each is pair[0] for each, _ in found) > 1]
        if several:
            execution, call = rng.choice(several)
            source.delete_call(execution, call)
            rest = [other.call_execution_id for each, other in several if each is execution and other is not call]
            source.lie = Lie(calls=frozenset(some(rng, rest)))
            options |= rng.choice(({}, {"full_refresh": True}))
    history.night(**options)
    source.lie = Lie()
