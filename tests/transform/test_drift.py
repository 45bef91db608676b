"""What one execution, and what a run test shows of the API's form. Whole nights: tests/pipeline/test_drift.py."""

from functools import partial

import pytest

from etl.model import schema
from etl.transform.drift import Answer, Answers, Loss, Losses, find_losses
from etl.transform.rows import MAKERS

COST, LATENCY = "calls.cost_stt_cost_cents", "calls.latency_response_time_ms"
AT = schema.CALLS.names.index("latency_response_time_ms")


def losses_of(*payloads, **options):
    rows = [MAKERS["calls"].make(payload, {})[0] for payload in payloads]
    answers = [Answer(partial(dict, payload), row, **options) for payload, row in zip(payloads, rows, strict=True)]
    return {name: loss.text for name, loss in find_losses(schema.CALLS, answers).lost.items()}


@pytest.mark.parametrize(
    ("payloads", "is_lost", "others"),
    [
        ([{"cost": {"stt_cents": 3}}], True, 3),
        ([{"cost": {"stt_cents": 3}}, {"cost": {"stt_cost_cents": 3}}], True, 3),
        ([{"cost": {"stt_cents": 3}}, {"cost": {"stt_cents": 3, "stt_cost_cents": 3}}], False, 3),
        ([{"cost": {"stt_cost_cents": "3 ct"}}, {"cost": {"stt_cost_cents": 3}}], False, 0),
        ([{"cost": {"stt_cost_cents": {"amount": 3}}}, {"cost": {"stt_cost_cents": 3}}], False, 0),
        ([{"cost": {"stt_cost_cents": {"amount": 3}}}], True, 0),
        ([{"cost": {"stt_cents": 3, "stt_cost_cents": None}}], False, 3),
        ([{"cost": None, "stt_cents": 3}], False, 0),
        ([{"cost": {"sttCostCents": 3}}], True, 3),
        ([{"sttCostCents": 3}], True, 0),
        ([{"usage": {"stt_cost_cents": 3}}], True, 0),
        ([{"cost": {}, "usage": {"stt_cost_cents": 3}}], False, 0),
        ([{"cost": {"stt_cost_cents": "3 ct"}}], True, 0),
        ([{"cost": {"breakdown": {"stt_cost_cents": 3}}}], False, 0),
        ([{"latency": {"system_metrics": {"stt_cost_cents": 3}}}], False, 0),
    ],
)
def test_a_column_is_lost_if_a_field_of_its_name_or_beside_it_is_new_and_no_call_has_both(payloads, is_lost, others):
    """``others`` is how many other costs are: they may be what stands beside them."""
    costs = {name for name in losses_of(*payloads) if name.startswith("calls.cost_")}
    assert (COST in costs, len(costs - {COST})) == (is_lost, others)


@pytest.mark.parametrize(
    ("value", "shown", "options", "text"),
    [
        (None, 1300, {}, "comes from the executions' details alone"),
        (1.3, 1300, {"is_compared": True}, "differs from the executions' details"),
        (1.3, 1300, {}, None),
        (1300, 1300, {"is_compared": True}, None),
    ],
)
def test_a_value_that_the_detail_shows_is_lost_if_it_is_missing_or_another(value, shown, options, text):
    payload = {"latency": {"response_time_ms": value}}
    assert losses_of(payload, shown={AT: shown}, **options).get(LATENCY) == text


def told(answers, losses):
    """What is said of this column after these executions, each with so many calls that lost it; 0 has it."""
    for execution_id, (calls, age) in losses.items():
        shown = Losses({COST: Loss(calls, "is null", is_moved=age != MISFIT, is_filled=age == FILLED)})
        shown = shown if calls else Losses(has=frozenset({COST}))
        answers.note(execution_id, shown, is_new=age != OLD, has_values=lambda _: False)
    return answers.text(is_drift=True)


NEW, MISFIT, OLD = "new", "new, and the value does not fit", "old"
FILLED = "new, and the row has the value from the detail"


@pytest.mark.parametrize(
    ("before", "losses", "is_drift"),
    [
        (Answers(), {"a": (99, NEW)}, False),
        (Answers(), {"a": (12, NEW), "b": (8, NEW)}, True),
        (Answers(), {"a": (12, NEW), "b": (7, NEW)}, False),
        (Answers(), {"a": (12, MISFIT), "b": (80, MISFIT)}, True),
        (Answers(), {"a": (12, MISFIT), "b": (80, MISFIT), "c": (0, NEW)}, False),
        (Answers(), {"a": (12, NEW), "b": (8, NEW), "c": (0, NEW)}, True),
        (Answers(), {"a": (12, NEW), "b": (7, NEW), "c": (0, NEW)}, False),
        (Answers(f"odd: {COST} is null"), {"a": (1, OLD)}, False),
        (Answers(f"odd: {COST} is null"), {"a": (1, NEW)}, True),
        (Answers(f"odd: {COST} is null"), {"a": (1, OLD), "b": (1, OLD)}, True),
        (Answers(f"odd: {COST} is null"), {"a": (1, OLD), "b": (1, FILLED)}, False),
        (Answers(f"odd: {LATENCY} is null"), {"a": (1, NEW)}, False),
        (Answers(f"{COST} is null", was_alarm=True), {"a": (1, OLD)}, True),
        (Answers(f"{COST} is null", was_alarm=True), {"a": (1, OLD), "b": (0, OLD)}, True),
    ],
)
def test_one_execution_is_no_drift_nor_are_few_calls_beside_one_that_has_the_column(before, losses, is_drift):
    """Nor values that do not fit. What just came may be only the first of many."""
    text = told(before, losses)
    calls = [calls for calls, _ in losses.values() if calls]
    executions = f"{len(calls)} execution{'s' if len(calls) > 1 else ''}"
    number = f"{sum(calls)} call{'s' if sum(calls) > 1 else ''}"
    assert text == (f"in {number} of {executions}: {COST} is null" if is_drift else "")
    assert before.holds("a") is (is_drift or len(calls) == len(losses) or losses["a"][1] != OLD)


def test_an_alarm_names_columns_and_not_the_fields_that_have_their_values():
    answers = Answers(f"in 9 calls of 2 executions: {COST} is null (extra has means.calls.completed)", was_alarm=True)
    assert not answers.is_back
    answers.note("a", Losses(has=frozenset({COST})), is_new=False, has_values=lambda _: False)
    assert answers.is_back


@pytest.mark.parametrize(("had", "said", "is_lost"), [(True, "", True), (False, COST, True), (False, "", False)])
def test_a_field_that_no_detail_names_is_lost_only_if_the_run_test_had_it(had, said, is_lost):
    answers = Answers(said)
    answers.note("a", Losses({COST: Loss(1, "", is_absent=True)}), is_new=True, has_values=lambda _: had)
    assert answers.holds("a") is is_lost
