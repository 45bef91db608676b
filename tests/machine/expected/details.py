"""What only an execution's detail shows (laws 4, 8 and 9).

A row that a run writes has it as the source shows it, or a dead letter of the detail says that it is missing. As long
as one does, the execution is not final, and no run over it ends with 0.
"""

from etl.model.records import DETAIL
from etl.sandbox.simulate import execution_detail
from tests.machine.dataset import Held, is_marked, said
from tests.machine.driver import History, Night
from tests.machine.expected.requests import subject_of
from tests.machine.memory import hidden
from tests.machine.source import FINISHED

_COLUMNS = ("overall_score", "agent_definition_used_name")


def details_are_the_source(history: History, night: Night) -> None:
    """Of each row that was written, and, if nothing failed, of each execution whose detail was requested."""
    if night.is_killed or not _reads_details(night):
        return
    requested = {subject_of(each) for each in night.requests if each.path.startswith(DETAIL)}
    is_calm = night.is_clean and night.summary is not None and night.summary.failure is None
    letters = {held.row["subject_id"] for held in _letters(night)}
    unsure = hidden(history.source, night) | letters
    for execution in history.source.executions(is_finished=True):
        execution_id = execution.execution_id
        was_final = execution_id in night.before.in_state("exported")
        if execution_id in unsure or execution_id not in night.in_scope or (was_final and _scrubs(night)):
            continue
        shown = {each["id"]: each for each in execution_detail(execution, "", {"limit": "999"})["results"]}
        for (table, key), held in night.after.of.get(execution_id, {}).items():
            if table != "calls" or is_marked(held.row) or key[0] in letters or key[0] not in shown:
                continue
            before = night.before.tables[table].get(key)
            is_written = before is None or said(table, before.row) != said(table, held.row)
            if is_written or (is_calm and execution_id in requested):
                wrong = [name for name in _COLUMNS if held.row[name] != shown[key[0]][name]]
                assert not wrong, f"L4: {key[0]}: {wrong[0]} is {held.row[wrong[0]]}, not {shown[key[0]][wrong[0]]}"


def what_lacks_its_detail_settles(_history: History, night: Night) -> None:
    if not night.is_killed:
        final = night.after.in_state("exported")
        wrong = [held.row for held in _letters(night) if held.row["execution_id"] in final]
        assert not wrong, f"L8: final beside a dead letter: {wrong[0]}"


def missing_details_are_told(history: History, night: Night) -> None:
    """Each night, as long as it is so."""
    finished = {each.execution_id for each in history.source.executions() if each.status in FINISHED}
    left = [held.row for held in _letters(night) if held.row["execution_id"] in finished & night.in_scope]
    if night.is_complete:
        assert not left, f"L9: exit 0 beside a dead letter: {left[0]}"


def _reads_details(night: Night) -> bool:
    """Whether the settings of the night, and the API, give details."""
    findings = night.summary.findings if night.summary else ()
    is_wanted = night.options.get("settle_by") != "refetch" or night.options.get("metrics") == "listed"
    return is_wanted and not any("the API has no details" in each.text for each in findings)


def _scrubs(night: Night) -> bool:
    return "scrub_requests" in night.options


def _letters(night: Night) -> list[Held]:
    return [held for held in night.after.tables["errors"].values() if held.row["endpoint"] == DETAIL]
