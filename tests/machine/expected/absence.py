"""Laws 5 and 6.

5. An absence is confirmed by id. A stored row that is missing from a proved list is requested by its id. If the API
   does not know it, the row is marked. If the API knows one of them, the list was wrong, and none is marked. Evals have
   no id: their call's entry in the list decides.
6. A mark is reversible. It is cleared when the source lists the row again. Nothing but its owner's word
   (`metrics-etl forget`) ever removes an execution, call or eval.
"""

from etl.sandbox.world import SimulatedExecution
from tests.e2e.truth import outputs_of
from tests.machine.dataset import DATA, Key, is_marked
from tests.machine.driver import History, Night
from tests.machine.expected.truth import Truth, living_in

_VERSION = {"export_run_id", "exported_at"}
_OF_A_NAME = {"run_test_name", "calls_digest"}
_OF_WHAT_IS_FORGOTTEN = {"execution_id", "run_test_name", "started_at", "export_state", "fingerprint", "calls_digest"}
_OF_WHAT_IS_FORGOTTEN |= {"exported_calls", "deleted_at", *_VERSION}
_OF_AN_EXECUTION = {"exported_calls", "listed_calls", "export_state", "verified_at"}


def marks_are_true(history: History, night: Night) -> None:
    """Whatever fails or lies, a mark is new only where the subject is gone, and goes only where it is back."""
    executions = {each.execution_id: each for each in history.source.all_executions()}
    for table in DATA:
        before = night.before.tables[table]
        for key, held in night.after.tables[table].items():
            if (old := before.get(key)) is held or is_marked(held.row) == (old is not None and is_marked(old.row)):
                continue
            execution = executions[held.row["execution_id"]]
            if execution.execution_id in night.changed:
                continue
            is_in_deleted = any(execution.run_test is each for each in history.source.deleted)
            exists = not is_in_deleted and _exists(table, key, execution)
            assert exists != is_marked(held.row), f"L5: {table}: {key} is{'' if exists else ' not'} there"


def _exists(table: str, key: Key, execution: SimulatedExecution) -> bool:
    if table == "executions" or execution.is_deleted:
        return not execution.is_deleted
    call = next((each for each in execution.calls if each.call_execution_id == key[0]), None)
    if call is None or call.is_deleted:
        return False
    return table == "calls" or key[1] in outputs_of(call)


def a_wrong_list_marks_nothing(history: History, night: Night) -> None:
    """If the API knows one that is missing from a list, none is marked: no execution of the run test, no call."""
    if history.source.fault is not None or night.was_changing:
        return
    told = {each.execution_id for each in history.source.executions() if not history.source.is_poisoned(each)}
    lied = night.lie.executions & living_in(night.before, night.names) & told
    hidden = {each for each in lied if _is_living(night, each)}
    names = {night.after.executions[each].row["run_test_name"] for each in hidden}
    for execution_id in living_in(night.before, night.names) & night.after.called(names):
        assert _is_living(night, execution_id), f"L5: {execution_id} is marked, although its list was wrong"
    calls, before = night.after.tables["calls"], night.before.tables["calls"]
    stored = {key: held.row["execution_id"] for key, held in before.items() if not is_marked(held.row)}
    wrong = {execution_id for (call_id,), execution_id in stored.items() if call_id in night.lie.calls}
    for key, execution_id in stored.items():
        if execution_id in wrong and _is_living(night, execution_id):
            assert not is_marked(calls[key].row), f"L5: {key} is marked, although its list was wrong"


def _is_living(night: Night, execution_id: str) -> bool:
    held = night.after.executions.get(execution_id)
    return held is not None and not is_marked(held.row)


def what_is_gone_is_marked(history: History, night: Night) -> None:
    """After exit 0, of an execution that the API does not know any more; its calls and evals with it."""
    if not night.is_complete:
        return
    gone = {each.execution_id for each in history.source.all_executions() if each.is_deleted}
    gone -= Truth.of(history, night).unsure
    for execution_id in gone & night.after.called(night.names):
        unmarked = [key for key, held in night.after.of[execution_id].items() if not is_marked(held.row)]
        assert not unmarked, f"L5: the execution of {unmarked[0]} is gone, and no mark says so"


def nothing_is_lost(_history: History, night: Night) -> None:
    """No night removes an execution, call or eval, but to finish what its owner began to remove."""
    for table in DATA:
        lost = night.before.tables[table].keys() - night.after.tables[table].keys()
        assert not lost, f"L6: {table}: {len(lost)} rows are gone, as {min(lost)}"


def what_is_forgotten_stays_so(history: History, night: Night) -> None:
    """After each night that began: the row of each forgotten execution, which says so and nothing of the source."""
    if night.is_killed or night.refused is not None:
        return
    left = [{name for name, value in row.items() if value is not None} for row in history.reader.left]
    assert all(names <= _OF_WHAT_IS_FORGOTTEN for names in left), f"L6: {left} is left of what was forgotten"
    assert len(left) == len(history.reader.forgotten), "L6: what was forgotten has other rows than its own"


def marked_rows_stay(_history: History, night: Night) -> None:
    """A row that stays marked keeps its values."""
    for table in DATA:
        after = night.after.tables[table]
        for key, old in night.before.tables[table].items():
            if (new := after.get(key, old)) is old or not (is_marked(old.row) and is_marked(new.row)):
                continue
            stays = [name for name in old.row if name not in _VERSION | _OF_A_NAME | _OF_AN_EXECUTION]
            other = [name for name in stays if old.row[name] != new.row[name]]
            assert not other, f"L6: {table}: {key} was deleted, and has another {other}"
