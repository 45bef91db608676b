"""Which columns can be left out of a dataset, and how the API's answers are emptied of them. Pure.

A field is set to null and not removed, since null is what the API writes for a value that it does not have. So all that
follows sees an ordinary answer: nothing counts as lost or changed in form, and no value gets into ``extra`` or ``raw``.
But for reasons of evals, only a row's own fields are emptied, never one of the same name in an open-ended object.
"""

from collections.abc import Callable, Collection
from typing import Any

from etl.model.records import DETAIL, RUN_TESTS
from etl.model.schema import CALLS, STRING

_REASON = "evals.reason"
_WITH_EVALS = ("eval_outputs", "rerun_snapshots")
"""Fields of a call that have reasons of evals."""
COLUMNS = (
    _REASON,
    *(
        f"{CALLS.name}.{column.name}"
        for column in CALLS.columns
        if column.source == f"detail.{column.name}" and column.type is STRING and column.name != "rerun_snapshots"
    ),
    "executions.error_reason",
)
"""The columns that can be left out: texts that no run needs. ``rerun_snapshots`` has no text but reasons of evals."""
Empty = Callable[[str, Any], None]
"""Empties the document of an answer, which came from the endpoint with this path, in place."""


def emptier(columns: Collection[str]) -> Empty | None:
    """What empties all fields of these ``COLUMNS``; None if there are none.

    A field of this name goes from any answer, and a ``reason`` at any depth of a call's evals, also in its snapshots. A
    field that the detail of an execution does not have becomes null there, too: otherwise its stored value would stay.
    """
    of_calls, of_executions = (
        [name.removeprefix(table) for name in columns if name.startswith(table)] for table in ("calls.", "executions.")
    )

    def empty(path: str, document: Any) -> None:
        fields = of_executions if path.startswith(RUN_TESTS) else [*of_calls, *of_executions]
        for row in _rows_in(document):
            row |= {name: None for name in fields if name in row or path.startswith(DETAIL)}
            if _REASON in columns:
                row |= {name: _without_reasons(row[name]) for name in _WITH_EVALS if name in row}

    return empty if columns else None


def _rows_in(document: Any) -> list[dict[str, Any]]:
    """The rows of a page, or of the page of calls in a document; or else the document, which is one row."""
    page = document.get("call_results", document) if isinstance(document, dict) else {}
    rows = page.get("results", [page]) if isinstance(page, dict) else ()
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _without_reasons(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_reasons(each) for each in value]
    if isinstance(value, dict):
        return {name: None if name == "reason" else _without_reasons(each) for name, each in value.items()}
    return value
