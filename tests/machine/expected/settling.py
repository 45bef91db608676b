"""Law 8.

8. A change reopens settling. What is new, changed, marked or unmarked is compared again until ``settle_hours`` pass without a
   difference. So a source error that lasts one night is corrected. In a first export, what ended long ago is final at once.

That a source error is corrected is judged by laws 4 and 5: whatever a list hid is no longer ``unsure`` after some clean nights.
"""

from tests.machine.driver import History, Night


def final_stays_whole(history: History, night: Night) -> None:
    """What was final and is as the last good run found it is not incomplete, however a night without faults ends."""
    if not night.is_clean or history.memory.is_struck:
        return
    unsure = history.source.unseen | history.source.nameless
    for execution_id, state in history.memory.last_good_state.items():
        if execution_id in unsure or state != night.source_before[execution_id]:
            continue
        before, after = (rows.executions.get(execution_id) for rows in (night.before, night.after))
        has_detail = all(
            held.row["rerun_snapshots"] is not None
            for (table, _), held in night.before.of.get(execution_id, {}).items()
            if table == "calls"
        )
        if before and after and before.row["export_state"] == "exported" and has_detail:
            assert after.row["export_state"] != "incomplete", f"L8: {execution_id}, which was final, is incomplete"
