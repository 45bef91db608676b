"""What a report says is what the rows say, and what they do not say is not shown as zero."""

from datetime import timedelta
from itertools import product

import pandas as pd
import pytest

from tests.report.rows import CHAT_LATENCY, LATENCY, call, execution, figures, output


def records(frame):
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def week(day):
    return pd.Timestamp(2026, 11, day)


def test_latency_is_that_of_each_week_from_monday_to_sunday_and_none_where_nobody_measured():
    calls = [call(n, day=day, **{LATENCY: ms}) for n, (day, ms) in enumerate([(0, 100), (6, 300), (14, 500)])]
    assert records(figures(calls).details.latencies[LATENCY]) == [
        {"week": week(2), "p50": 200, "p95": 290},
        {"week": week(9), "p50": None, "p95": None},
        {"week": week(16), "p50": 500, "p95": 500},
    ]


def test_what_no_call_has_is_not_there():
    found = figures([call(1), call(2)])
    assert (found.details.latencies, found.dollars) == ({}, None)
    assert (len(found.details.cost), len(found.details.interruptions), found.details.pass_rates) == (0, 0, [])
    assert found.details.worst_calls[0].latency_ms is None


def test_cost_is_the_sum_of_each_day_in_dollars():
    cents = [(0, 110), (0, 15), (1, None), (2, 0)]
    calls = [call(n, day=day, cost_total_cost_cents=each) for n, (day, each) in enumerate(cents)]
    found = figures(calls)
    assert records(found.details.cost) == [{"start": week(2), "dollars": 1.25}, {"start": week(4), "dollars": 0}]
    assert found.dollars == 1.25


def test_calls_are_counted_by_day_and_status():
    calls = [call(1), call(2), call(3, status="failed"), call(4, status=None, day=1)]
    assert records(figures(calls).details.statuses) == [
        {"start": week(2), "status": "completed", "calls": 2},
        {"start": week(2), "status": "failed", "calls": 1},
        {"start": week(3), "status": "unknown", "calls": 1},
    ]


@pytest.mark.parametrize(("days", "step"), [(92, 1), (93, 7)])
def test_bars_stand_for_weeks_when_there_are_too_many_days(days, step):
    found = figures([call(1, day=3), call(2, day=3 + days)])
    assert found.details.step == timedelta(days=step)
    assert found.details.statuses["start"][0] == (week(5) if step == 1 else week(2))


def test_pass_rates_are_those_of_each_eval_and_scenario_the_lowest_first():
    calls = [call(n, scenario_name=name) for n, name in enumerate(["angry", "angry", "calm", None])]
    evals = [output(n, passed=passed) for n, passed in enumerate([True, False, True, True])]
    evals += [output(n, name="Tone", passed=passed) for n, passed in enumerate([False, None])]
    evals.append(output(0, name="", passed=True))
    found = [
        (rates.name, rates.whole.rate, rates.whole.calls, [(one.name, one.whole.rate) for one in scenarios])
        for rates, scenarios in figures(calls, evals).details.pass_rates
    ]
    assert found == [
        ("Tone", 0, 1, [("angry", 0)]),
        ("Task", 0.75, 4, [("angry", 0.5), ("calm", 1), ("no scenario", 1)]),
        ("config of ", 1, 1, [("angry", 1)]),
    ]


def test_pass_rates_before_and_now_are_those_that_are_compared_and_all_calls_are_the_whole():
    """A scenario is its id: two may have one name."""
    passed = {0: 8, 20: 2, 40: 7}
    executions = [execution(f"e{day}", day=day) for day in passed]
    numbers = [(day, n) for day in passed for n in range(8)]
    scenarios = [{"scenario_id": f"s{n % 2}", "scenario_name": "One"} for n in range(8)]
    calls = [call(100 * day + n, of=f"e{day}", day=day, **scenarios[n]) for day, n in numbers]
    evals = [output(100 * day + n, of=f"e{day}", passed=n < passed[day]) for day, n in numbers]
    evals += [output(100 * day, of=f"e{day}", name="Same", passed=True) for day in passed]
    found = figures(calls, evals, executions)
    (task, scenarios), (same, _) = found.details.pass_rates
    (row,) = (each.found for each in found.changes if each.metric.name == "eval_task_pass_rate")
    assert (task.before.rate, task.now.rate, task.whole.rate) == (row.baseline, row.candidate, 17 / 24)
    assert (task.before.calls, task.now.calls, task.whole.calls, task.change) == (8, 8, 24, 0.625)
    told = [(each.name, each.now.rate, each.before.calls) for each in (task, *scenarios)]
    assert (told, same.name) == ([("Task", 7 / 8, 8), ("One", 0.75, 4), ("One", 1, 4)], "Same")
    weeks = [(0, 1, 8), (1, None, None), (2, 0.25, 8), (3, None, None), (4, None, None), (5, 0.875, 8)]
    assert records(found.details.weekly_rates["Task"]) == [
        {"week": week(2) + timedelta(weeks=number), "rate": rate, "outputs": outputs} for number, rate, outputs in weeks
    ]


def test_worst_calls_failed_the_most_evals_and_then_are_the_slowest():
    calls = [call(n, **{LATENCY: 100 * n}) for n in range(14)]
    calls += [call(20, status="failed", **{LATENCY: 9000}), call(21, **{CHAT_LATENCY: 500.5})]
    evals = [output(2, passed=False), output(3, passed=False), output(2, name="Tone", passed=False)]
    evals.append(output(13, passed=True))
    found = figures(calls, evals).details.worst_calls
    assert [each.call_execution_id for each in found] == ["c2", "c3", *(f"c{n}" for n in range(13, 5, -1))]
    assert [list(each.failed_evals) for each in found[:3]] == [["Task", "Tone"], ["Task"], []]


def test_worst_call_without_a_scenario_has_none():
    for calls in ([call(1)], [call(1), call(2, scenario_name="angry")]):
        assert figures(calls).details.worst_calls[0].scenario_name is None


def test_worst_calls_are_those_of_the_candidate():
    executions = [execution("e1"), execution("e2", day=10)]
    calls = [call(1, **{LATENCY: 900}), call(2, of="e2", day=10, **{LATENCY: 100})]
    assert [each.call_execution_id for each in figures(calls, executions=executions).details.worst_calls] == ["c2"]


def test_rows_of_other_executions_are_left_out():
    found = figures([call(1), call(2, of="deleted")], [output(2, of="deleted", passed=True)])
    assert (found.calls, found.details.pass_rates) == (1, [])


def test_worst_calls_are_those_since_something_got_worse_worst_by_that_first():
    """However late the week begins that is compared, and however many evals others failed."""
    executions = [execution(f"e{n}", day=8 * n) for n in range(1, 4)]
    calls = [
        call(10 * n + of, of=f"e{of}", day=8 * of, cost_total_cost_cents=10 * n + of, **{LATENCY: n})
        for of, n in product((1, 2, 3), (1, 2, 3))
    ]
    calls += [call(99, of="e2", day=16, status="failed", cost_total_cost_cents=99)]
    evals = [
        output(number, of=f"e{number % 10}", passed=number != 12, output_score=number) for number in (12, 22, 33, 31)
    ]
    evals += [output(33, of="e3", name="Tone", passed=False)]
    expected = {
        "cost_mean": ["c33", "c32", "c23"],
        "eval_task_pass_rate": ["c12", "c33", "c22"],
        "eval_task_mean": ["c12", "c22", "c33"],
        "failure_rate": ["c99", "c33", "c12"],
    }
    for metric, first in expected.items():
        worst = figures(calls, evals, executions, worse=[metric]).details.worst_calls
        assert [each.call_execution_id for each in worst[:3]] == first, metric


def test_what_got_worse_comes_first_among_all_that_has_values():
    executions = [execution("e1"), execution("e2", day=10)]
    calls = [call(n, of=f"e{1 + n % 2}", day=10 * (n % 2), cost_total_cost_cents=4, **{LATENCY: 5}) for n in range(4)]
    found = figures(calls, [], executions, worse=["cost_mean"])
    names = [each.metric.name for each in found.changes]
    assert names == ["cost_mean", "latency_p50", "latency_p95", "latency_mean", "failure_rate", "line_failure_rate"]
    expected = "Cost of a call (4.00 ct to 4.00 ct) since 2026-11-12, 1 night, too few calls for an interval"
    assert found.worse[0].text == expected
