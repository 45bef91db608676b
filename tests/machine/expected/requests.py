"""Law 10.

10. One writer, within the rate limit. A lock or lease admits one writer; every request is counted, by purpose.

That a second writer is refused is tried while the first one runs: see ``History._is_refused`` and the rule
``night_overlaps``.
"""

from collections import Counter

from etl.extract.endpoints import Purpose
from etl.model.records import DETAIL, RUN_TESTS
from etl.sandbox import SandboxRequest
from etl.sandbox.world import SimulatedExecution
from tests.forms import LOST
from tests.machine.dataset import is_from_lists, is_marked, is_vouched_for
from tests.machine.driver import History, Night
from tests.machine.expected.truth import living_in
from tests.machine.source import FINISHED

_MANY = 100  # no list of a history has more rows


def subject_of(request: SandboxRequest) -> str | None:
    """The execution or call that it asks for; None for lists of run tests and of executions."""
    if request.path.startswith(DETAIL):
        return request.path.removeprefix(DETAIL).strip("/")
    names = ("execution_id", "test_execution_id", "call_execution_id")
    return next((request.query[name] for name in names if name in request.query), None)


def requests_are_few(history: History, night: Night) -> None:
    """In a night without faults and changes, where each list fits a page.

    An execution that settles or is swept, and is as it was, costs two, any other one its calls and a few; whatever is
    missing, one look-up.
    """
    options = night.options
    is_plain = night.is_complete and night.is_clean and not (history.memory.healing or history.memory.is_struck)
    has_pages = options.get("page_limit", _MANY) < _MANY or history.source.server._rules.max_limit is not None
    is_plain = is_plain and not history.source.poisoned
    if not is_plain or has_pages or history.source.form in LOST or history.memory.form != history.source.form:
        return
    spent: Counter[str] = Counter()
    owners = {call.call_execution_id: each for each in history.source.all_executions() for call in each.calls}
    lists: Counter[str] = Counter()
    for request in night.requests:
        subject = subject_of(request)
        if subject is None:
            lists[request.target] += 1
        else:
            spent[owners[subject].execution_id if subject in owners else subject] += 1
    _lists_are_read_once(history, night, lists)
    if options.get("full_refresh"):
        return
    executions = {each.execution_id: each for each in history.source.all_executions()}
    for execution_id, requests in spent.items():
        most, why = _most(history, night, executions[execution_id])
        assert requests <= most, f"L10: {requests} requests for {execution_id}, of {most}: {why}"


def requests_are_counted(history: History, night: Night) -> None:
    """Each request that the source got is in the summary, and those that the rest of it settles for as such."""
    if night.summary is None:
        return
    counted = night.summary.requests_by_purpose
    assert sum(counted.values()) == len(night.requests), f"L10: {len(night.requests)} were sent, and counted {counted}"
    lists = sum(subject_of(request) is None for request in night.requests)
    assert counted[Purpose.LIST] >= lists, f"L10: {lists} lists were read, and counted {counted}"
    is_other_form = history.source.form or history.memory.form  # lists show other executions than before
    if not night.is_clean or night.options.get("full_refresh") or is_other_form:
        return
    finished = {each.execution_id for each in history.source.executions(is_finished=True)}
    same = {
        each
        for each in night.before.in_state("settling") & finished & night.in_scope
        if is_vouched_for(night.before.of[each])
        and not is_from_lists(night.before, each)
        and _is_as_it_was(history, night, each)
    }
    settling = sum(subject_of(request) in same for request in night.requests)
    assert counted[Purpose.SETTLE] >= settling, f"L10: {settling} compare what settles, and counted {counted}"
    if night.options.get("sweep_days") == 0:
        assert not counted[Purpose.SWEEP], f"L10: nothing is swept, and counted {counted}"


def requests_are_within_the_limit(_history: History, night: Night) -> None:
    """Where the settings have a rate limit, no minute has more requests."""
    if limit := night.options.get("requests_per_minute"):
        times = [request.received_at for request in night.requests]
        for first, next_minute in zip(times, times[limit:], strict=False):
            assert next_minute - first >= 60 - 1e-6, f"L10: {limit + 1} requests within {next_minute - first} s"


def _most(  # noqa: PLR0911 a case a return
    history: History, night: Night, execution: SimulatedExecution
) -> tuple[int, str]:
    """How many requests an execution may cost, and why."""
    calls = {each.call_execution_id for each in execution.calls}
    calls |= {key[0] for table, key in night.before.of.get(execution.execution_id, {}) if table == "calls"}
    outputs = [output for call in execution.calls for output in call.eval_outputs.values()]
    is_refused = any(output.get("output_type") == "numeric" for output in outputs)
    if execution.is_deleted or night.listed_before.get(execution.execution_id) not in night.names:
        shows_stored = any(night.listed_before.get(each) in night.names for each in night.before.executions)
        # One that exists tells its new name. And the key may be of another workspace: that is looked up, too.
        return 3 - execution.is_deleted + 2 * (not shows_stored), "it is missing from its list"
    entries = 2 + len(calls) if is_refused else 0
    held = night.before.executions.get(execution.execution_id)
    is_as_it_was = execution.execution_id not in history.source.unseen and _is_as_it_was(
        history, night, execution.execution_id
    )
    own = [call for call in execution.calls if "total_tokens" in (call.chat_metrics or {}) or call.is_deleted]
    has_chats = execution.run_test.profile.is_chat or any(call.is_chat for call in execution.calls)
    is_voice = not (has_chats or history.source.form)
    if is_voice and not night.options.keys() & {"metrics", "settle_by", "calls"}:
        return 4 + len(own), "lists show its voice calls whole"
    if held is None or is_marked(held.row) or not is_as_it_was:
        first = 2 if "requests_per_minute" in night.options else 0
        return 3 + len(calls) + entries + first, "it is new or changed"
    if is_from_lists(night.before, execution.execution_id) and night.options.get("metrics") != "listed":
        return 3 + len(calls) + entries, "its calls' own metrics are wanted"
    if execution.status not in FINISHED and night.options.get("calls") == "all":
        return 3 + len(calls) + entries, "it runs, and its calls are wanted all the same"
    if held.row["export_state"] in ({"settling"} if night.options.get("sweep_days") == 0 else {"settling", "exported"}):
        rows = [held.row for (table, _), held in night.before.of[execution.execution_id].items() if table == "calls"]
        # One call is a probe; and what a row has in another form than the API's is fetched again.
        others = max(any(row["metrics_from"] == "both" for row in rows), sum(bool(row["extra"]) for row in rows))
        asks = has_chats and not history.source.tells_chats
        return 2 + others + asks + (
            len(calls) + entries if night.options.get("settle_by") == "refetch" else 0
        ), "it settles, or is swept"
    return 0, f"it is {held.row['export_state']}"


def _is_as_it_was(history: History, night: Night, execution_id: str) -> bool:
    before = history.memory.last_good_state.get(execution_id)
    return before is not None and before == night.source_before[execution_id]


def _lists_are_read_once(history: History, night: Night, lists: Counter[str]) -> None:
    for target, times in lists.items():
        assert times == 1, f"L10: {times} times {target}"
    names = {target for target in lists if not target.startswith(RUN_TESTS)}
    # Those that are gone, or have another name, are asked for once more.
    names = {target for target in names if not target.endswith("&page=1&limit=1")}
    # Where stored executions went that their list does not have, tells one list more for each name.
    living = living_in(night.before, night.names)
    elsewhere = {night.listed_before[each] for each in living & night.listed_before.keys()} - night.names
    most = len(night.names | elsewhere)
    assert len(names) <= most, f"L10: lists of more than {night.names | elsewhere}: {names}"


def assert_quiet(history: History, night: Night) -> None:
    """A night in which nothing happened: one request for each run test, and no file but its own row and notes (L10)."""
    # What a killed run left half written of a run test that is not exported any more is looked up.
    rows = night.before.of
    left = {each for each in rows.keys() - night.before.called(night.names) if not is_vouched_for(rows[each])}
    targets = [request.target for request in night.requests if subject_of(request) not in left]
    is_of_names = ["run_test_name" in request.query for request in night.requests]
    most = len(night.names) + night.is_all
    assert len(targets) <= most, f"L10: a quiet night asked for {targets}"
    assert sum(is_of_names) == len(night.names)
    changed = {path for path, version in night.versions_after.items() if night.versions_before.get(path) != version}
    assert not [path for path in changed if not path.startswith("runs/")], f"L10: a quiet night wrote {changed}"
    assert night.versions_before.keys() <= night.versions_after.keys()
