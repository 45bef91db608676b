"""What only an execution's detail shows (laws 4, 8 and 9).

A row that a run writes has it as the source shows it, or a dead letter of the detail says that it is missing. As long
as one does, the execution is not final, and no run over it ends with 0.
"""

from etl.model.findings import Kind
from etl.model.records import DETAIL
from etl.sandbox.simulate import execution_detail
from tests.machine.dataset import Held, is_marked, said
from tests.machine.driver import History, Night
from tests.machine.expected.requests import subject_of
from tests.machine.memory import hidden, told
from tests.machine.source import FINISHED

_COLUMNS = ("overall_score", "agent_definition_used_name")


def details_are_the_source(history: History, night: Night) -> None:
    """Of each row that was written, and, if nothing failed, of each execution whose detail was requested.

    Without a detail, there is nothing in its place, and nothing from before the execution changed.
    """
    if night.is_killed:
        return
    requested = {subject_of(each) for each in night.requests if each.path.startswith(DETAIL)}
    is_calm = night.is_clean and night.summary is not None and night.summary.failure is None
    is_calm = is_calm and not told(night, Kind.NOT_COMPARED)  # the sweep was cut short
    letters = {held.row["subject_id"] for held in missing_details(night)}
    before, after = night.before.executions, night.after.executions
    scope = night.in_scope & after.keys() - hidden(history.source, night)
    for execution in history.source.executions(is_finished=True):
        execution_id = execution.execution_id
        if execution_id not in scope:
            continue
        versions = [each[execution_id].row["fingerprint"] for each in (before, after) if execution_id in each]
        has_changed = len({*versions}) > 1
        is_read = night.options.get("settle_by") != "refetch" or night.options.get("metrics") == "listed"
        shown = {each["id"]: each for each in execution_detail(execution, "", {"limit": "999"})["results"]}
        for (table, key), held in night.after.of[execution_id].items():
            if table != "calls" or is_marked(held.row) or key[0] not in shown:
                continue
            old = night.before.tables[table].get(key)
            is_written = old is None or said(table, old.row) != said(table, held.row)
            lacks = not is_read or letters & {execution_id, key[0]}
            if (is_written and (has_changed or not lacks)) or (is_calm and not lacks and execution_id in requested):
                for name in _COLUMNS:
                    value = held.row[name]
                    is_right = value == shown[key[0]][name] or (lacks and value is None)
                    assert is_right, f"L4: {key[0]}: {name} is {value}, not {shown[key[0]][name]}"


def what_lacks_its_detail_settles(_history: History, night: Night) -> None:
    if not night.is_killed:
        final = night.after.in_state("exported")
        wrong = [held.row for held in missing_details(night) if held.row["execution_id"] in final]
        assert not wrong, f"L8: final beside a dead letter: {wrong[0]}"


def missing_details_are_told(history: History, night: Night) -> None:
    """Each night, as long as it is so."""
    finished = {each.execution_id for each in history.source.executions() if each.status in FINISHED}
    left = [held.row for held in missing_details(night) if held.row["execution_id"] in finished & night.in_scope]
    if night.is_complete:
        assert not left, f"L9: exit 0 beside a dead letter: {left[0]}"


def missing_details(night: Night) -> list[Held]:
    """The dead letters of details that it left."""
    return [held for held in night.after.tables["errors"].values() if held.row["endpoint"] == DETAIL]
