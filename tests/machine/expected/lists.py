"""Law 4.

4. A list counts when it is proved: it has everything that existed when its reading began. The next run gets what came
   later. Rows of an unproved list are exported, too, but rows missing from it do not count as deleted.
"""

from etl.model.findings import Kind
from etl.sandbox.world import listable_calls
from tests.e2e.truth import assert_same_rows, call_rows, eval_rows
from tests.machine.dataset import is_from_lists, is_marked
from tests.machine.driver import History, Night
from tests.machine.expected.truth import Truth, living_in
from tests.machine.memory import hidden
from tests.machine.source import call_state


def dataset_is_the_source(history: History, night: Night) -> None:
    """After exit 0, for each run test: what is not marked is what the source had when the run began, and still has."""
    if not night.is_complete:
        return
    truth = Truth.of(history, night)
    left_out = {"reason": None} if history.left_out else {}
    evals = {key: row | left_out for key, row in eval_rows(truth.world).items()}
    for table, rows, wanted in (
        ("executions", truth.executions, {execution_id for (execution_id,) in truth.executions}),
        ("calls", call_rows(truth.world), truth.compared),
        ("evals", evals, truth.compared),
    ):
        rows_held = [each.row for each in night.after.tables[table].values() if not is_marked(each.row)]
        held = [row for row in rows_held if row["execution_id"] in wanted]
        try:
            assert_same_rows(table, held, {key: row for key, row in rows.items() if row["execution_id"] in wanted})
        except AssertionError as error:
            raise AssertionError(f"L4: {table} are not those of the source: {error}") from error
    if night.options.get("metrics") != "listed":
        inexact = [each for each in truth.compared if is_from_lists(night.after, each)]
        assert not inexact, f"L4: exit 0, and calls of {inexact[0]} have no metrics of their own"
    unmarked = living_in(night.after, night.names) - truth.unsure
    assert unmarked == {each for (each,) in truth.executions}, (
        "L4: other executions are unmarked than those of the source"
    )


def what_stood_still_is_there(history: History, night: Night) -> None:
    """After exit 0, each call that existed all the time, although other calls of its execution changed meanwhile."""
    if not night.is_complete:
        return
    unsure = history.source.unseen | hidden(history.source, night) | history.memory.healing.keys()
    executions = [each for each in history.source.executions(is_finished=True) if each.run_test.name in night.names]
    for execution in executions:
        execution_id = execution.execution_id
        before, after = night.source_before.get(execution_id), night.source_after[execution_id]
        if execution_id in unsure or before is None or before == after or before[:-1] != after[:-1]:
            continue
        for call in listable_calls(execution):
            if call_state(call) in before[-1]:
                held = night.after.tables["calls"].get((call.call_execution_id,))
                is_there = held is not None and not is_marked(held.row)
                assert is_there, f"L4: {call.call_execution_id} existed all the time, and is not there"


def unproved_lists_are_exported(history: History, night: Night) -> None:
    """Rows of an unproved list are exported, too: where only some rows cannot be read, the dataset has all others."""
    if not (night.is_full and night.is_clean):
        return
    for execution in history.source.executions():
        if execution.run_test.name in night.names and not history.source.is_poisoned(execution):
            held = night.after.executions.get(execution.execution_id)
            is_there = held is not None and not is_marked(held.row)
            assert is_there, f"L4: {execution.execution_id} is listed, and not exported"


def unproved_lists_mark_nothing(_history: History, night: Night) -> None:
    """Rows missing from an unproved list do not count as deleted."""
    findings = night.summary.findings if night.summary else ()
    unproved = {each.subject for each in findings if each.kind in (Kind.LIST_UNPROVED, Kind.ROW_UNREADABLE)}
    missing = night.after.called(unproved) & night.before.of.keys() - night.listed_before.keys()
    for execution_id in missing:
        before = night.before.executions.get(execution_id)
        assert before is None or is_marked(before.row) or not is_marked(night.after.executions[execution_id].row), (
            f"L4: {execution_id} is missing from a list that nothing proves, and is marked"
        )
