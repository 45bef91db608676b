"""What lists of run tests say of executions: which version was tested, and what judged it.

It is noted when an execution is first seen finished, and never changes afterwards, whatever the source says later.
"""

from etl.model.schema import DESCRIBED
from tests.machine.driver import History, Night
from tests.machine.memory import hidden

_ONCE = [column.name for column in DESCRIBED]


def descriptions_are_the_source_and_stay(history: History, night: Night) -> None:
    """A night without faults, and with time enough, leaves no new finished execution without one."""
    before, after = night.before.executions, night.after.executions
    at_source = {each.execution_id: each for each in history.source.all_executions()}
    for execution_id, held in after.items():
        told = {name: held.row[name] for name in _ONCE}
        known = before[execution_id].row if execution_id in before else dict.fromkeys(_ONCE)
        if known["judged_by_fingerprint"] is not None:
            assert told == {name: known[name] for name in _ONCE}, f"L6: {execution_id} was {known}, and is {told}"
        elif told["run_test_id"] is not None and execution_id not in night.changed:
            execution = at_source[execution_id]
            expected = (execution.run_test.run_test_id, execution.agent_version, execution.error_reason)
            assert (told["run_test_id"], told["agent_version"], told["error_reason"]) == expected, told
    if night.is_complete and night.is_clean and "minutes" not in night.options:
        finished = {each.execution_id for each in history.source.executions(is_finished=True)}
        new = (after.keys() - before.keys()) & finished & night.in_scope - hidden(history.source, night)
        lacking = [each for each in new if after[each].row["judged_by_fingerprint"] is None]
        assert not lacking, f"L1: {lacking[0]} is new, and nothing says which version it tested"
