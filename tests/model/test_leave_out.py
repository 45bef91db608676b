"""Rows lose the fields that are left out, wherever a document has its rows, and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from etl.errors import UnexpectedAnswerError
from etl.extract.answers import decode
from etl.extract.endpoints import get_execution
from etl.model.leave_out import COLUMNS, emptier
from etl.model.records import METRICS, RUN_TESTS, RUNS

FREE = {"reason": "r", "ended_reason": "r"}
LEFT = FREE | {"reason": None}
CALL = {
    "ended_reason": "r",
    "error_reason": "r",
    "cost": FREE,
    "eval_outputs": {"e": {"reason": "r", "output": FREE}, "odd": "r"},
}
EMPTIED = {
    "ended_reason": None,
    "error_reason": None,
    "cost": FREE,
    "eval_outputs": {"e": {"reason": None, "output": LEFT}, "odd": "r"},
}
STATES = {"rerun_snapshots": [{"eval_outputs": [[{"reason": "r"}], 5]}, 5], "eval_outputs": "r"}
EMPTIED_STATES = {"rerun_snapshots": [{"eval_outputs": [[{"reason": None}], 5]}, 5], "eval_outputs": "r"}
RUN, EMPTIED_RUN = ({"error_reason": value, "agent_version": "v"} for value in ("r", None))
ODD: list[Any] = [(RUNS, odd, odd) for odd in (None, [CALL], {"results": 5}, {"call_results": [CALL]})]


def test_nothing_is_done_where_nothing_is_left_out() -> None:
    assert emptier([]) is None


@pytest.mark.parametrize(
    "wrap",
    [lambda row: row, lambda row: {"results": [row, 5]}, lambda row: {"call_results": {"results": [row]}}],
    ids=["row", "page", "page of calls"],
)
@pytest.mark.parametrize(
    ("path", "row", "expected"),
    [(METRICS, CALL, EMPTIED), (RUNS, STATES, EMPTIED_STATES), (RUN_TESTS, RUN, EMPTIED_RUN), *ODD],
)
def test_rows_are_emptied_in_each_document(wrap: Callable[[Any], Any], path: str, row: Any, expected: Any) -> None:
    document, empty = json.loads(json.dumps(wrap(row))), emptier(COLUMNS)
    assert empty
    empty(path, document)
    assert document == wrap(expected)


def test_answer_that_cannot_be_read_is_not_quoted() -> None:
    with pytest.raises(UnexpectedAnswerError) as raised:
        decode(get_execution("e"), b'{"status": true, "result": {"reason": "r"}}', empty=emptier(COLUMNS))
    assert (raised.value.excerpt, str(raised.value).count("reason")) == ("", 0)
