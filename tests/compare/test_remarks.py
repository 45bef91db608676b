"""What the nights say besides what is worse: why an alarm ended, and what could not be judged."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from etl.compare.nightly import Judged, judge_nights
from etl.compare.nights import LONGEST
from etl.compare.samples import CALL_COLUMNS, EVAL_COLUMNS
from etl.model import schema
from etl.settings.results import Compare
from tests.compare.executions import execution
from tests.report.rows import table

FIRST = datetime(2026, 9, 1, 9, tzinfo=UTC)
Change = Callable[[int, int], dict[str, Any]]
"""What differs in a call, by the number of its night and of the call."""


def day(night: int) -> str:
    return f"{(FIRST + timedelta(days=night)).date()}"


def judged(
    nights: int,
    change: Change,
    *,
    run_tests: tuple[str, ...] = ("A",),
    are_alike: bool = False,
    accepted: dict[str, date] | None = None,
    every_days: int = 1,
    silent_days: int = 0,
) -> Judged:
    """The verdict on 20 calls a night of each run test: of four scenarios, with a latency, and an eval that passes.

    A night is every so many days, and the last export so many after the last night.
    """
    rng = np.random.default_rng(7)
    executions, calls, evals = [], [], []
    for name in run_tests:
        for night in range(nights):
            for number in range(20):
                call_id, values = f"{name}-{night}-{number}", change(night, number) if name == "A" or are_alike else {}
                if values.get("is_absent"):
                    continue
                own = {"call_execution_id": call_id, "execution_id": f"{name}-{night}"}
                slow = float(values.pop("slow", 1.0) * 1000 * rng.lognormal(0, 0.2))
                has_failed = values.get("status") == "failed"
                usual = {"status": "completed", "scenario_id": f"s{number % 4}", "scenario_name": f"S{number % 4}"}
                has_eval = values.pop("has_eval", not has_failed)
                calls.append(own | usual | {"latency_avg_agent_latency_ms": None if has_failed else slow} | values)
                output = {"eval_name": "Task", "eval_config_id": "task", "output_passed": bool(rng.random() < 0.9)}
                evals += [own | output] if has_eval else []
            at, of_night = (
                FIRST + timedelta(days=night * every_days),
                bool(calls) and calls[-1]["execution_id"] == f"{name}-{night}",
            )
            executions.append(
                execution(f"{name}-{night}", run_test=name.lower(), started_at=at, exported_calls=20 * of_night)
            )
    of_calls, of_evals = table(schema.CALLS, CALL_COLUMNS, calls), table(schema.EVALS, EVAL_COLUMNS, evals)
    today = executions[-1].started_at.date() + timedelta(days=silent_days)
    return judge_nights(executions, of_calls, of_evals, Compare(accepted=accepted or {}), today)


def told(found: Judged) -> tuple[list[str], list[str]]:
    """The metrics that are worse, and the remarks."""
    return [each.row.metric.name for each in found.worse], [each.text for each in found.remarks]


def slow_from(first: int, **values: Any) -> Change:
    return lambda night, _: {"slow": 1.5} | values if night >= first else {}


def test_what_lasted_counts_as_normal_and_is_told_until_it_is_old() -> None:
    worse, (remark,) = told(judged(40 + LONGEST + 5, slow_from(40)))
    assert worse == []
    assert remark.startswith("Agent latency, mean: worse since 2026-10-1")
    assert remark.endswith(f", but counted as normal since {day(40 + LONGEST)}")
    assert told(judged(40 + 3 * LONGEST, slow_from(40))) == ([], [])


@pytest.mark.parametrize(
    ("change", "nights", "ended"),
    [
        (lambda night, _: slow_from(30)(night, 0) | ({"is_absent": True} if night > 35 else {}), 51, "no calls"),
        (slow_from(30), 51, ""),
        (
            lambda night, _: {"latency_avg_agent_latency_ms": None} if night > 35 else slow_from(30)(night, 0),
            40,
            "no values of Agent latency, mean",
        ),
        (lambda night, _: {"has_eval": night <= 35}, 40, "no values of Task, pass rate"),
    ],
)
def test_alarm_ends_with_its_data_and_the_end_is_told(change: Change, nights: int, ended: str) -> None:
    found = told(judged(nights, change, run_tests=("A", "B")))
    assert found == (([], [f"{ended} since {day(35)}"]) if ended else (["latency_mean"], []))


@pytest.mark.parametrize(("every_days", "silent_days", "is_silent"), [(1, 14, 0), (1, 15, 1), (20, 20, 0), (20, 21, 1)])
def test_only_run_test_of_a_dataset_is_silent_after_two_weeks_and_longer_than_ever(
    every_days: int, silent_days: int, is_silent: int
) -> None:
    """But for a pause so long ago that it says nothing of the last nights."""
    trial = 60 // every_days

    def change(night: int, _: int) -> dict[str, Any]:
        return {"is_absent": True} if 0 < night < trial else slow_from(trial + 30)(night, 0)

    verdict = judged(trial + 40, change, every_days=every_days, silent_days=silent_days)
    last = day((trial + 39) * every_days)
    expected = ([], [f"no calls since {last}"]) if is_silent else (["latency_mean"], [])
    assert (told(verdict), verdict.silent) == (expected, ["A"] * is_silent)


def test_alarm_of_a_run_test_of_every_week_ends_as_those_of_every_night() -> None:
    worse, (remark,) = told(judged(40 + LONGEST + 5, slow_from(40), every_days=7))
    assert (worse, remark.endswith(f", but counted as normal since {day((40 + LONGEST) * 7)}")) == ([], True)


@pytest.mark.parametrize("odd", [{"latency_avg_agent_latency_ms": 600_000.0}, {"status": "failed"}])
def test_words_of_an_alarm_are_of_the_nights_and_calls_that_are_judged(odd: dict[str, Any]) -> None:
    """A call that hung, and the few slow ones that an outage left, say nothing of the others."""

    def change(night: int, number: int) -> dict[str, Any]:
        if "status" in odd and night in (20, 42, 43, 44):
            return odd if number > 3 else {"slow": 9.0}
        return odd if (night, number) in {(20, 5), (44, 6)} else slow_from(40)(night, number)

    worse = next(each for each in judged(46, change).worse if each.metric == "latency_mean")
    assert f"{worse.since}" == day(40)
    assert worse.row.surely_worse == pytest.approx(0.4, abs=0.08)


def test_few_nights_since_a_level_was_accepted_and_calls_without_a_status_are_not_called_judged_or_new() -> None:
    few = judged(20, slow_from(15), accepted={"A": FIRST.date() + timedelta(days=15)})
    assert (few.run_tests, few.metrics) == ([], 0)
    assert told(judged(4, lambda *_: {"status": None})) == ([], [])


@pytest.mark.parametrize("accepted", [None, 40])
def test_level_that_got_better_for_four_weeks_or_was_accepted_is_what_a_regression_is_told_against(
    accepted: int,
) -> None:
    def change(night: int, _: int) -> dict[str, Any]:
        return {"slow": 2.0 if night < 40 else 1.0 if night < 72 else 1.6}

    given = {"A": FIRST.date() + timedelta(days=40)} if accepted else None
    (worse,) = judged(80, change, accepted=given).worse
    assert worse.row.found.baseline == pytest.approx(1000, rel=0.05)


def test_scenarios_that_are_all_new_are_told_and_compared_with_nothing_before() -> None:
    found = told(judged(45, lambda night, n: slow_from(35, scenario_id=f"new {n % 4}")(night, n)))
    assert found == ([], [f"all scenarios are new since {day(35)}, so only nights from then on are judged"])


@pytest.mark.parametrize(
    ("accepted", "worse"),
    [
        ({"A": 40}, []),
        ({"A/latency_mean": 40}, []),
        ({"A/cost_mean": 40}, ["latency_mean"]),
        ({"B": 40}, ["latency_mean"]),
        ({"A": 20}, ["latency_mean"]),
    ],
)
def test_level_that_was_accepted_is_normal_and_what_is_worse_than_that_is_not(
    accepted: dict[str, int], worse: list[str]
) -> None:
    given = {name: FIRST.date() + timedelta(days=night) for name, night in accepted.items()}
    assert told(judged(60, slow_from(40), accepted=given)) == (worse, [])
    later = judged(
        60, lambda night, _: {"slow": 1.5 if 40 <= night < 55 else 3.0} if night >= 40 else {}, accepted=given
    )
    assert told(later)[0] == ["latency_mean"]


@pytest.mark.parametrize(("last", "failed_by"), [(35, "agent"), (37, "line"), (44, "agent"), (44, "line")])
def test_outage_is_one_line_for_all_run_tests_and_no_alarm_unless_it_lasts(last: int, failed_by: str) -> None:
    failure = {"status": "failed", "ended_reason": "error: No_Answer" if failed_by == "line" else "assistant-error"}
    rate = "line_failure_rate" if failed_by == "line" else "failure_rate"

    def failing(night: int, number: int) -> dict[str, Any]:
        return dict(failure) if 35 <= night <= last and number > 3 else {}

    assert told(judged(last + LONGEST + 1, failing)) == ([], [])
    for nights in (45, last + LONGEST):
        found = judged(nights, failing)
        assert [each.metric for each in found.worse] == ([rate] if last == 44 == nights - 1 else [])
        failed = [day(night) for night in range(last, 34, -1)]
        days = ", ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
        text = f"{days} not judged, because most calls failed"
        assert [(each.run_test, each.since, each.text) for each in found.remarks] == [
            ("A", date.fromisoformat(day(35)), text)
        ]


def test_outage_of_several_run_tests_is_one_line() -> None:
    def failing(night: int, number: int) -> dict[str, Any]:
        return {"status": "failed"} if night == 40 and number > 3 else {}

    (remark,) = judged(45, failing, run_tests=("A", "B", "C"), are_alike=True).remarks
    text = f"{day(40)} in A, B, C not judged, because most calls failed"
    assert (remark.run_test, remark.run_tests, remark.text) == ("", ["A", "B", "C"], text)
