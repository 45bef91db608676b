"""The steps that ``plan`` and ``export`` share: read the dataset's state, and plan what a round of lists brings.

Nothing is written, but for damaged files that an export moves out of the way.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from itertools import chain

from etl.dataset.comparisons import read_compared
from etl.dataset.state import StoredState, read_state
from etl.extract.plan import Planned, order_by_worth, plan_run_test, previews, requests_to_fetch
from etl.extract.sweep import choose
from etl.model import schema
from etl.model.findings import Kind
from etl.model.keys import default_key, numbered_keys
from etl.model.lifecycle import overdue_after
from etl.pipeline.context import Run
from etl.pipeline.record import Record, count_reasons
from etl.settings import RunTest

PATIENCE_SECONDS = 5 * 60.0
"""If fetching what is new exactly takes longer, rows of its lists come first, at two requests more an execution."""
_NIGHT_MINUTES = 600.0
"""How long a night is if ``max_runtime_minutes`` does not say it: a tenth of its requests are for the sweep."""
MANY_REQUESTS = 5_000
"""Where no limit is known, so many requests count as that long."""


def read_stored(run: Run, record: Record, *, set_aside: bool) -> StoredState:
    """What the dataset holds; files that cannot be read are findings, and are moved to quarantine if ``set_aside``.

    Raises:
        DestinationError: the dataset cannot be read.
    """
    state = read_state(run.dataset, set_aside=set_aside)
    for path in state.unreadable:
        has_rows = not path.startswith(f"{schema.RUNS_TABLE.name}/")
        text = f"is damaged, and {'was moved' if set_aside else 'a run moves it'} to _state/quarantine"
        text += ". The rows are fetched again" if has_rows else ". The file held no rows"
        record.find(Kind.QUARANTINED if has_rows else Kind.DOCUMENT_SET_ASIDE, path, text)
    return state


def absent_executions(record: Record, state: StoredState) -> dict[str, set[str]]:
    """By run test, the stored executions that its list should have and no list has; only a proved list says that."""
    proved = {name for name, executions in record.lists.items() if executions.is_complete}
    absent: dict[str, set[str]] = {run_test.name: set() for run_test in record.run_tests if run_test.name in proved}
    listed = record.listed_ids()
    for execution_id, known in state.executions.items():
        is_due = known.deleted_at is None and known.has_row and known.run_test_name in absent
        if is_due and execution_id not in listed:
            absent[known.run_test_name].add(execution_id)
    return absent


def half_written(record: Record, state: StoredState) -> set[str]:
    """The executions that a killed run left between two files, and that no list has, nor should have.

    That is: without the row that names their run test, or with one that is marked already, or names a run test of
    which no list is read.
    """
    names = {run_test.name for run_test in record.run_tests}
    without_row = {
        execution_id
        for execution_id, known in state.executions.items()
        if known.deleted_at is None
        and (not known.has_row or (known.has_newer_rows and known.run_test_name not in names))
    }
    return (without_row | state.half_unmarked) - record.listed_ids()


def home_of(record: Record, state: StoredState, run_test: RunTest) -> str:
    """The key of the partition for new executions of the run test.

    That is the configured one; else that of most stored executions that the run test lists now. If it lists none: that
    of most that have its name, else one made of its name, but none in which executions of another name lie.
    """
    if run_test.key != default_key(run_test.name):
        return run_test.key
    stored = state.executions
    listed = record.lists[run_test.name].executions if run_test.name in record.lists else {}
    if keys := Counter(stored[execution_id].run_test_key for execution_id in listed if execution_id in stored):
        return max(keys, key=lambda key: (keys[key], key))
    taken = {known.run_test_key for known in stored.values() if known.run_test_name != run_test.name}
    own = Counter(known.run_test_key for known in stored.values() if known.run_test_name == run_test.name)
    by_name = sorted(own, key=lambda key: (own[key], key), reverse=True)
    return next(key for key in chain(by_name, numbered_keys(run_test.key)) if key not in taken)


def choose_sweep(run: Run, record: Record, state: StoredState) -> None:
    """Note which final executions in scope are compared with the source again, if the lists still have them."""
    export = run.settings.export
    limit = run.client.quota.requests_per_minute or record.before.requests_per_minute
    most = math.inf if limit is None else limit * (export.max_runtime_minutes or _NIGHT_MINUTES) / 10
    since = {run_test.name: run_test.since for run_test in record.run_tests}
    too_old = {day: state.started_before(day) if day else set() for day in {*since.values()}}
    final = {
        key: known
        for key, known in state.executions.items()
        if known.is_final and known.run_test_name in since and key not in too_old[since[known.run_test_name]]
    }
    record.swept = choose(
        final,
        read_compared(run.dataset.files),
        now=run.by_source(run.started_at),
        within=timedelta(days=export.sweep_days),
        most_requests=most,
        compares=run.policy.settle_by_detail,
    )


def choose_previews(run: Run, planned: Iterable[Planned]) -> list[Planned]:
    """What is to be stored from its lists first: all that is new, if its calls' own metrics may take long."""
    new = previews(planned)
    requests = sum(item.estimated_calls for item in new)
    seconds = run.client.quota.seconds_for(requests, math.inf)
    takes_long = requests >= MANY_REQUESTS if seconds is None else seconds >= PATIENCE_SECONDS
    return new if takes_long else []


def make_plan(run: Run, record: Record, state: StoredState, run_tests: Iterable[RunTest]) -> list[Planned]:
    """What to do with each listed execution of these run tests, most valuable first; it is recorded, too.

    An execution that several lists have is planned once.
    """
    page_limit = run.settings.api.page_limit
    overdue_since = run.by_source(run.started_at) - overdue_after(run.settle)
    policy = replace(
        run.policy, overdue_since=overdue_since, settle=run.settle, previewed=record.previewed, swept=record.swept
    )
    planned: list[Planned] = []
    done = {id_: item for item in record.all_planned() if (id_ := item.execution.execution_id) in record.committed}
    for run_test in run_tests:
        record.planned.pop(run_test.name, None)
    seen = {item.execution.execution_id for item in record.all_planned()}
    for run_test in run_tests:
        listed = record.lists.get(run_test.name)
        if listed is None:
            continue
        home = home_of(record, state, run_test)
        items = plan_run_test(run_test, listed, state.executions, home=home, policy=policy)
        items = [done.get(item.execution.execution_id, item) for item in items]
        planned += [item for item in items if item.execution.execution_id not in seen]
        seen |= listed.executions.keys()
        record.planned[run_test.name] = []
    planned = order_by_worth(planned)
    for item in planned:
        record.planned[item.run_test_name].append(item)
    for run_test in run_tests:
        if run_test.name in record.lists:
            reasons = dict(count_reasons(record.planned[run_test.name]))
            executions = len(record.lists[run_test.name].executions)
            run.notify("listed", run_test=run_test.name, executions=executions, reasons=reasons)
    run.progress.planned_executions = sum(item.is_awaited for item in record.all_planned())
    expected = requests_to_fetch(record.all_planned(), run.progress.previews, page_limit=page_limit)
    run.progress.planned_requests = sum(expected.values())
    run.notify("planned", executions=run.progress.planned_executions, requests=run.progress.planned_requests)
    return planned
