"""Law 8.

8. A change reopens settling. What is new, changed, marked or unmarked is compared again until ``settle_hours`` pass
   without a difference. So a source error that lasts one night is corrected. In a first export, what ended long ago is
   final at once.

That a source error is corrected is judged by laws 4 and 5: whatever a list hid is no longer ``unsure`` after some clean
nights.
"""

from datetime import datetime, timedelta

from etl.model.lifecycle import LONG_AGO
from tests.forms import LOST
from tests.machine.dataset import is_from_lists, is_marked, is_vouched_for
from tests.machine.driver import History, Night
from tests.machine.source import FINISHED, SETTLE

_NEXT_NIGHT = timedelta(hours=24 * 0.9 - 0.2)
"""``settle_hours``, and a little less: runs may start early."""


def what_differs_settles(history: History, night: Night) -> None:
    """What is new, changed, marked or unmarked tonight is not final until ``settle_hours`` pass without a difference.

    What is new may be final in a run test that no run has completed, and what was stored from its lists when its
    metrics come.
    """
    memory = history.memory
    for execution_id, held in night.after.executions.items():
        old = night.before.executions.get(execution_id)
        if held is old or held.row["export_state"] != "exported" or is_marked(held.row) or execution_id in memory.hurt:
            continue
        ended_at = held.row["completed_at"]
        if old is None:
            is_late = held.row["run_test_name"] in memory.complete_before(night)
            assert not is_late, f"L8: {execution_id} is new, and final at once"
        elif old.row["export_state"] == "listed" or is_from_lists(night.before, execution_id):
            continue
        # A killed run may leave newer calls without their execution's row: that is fetched again (law 3).
        elif all(is_vouched_for(rows.of[execution_id]) for rows in (night.before, night.after)):
            assert not night.differs(execution_id), f"L8: {execution_id} is another one than before, and final"
            since = night.began_at - memory.differed_at.get(execution_id, LONG_AGO)
            is_early = old.row["export_state"] != "exported" and since < _NEXT_NIGHT
            assert not is_early, f"L8: {execution_id} is final {since} after its last difference"
        if old is None or old.row["export_state"] != "exported":
            is_early = ended_at is not None and SETTLE > night.began_at - ended_at >= timedelta(0)
            assert not is_early, f"L8: {execution_id} is final, and ended at {ended_at}"


def first_exports_are_final(history: History, night: Night) -> None:
    """In a first export, what ended long ago is final at once."""
    if (
        history.nights > 1
        or not (night.is_complete and night.is_clean and night.is_full)
        or history.source.form in LOST
    ):
        return
    odd = history.source.odd_verdicts()
    for execution in history.source.executions(is_finished=True):
        held = night.after.executions.get(execution.execution_id)
        ended_at: datetime | None = execution.completed_at
        is_long = ended_at is not None and night.began_at - ended_at >= SETTLE
        if (
            held
            and is_long
            and execution.execution_id not in odd
            and all(each.status in FINISHED and not each.is_deleted for each in execution.calls)
        ):
            state = held.row["export_state"]
            assert state == "exported", f"L8: {execution.execution_id}, which ended long ago, is {state}"


def final_stays_whole(history: History, night: Night) -> None:
    """What was final and is as the last good run found it is not incomplete, however a night without faults ends."""
    if not night.is_clean or history.memory.is_struck:
        return
    unsure = history.source.unseen | history.source.nameless | history.memory.healing.keys()
    for execution_id, state in history.memory.last_good_state.items():
        if execution_id in unsure or state != night.source_before[execution_id]:
            continue
        before, after = (rows.executions.get(execution_id) for rows in (night.before, night.after))
        rows = [held.row for (table, _), held in night.before.of.get(execution_id, {}).items() if table == "calls"]
        has_detail = all(row["rerun_snapshots"] is not None for row in rows)
        # One by one, it takes rows that lists made by their own metrics: these are other rows.
        is_same = not night.options.get("full_refresh") or {row["metrics_from"] for row in rows} <= {"metrics"}
        if before and after and before.row["export_state"] == "exported" and has_detail and is_same:
            assert after.row["export_state"] != "incomplete", f"L8: {execution_id}, which was final, is incomplete"
