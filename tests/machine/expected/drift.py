"""Law 9, where the API gives values in another form.

9. A finding is the only alarm. So there is one while values of a run test that the source has are not in the dataset,
   and none for a single execution, nor for values that the execution's detail has, too.
"""

from collections import Counter, defaultdict
from typing import Any

from etl.model.findings import Kind
from tests.e2e.truth import call_rows, eval_rows, execution_rows
from tests.forms import FILLED
from tests.machine.dataset import Rows, is_marked
from tests.machine.driver import History, Night
from tests.machine.expected.requests import subject_of
from tests.machine.memory import told
from tests.machine.source import SETTLE, Lie

_MANY = 20
_OUTPUTS = ("output_passed", "output_score", "output_text")
_COLUMNS = {
    "a cost": ("calls", ("cost_stt_cost_cents",)),
    "a unit": ("calls", ("latency_response_time_ms",)),
    "evals": ("evals", _OUTPUTS),
    "times": ("executions", ("started_at", "completed_at")),
    "a start": ("executions", ("started_at",)),
    "averages": ("executions", ("calls_total", "latency_avg_agent_latency_ms")),
    "an average": ("executions", ("latency_percentiles_p50",)),
}
"""By form, the columns that lose values; not of a score or a verdict, which a source may never have had."""
_HARMLESS = {"page_limit", "commit_interval_seconds", "accept_deletions", "full_refresh"}


def drift_is_told_rightly(history: History, night: Night) -> None:
    """An alarm needs two executions that lack values, or the alarm of the night before; and these are not final.

    One of the two may have lacked them in the night before alone: a run test is judged over two nights.
    """
    if not _is_plain(history, night):
        return
    source, memory = history.source, history.memory
    for name, text in told(night, Kind.ANSWERS_CHANGED).items():
        if "evals.output_passed" in text and len(source.odd_verdicts()) > 1:
            continue
        assert source.form not in FILLED or memory.healing, f"L9: {source.form} is no loss: {text}"
        if source.form in _COLUMNS and not memory.told:
            lacking = _lacking(history, night, name) | _lacking(history, night, name, rows=night.before)
            assert len(lacking) > 1, f"L9: one execution is an alarm: {text}"
    for name in source.formed_names() & night.names:
        for execution_id in _lacking(history, night, name):
            state = night.after.executions[execution_id].row["export_state"]
            assert state != "exported" or execution_id in source.unseen, (
                f"L8: {execution_id} lacks values that the API has ({source.form}), and is final"
            )


def drift_that_must_be_told(history: History, night: Night) -> list[str]:
    """Two executions lack values that the API has, in a second night or in many calls."""
    memory, source = history.memory, history.source
    if not _is_plain(history, night) or source.form not in _COLUMNS:
        return []
    is_second = memory.form == source.form
    found = []
    for name in source.formed_names() & night.names:
        lacking = {key: calls for key, calls in _lacking(history, night, name).items() if key not in source.unseen}
        is_known = is_second and (name in memory.odd or name in memory.told)
        if len(lacking) > 1 and (is_known or sum(lacking.values()) >= _MANY):
            found.append(f"{len(lacking)} executions of {name} lack values that the API has otherwise: {source.form}")
    return found


def drift_costs_one_probe(history: History, night: Night) -> None:
    """Of executions that only an alarm holds, a run asks for one a run test while it says the same."""
    is_as_before = history.source.form == history.memory.form
    if not (is_as_before and _is_plain(history, night)) or night.options.get("full_refresh"):
        return
    asked = {subject_of(request) for request in night.requests}
    for name in told(night, Kind.ANSWERS_CHANGED).keys() & history.memory.told.keys():
        held = {
            execution_id
            for execution_id, held in night.before.executions.items()
            if held.row["run_test_name"] == name
            and execution_id in night.listed_before
            and not is_marked(held.row)
            and held.row["export_state"] == "settling"
            and held.row["verified_at"]
            and held.row["completed_at"]
            and held.row["verified_at"] - held.row["completed_at"] >= SETTLE
            and night.after.executions[execution_id].row["fingerprint"] == held.row["fingerprint"]
        }
        probes = held & asked & _lacking(history, night, name).keys()
        assert len(probes) <= 1, f"L10: {len(probes)} executions that an alarm holds were asked for"


def _is_plain(history: History, night: Night) -> bool:
    """Whether nothing else is wrong, and each execution is compared with its detail."""
    source = history.source
    is_usual = night.options.keys() <= _HARMLESS and source.fault is None and night.lie == Lie() and not source.poisoned
    return bool(is_usual and night.is_full and night.is_clean and not history.memory.is_struck)


def _lacking(history: History, night: Night, name: str, *, rows: Rows | None = None) -> dict[str, int]:
    """The executions of the run test that lack values that the API has, each with how many calls do, or are completed.

    Not those of which more calls have the value. ``rows`` are those that the night left, unless they are given.
    """
    if history.source.form not in _COLUMNS:
        return {}
    table, columns = _COLUMNS[history.source.form]
    world = history.source.world
    wanted: dict[Any, Any] = {"calls": call_rows, "evals": eval_rows, "executions": execution_rows}[table](world)
    finished = history.source.executions(is_finished=True)
    judged = [(each, call) for each, call in history.source.calls(finished) if call.status == "completed"]
    calls = Counter({each.execution_id: 0 for each in finished if table == "executions"})
    calls.update(each.execution_id for each, _ in judged)
    completed = {call.call_execution_id for _, call in judged}
    found: defaultdict[str, set[str]] = defaultdict(set)
    right = Counter[str]()
    for key, held in (rows or night.after).tables[table].items():
        row, truth = held.row, wanted.get(key)
        is_judged = table == "executions" or key[0] in completed
        if truth is None or not is_judged or is_marked(row) or row["execution_id"] not in calls:
            continue
        own = night.after.executions[row["execution_id"]].row
        if own["run_test_name"] == name and any(row[each] != truth[each] != None for each in columns):  # noqa: E711
            found[row["execution_id"]].add(key[0])
        elif table == "calls" and row[columns[0]] is not None:
            right[row["execution_id"]] += 1
    lacking = {key: len(lost) for key, lost in found.items() if len(lost) >= right[key]}
    return {key: number if table == "calls" else calls[key] for key, number in lacking.items()}
