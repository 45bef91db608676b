"""What a commit leaves behind: whole executions, in an order that survives any end, and nothing touched in vain."""

import msgspec

from etl.model.lifecycle import ExportState
from etl.model.records import METRICS
from tests.bundles import KEY, a_bundle, dead_letter
from tests.datasets import export_to, rows, stored_in

TABLES = ["calls", "evals", "errors", "executions"]
NAME = KEY.title()


def changed(bundle, **changes):
    return msgspec.structs.replace(bundle, **changes)


def test_execution_that_the_list_cannot_give_keeps_its_aggregates_and_is_incomplete(dataset, tmp_path):
    whole = a_bundle("e1")
    whole.execution.payload["metrics"] = {"calls": {"total": 2}}
    export_to(dataset, whole)
    export_to(dataset, changed(a_bundle("e1", version=3), dead_letters=(dead_letter("e1"),)), run="run-2")
    assert rows(tmp_path, "executions", "total_calls", "calls_total", "export_state") == [(3, 2, "incomplete")]
    assert rows(tmp_path, "errors", "endpoint", "subject_id") == [(METRICS, "e1")]
    export_to(dataset, whole, run="run-3")
    assert rows(tmp_path, "executions", "calls_total", "export_state") == [(2, "settling")]
    assert rows(tmp_path, "errors") == []


def test_execution_of_which_a_kept_row_is_gone_is_incomplete(dataset):
    bundle = a_bundle()
    _, arrived = export_to(dataset, changed(bundle, calls=bundle.calls[1:], kept=frozenset(["c1"])))
    assert arrived[NAME].without_rows == {"e1"}
    assert stored_in(dataset)["e1"].export_state == ExportState.INCOMPLETE
