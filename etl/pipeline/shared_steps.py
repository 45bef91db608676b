"""The steps that ``plan`` and ``export`` share: load the state, and plan what a round of lists brings. Writes nothing."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from etl.dataset.state import StoredState, read_state
from etl.errors import SourceError
from etl.extract.endpoints import list_call_details
from etl.extract.plan import Planned, order_by_worth, plan_run_test, previews, requests_to_fetch, scrub
from etl.model import schema
from etl.model.findings import Kind
from etl.model.keys import default_key
from etl.model.lifecycle import OVERDUE
from etl.pipeline.context import Run
from etl.pipeline.record import Record, count_reasons
from etl.settings import RunTest

PATIENCE_SECONDS = 5 * 60.0
"""What is new may take so long to fetch exactly. Longer, its lists come first: two requests more an execution, and rows at once."""


def load_stored(run: Run, record: Record, *, set_aside: bool) -> StoredState:
    """What the dataset holds; files that cannot be read are findings. Errors as for ``read_state``."""
    state = read_state(run.dataset, set_aside=set_aside)
    for path in state.unreadable:
        kind, text = Kind.QUARANTINED, "damaged: a run moves it to _state/quarantine and fetches its rows again"
        if path.startswith(f"{schema.RUNS_TABLE.name}/"):
            kind, text = Kind.DOCUMENT_SET_ASIDE, "damaged: a run moves it to _state/quarantine; it held no rows"
        record.find(kind, path, text)
    return state


def absent_executions(record: Record, state: StoredState) -> dict[str, set[str]]:
    """By run test, the stored executions that its list should have and no list has; only a proved list says that."""
    proved = {name for name, found in record.lists.items() if found.is_complete}
    absent: dict[str, set[str]] = {each.name: set() for each in record.run_tests if each.name in proved}
    listed = record.listed_ids()
    for execution_id, known in state.executions.items():
        is_due = known.deleted_at is None and known.has_row and known.run_test_name in absent
        if is_due and execution_id not in listed:
            absent[known.run_test_name].add(execution_id)
    return absent


def half_written(record: Record, state: StoredState) -> set[str]:
    """The executions that a killed run left between two files, and that no list has, nor should have.

    That is: without the row that names their run test, or with one that is marked already, or names a run test of which no list is
    read.
    """
    names = {each.name for each in record.run_tests}
    left = {
        each
        for each, known in state.executions.items()
        if known.deleted_at is None
        and (not known.has_row or (known.has_newer_rows and known.run_test_name not in names))
    }
    return (left | state.half_unmarked) - record.listed_ids()


def home_of(record: Record, state: StoredState, run_test: RunTest) -> str:
    """The key of the partition for new executions: the configured one, else that of the stored ones, else one made of the name."""
    if run_test.key != default_key(run_test.name):
        return run_test.key
    found = record.lists.get(run_test.name)
    listed = (state.executions.get(each) for each in (found.executions if found else ()))
    keys = Counter(known.run_test_key for known in listed if known)
    if not keys:
        stored = state.executions.values()
        keys = Counter(known.run_test_key for known in stored if known.run_test_name == run_test.name)
    return max(keys, key=lambda key: (keys[key], key), default=run_test.key)


def choose_previews(run: Run, planned: Iterable[Planned]) -> list[Planned]:
    """What is to be stored from its lists first: all that is new, where the rate limit would hold its metrics back for long."""
    first = previews(planned)
    seconds = run.client.quota.seconds_for(sum(item.estimated_calls for item in first), math.inf)
    return first if seconds is not None and seconds >= PATIENCE_SECONDS else []


async def without_details(run: Run, planned: Sequence[Planned]) -> list[Planned] | None:
    """The plan as it is fetched where the API has no details of executions, which one request finds out; None where it has."""
    first = next((item for item in planned if item.is_fetched and item.reads_detail), None)
    if first:
        with suppress(SourceError):
            request = list_call_details(first.execution.execution_id, limit=1)
            await run.client.get_detail(request.sent_for(first.purpose))
    if not run.client.lacks_details:
        return None
    return [replace(item, reads_detail=False, is_compared=False, is_by_detail=item.may_wait) for item in planned]


def make_plan(
    run: Run, record: Record, state: StoredState, run_tests: Iterable[RunTest], *, is_last: bool
) -> list[Planned]:
    """What to do with each listed execution of these run tests, once, most valuable first; recorded, too. The last round scrubs."""
    page_limit = run.settings.api.page_limit
    settle = timedelta(hours=run.settings.export.settle_hours)
    policy = replace(run.policy, overdue_since=run.by_source(run.started_at) - OVERDUE * settle)
    planned: list[Planned] = []
    for run_test in run_tests:
        record.planned.pop(run_test.name, None)
    seen = {item.execution.execution_id for item in record.all_planned()}
    for run_test in run_tests:
        if (found := record.lists.get(run_test.name)) is None:
            continue
        home = home_of(record, state, run_test)
        items = plan_run_test(run_test, found, state.executions, home=home, policy=policy)
        planned += [item for item in items if item.execution.execution_id not in seen]
        seen |= found.executions.keys()
        record.planned[run_test.name] = []
    if is_last:
        planned = scrub(planned, requests=run.settings.export.scrub_requests, page_limit=page_limit)
    planned = order_by_worth(planned)
    for item in planned:
        record.planned[item.run_test_name].append(item)
    for run_test in run_tests:
        if run_test.name in record.lists:
            reasons = dict(count_reasons(record.planned[run_test.name]))
            executions = len(record.lists[run_test.name].executions)
            run.notify("listed", run_test=run_test.name, executions=executions, reasons=reasons)
    run.progress.planned_executions = sum(item.is_fetched for item in record.all_planned())
    expected = requests_to_fetch([*record.all_planned(), *run.progress.previews], page_limit=page_limit)
    run.progress.planned_requests = sum(expected.values())
    run.notify("planned", executions=run.progress.planned_executions, requests=run.progress.planned_requests)
    return planned
