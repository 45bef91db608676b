"""Which columns can be left out of a dataset, and how the API's answers are emptied of them. Pure.

A field is set to null and not removed, since null is what the API writes for a value that it does not have. So all that
follows sees an ordinary answer: nothing counts as lost or changed in form, and no value gets into ``extra`` or ``raw``.
Only a row's own fields are emptied, never a field of the same name in an open-ended object.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from etl.model.records import DETAIL, RUN_TESTS
from etl.model.schema import CALLS, STRING

_REASON = "evals.reason"
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

    ``evals.reason`` also stands in snapshots of calls before a rerun. A field that the detail of an execution does not
    have becomes null there, too: otherwise its stored value would stay.
    """
    of_calls, of_executions = (
        [name.removeprefix(table) for name in columns if name.startswith(table)] for table in ("calls.", "executions.")
    )

    def empty(path: str, document: Any) -> None:
        fields = of_executions if path.startswith(RUN_TESTS) else of_calls
        for row in _rows_in(document):
            row |= {name: None for name in fields if name in row or path.startswith(DETAIL)}
            for output in _eval_outputs_in(row) if _REASON in columns else ():
                if "reason" in output:
                    output["reason"] = None

    return empty if columns else None


def _rows_in(document: Any) -> list[dict[str, Any]]:
    """The rows of a page, or of the page of calls in a document; or else the document, which is one row."""
    page = document.get("call_results", document) if isinstance(document, dict) else {}
    rows = page.get("results", [page]) if isinstance(page, dict) else ()
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _eval_outputs_in(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The outputs of evals of a call, now and before each rerun; in a list, too, in place of the usual object."""
    snapshots = row.get("rerun_snapshots")
    for state in (row, *(snapshots if isinstance(snapshots, list) else ())):
        outputs = state.get("eval_outputs") if isinstance(state, dict) else None
        values = outputs.values() if isinstance(outputs, dict) else outputs
        yield from (output for output in values if isinstance(output, dict)) if isinstance(values, Collection) else ()
