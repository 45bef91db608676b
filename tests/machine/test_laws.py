"""The ten laws, after every night of random histories, of a quiet year, and of the nights for which they were made.

A history that fails prints how to tell it again: ``python -m tests.machine --seed … --keep …``; see
``tests/machine/play``.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.model import schema
from etl.pipeline import job
from etl.sandbox.world import SimulatedExecution, SimulatedRunTest
from tests.machine.dataset import said
from tests.machine.driver import History, told
from tests.machine.oracle import judge
from tests.machine.play import play, steps_of, tell
from tests.machine.rules import clone
from tests.machine.source import NAMES
from tests.warehouses import assert_equals_dataset, load_into, new_duckdb

STEPS = 30
QUICK = [range(first, first + 4) for first in (0, 100)]
FULL = [pytest.param(range(first, first + 250), marks=pytest.mark.slow) for first in range(1000, 6000, 250)]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", [*QUICK, *FULL])
def test_no_history_breaks_a_law(seeds: range) -> None:
    """In parts, for all processors to share. Every other history exports "all" run tests."""
    failure, _ = tell(seeds, STEPS)
    assert failure is None, str(failure)


def test_a_history_is_the_same_each_time() -> None:
    _, first, _ = play(3, list(enumerate(steps_of(3, STEPS // 3))))
    _, second, _ = play(3, list(enumerate(steps_of(3, STEPS // 3))))
    assert first == second


@pytest.fixture
def history(request: pytest.FixtureRequest) -> Iterator[History]:
    """A source of one run test, which has nothing yet, unless it is told what."""
    with told(1, judge, has_real_files=True) as begun:
        world = begun.source.world
        del world.run_tests[1:], begun.source.entries[1:]
        world.run_tests[0].executions.clear()
        yield begun


def begun(history: History, number: int, *, calls: int) -> list[SimulatedExecution]:
    run_test = history.source.world.run_tests[0]
    return [history.source.begin(run_test, calls, is_finished=True) for _ in range(number)]


def exit_code(history: History, **options: object) -> int | None:
    history.source.now += timedelta(days=1)
    night = history.night(**options)  # type: ignore[arg-type]
    assert night is not None
    return night.exit_code


def test_a_run_test_has_several_parts_and_a_part_several_executions(history: History) -> None:
    """Else nothing could go wrong between two of them."""
    begun(history, 12, calls=2)
    assert exit_code(history) == 0
    places = [held.part.place for held in history.rows.executions.values()]
    assert 1 < len(set(places)) < len(places)


@pytest.mark.parametrize(
    "nth_request", [pytest.param(each, marks=() if each % 4 == 2 else pytest.mark.slow) for each in range(2, 12)]
)
def test_calls_that_are_deleted_while_a_run_reads_are_no_alarm(history: History, nth_request: int) -> None:
    """4 of 30."""
    (execution,) = begun(history, 1, calls=30)

    def delete_some() -> None:
        for call in execution.calls[10:14]:
            call.is_deleted = True

    options = {"change": delete_some, "nth_request": nth_request, "page_limit": 16, "metrics": "calls"}
    assert [exit_code(history, **options), exit_code(history)] == [0, 0]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("nights", [25, pytest.param(365, marks=pytest.mark.slow)])
def test_a_year_without_a_fault_is_quiet(nights: int) -> None:
    """People create, rerun, delete, rename, clone and backfill every day: no night is an alarm."""
    with told(2, judge) as history:
        rng = random.Random(2)
        for number in range(nights):
            a_day(history, rng)
            code = exit_code(history, page_limit=rng.choice((4, 1024)))
            assert code == 0, f"night {number}: {history.log[-1]}"


def a_day(history: History, rng: random.Random) -> None:  # noqa: C901 a case for each thing that people do
    source = history.source
    for execution in source.executions(is_finished=False):
        source.finish(execution)
    for run_test in [*source.world.run_tests]:
        source.begin(run_test, rng.randint(0, 4), is_finished=rng.random() < 0.7)
        match rng.choice(
            ("rerun", "delete one", "delete many", "all but one", "rename", "clone", "backfill", "delete calls", "late")
        ):
            case "rerun":
                source.rerun(rng.choice(_living(run_test)))
            case "delete one":
                _delete(rng, run_test, 1)
            case "delete many":
                _delete(rng, run_test, len(_living(run_test)) // 2)
            case "all but one" if len(_living(run_test)) > 8:
                _delete(rng, run_test, len(_living(run_test)) - 1)
            case "rename":
                free = {*NAMES, "Upsell", "Returns", "Sales"} - {each.name for each in source.world.run_tests}
                run_test.name = rng.choice(sorted(free))
                source.follow()
            case "clone":
                clone(history, rng)
            case "backfill":
                source.begin(run_test, 2, is_finished=True, age=timedelta(days=40))
            case "delete calls":
                for execution, call in source.calls(_living(run_test)[-1:])[:2]:
                    source.delete_call(execution, call)
            case "late":
                source.come_late(rng.choice(_living(run_test)))


def _living(run_test: SimulatedRunTest) -> list[SimulatedExecution]:
    return [each for each in run_test.executions if not each.is_deleted]


def _delete(rng: random.Random, run_test: SimulatedRunTest, number: int) -> None:
    """So many of them, but never the oldest: a key that sees none of the stored ones may be of another workspace."""
    younger = sorted(_living(run_test), key=lambda each: each.created_at)[1:]
    for execution in rng.sample(younger, min(number, len(younger))):
        execution.is_deleted = True


@pytest.mark.parametrize("seed", [1, *(pytest.param(each, marks=pytest.mark.slow) for each in range(2, 20))])
def test_a_warehouse_is_the_dataset_after_any_history(seed: int, tmp_path: Path) -> None:
    """In the middle of it, and at its end, after a calm night: what a killed run left half written, a load refuses."""
    steps = [step for step in steps_of(seed, 2 * STEPS) if not step.name.startswith("damage")]
    contents = []
    with told(seed, lambda *_: None, is_all=bool(seed % 2), has_real_files=True) as history:
        for number, step in enumerate(steps, 1):
            step.rule(history, random.Random(step.number))
            if number % STEPS == 0 and history.rows.of:
                history.source.calm_down()
                history.night()
                contents.append(dict(history.store.content))
    with closing(new_duckdb(tmp_path)) as place:
        for number, content in enumerate(contents):
            data = tmp_path / f"{number}" / "data"
            for path, (_, file) in content.items():
                (data / path).parent.mkdir(parents=True, exist_ok=True)
                (data / path).write_bytes(file)
            load_into(place, data)
            assert_equals_dataset(place, data)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 1_000), marks=pytest.mark.slow)])
def test_rows_that_lists_show_whole_are_those_of_the_calls_in_any_world(seeds: range) -> None:
    """Cell by cell, whatever has happened to the calls before the first night."""
    made_from = Counter[str]()
    for seed in seeds:
        (rows, found), (own, _) = first_night(seed, {}), first_night(seed, {"metrics": "calls"})
        assert rows == own, seed
        made_from += found
    assert made_from["lists"] > 0 < made_from["metrics"]


_OF_CALLS = "late_data", "rerun", "finish", "delete_calls", "delete_evals", "odd_eval", "hold", "poison"
"""The steps that change calls."""


def first_night(seed: int, options: dict[str, Any]) -> tuple[Any, Counter[str]]:
    """What is stored of calls and evals after one night, and how many rows of calls were made from what."""
    with told(seed, lambda *_: None) as history:
        for test in history.source.world.run_tests:
            history.source.begin(test, 9, is_finished=True)
        for step in steps_of(seed, 20):
            if step.name in _OF_CALLS:
                step.rule(history, random.Random(step.number))
        history.night(calls="all", **options)
        tables = {name: history.rows.tables[name] for name in ("calls", "evals")}
        found = Counter(str(held.row["metrics_from"]) for held in tables["calls"].values())
        rest = dict.fromkeys(schema.OF_VOICE_LIST)
        return {key: said(name, held.row) | rest for name, rows in tables.items() for key, held in rows.items()}, found


@pytest.mark.parametrize("limit", [3, 20, 1_000])
def test_plan_says_how_long_the_run_takes_by_the_rate_limit(limit: int) -> None:
    """By a clock that jumps to the next thing to do, so that nothing else takes time."""
    with told(1, lambda *_: None) as history:
        for test in history.source.world.run_tests:
            history.source.begin(test, 12, is_finished=True)
        settings = history._settings(history.source.configured(), None, {"requests_per_minute": limit})
        loop, now = history._loop, history.source.now
        planned = loop.run_until_complete(job.plan(settings, clock=lambda: now))
        loop.run_until_complete(asyncio.sleep(60))
        began_at = loop.time()
        summary = loop.run_until_complete(job.export(settings, clock=lambda: now))
        assert summary.requests_by_purpose == planned.requests_by_purpose
        assert loop.time() - began_at == pytest.approx(planned.seconds, abs=1)
