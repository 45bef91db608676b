"""Law 7.

7. Nothing moves. An execution stays in the part where it was first stored, even if its run test is renamed. If it
   exists, but not in the list of its name, it takes the name of the run test that lists it. A run test that takes over
   a name gets a folder of its own.
"""

from etl.model.keys import default_key
from tests.machine.dataset import is_marked
from tests.machine.driver import History, Night
from tests.machine.expected.truth import Truth


def nothing_moves(history: History, night: Night) -> None:
    """All rows of an execution lie in one part, in which they lay before."""
    for execution_id, rows in night.after.of.items():
        parts = {held.part for held in rows.values()}
        if execution_id in history.memory.hurt:
            continue
        assert len(parts) == 1, f"L7: {execution_id} lies in {len(parts)} parts"
        if before := night.before.of.get(execution_id):
            assert parts == {held.part for held in before.values()}, f"L7: {execution_id} has moved"


def all_rows_have_the_name(history: History, night: Night) -> None:
    """After exit 0, all rows of an execution have the name that its run test has now."""
    if not night.is_complete:
        return
    for (execution_id,), row in Truth.of(history, night).executions.items():
        names = {held.row["run_test_name"] for held in night.after.of[execution_id].values()}
        assert names == {row["run_test_name"]}, f"L7: rows of {execution_id} are called {names}"


def a_clone_has_a_folder_of_its_own(history: History, night: Night) -> None:
    """What is new of a run test lies beside what is stored of it, or where nothing that exists has another name."""
    if not (night.is_complete and night.is_clean) or history.source.delays:
        return
    names: dict[str, set[str]] = {}
    for execution_id, held in night.before.executions.items():
        after = night.after.executions[execution_id].row
        if not is_marked(after):
            names.setdefault(held.part.run_test_key, set()).add(after["run_test_name"])
    for execution_id in night.after.of.keys() - night.before.of.keys():
        held = night.after.executions[execution_id]
        name, key = held.row["run_test_name"], held.part.run_test_key
        if key != night.keys.get(name) or key == default_key(name):
            assert name in names.get(key, {name}), f"L7: what is new of {name} lies with {names[key]}"
