"""Choose which executions this run fetches, why, and by which route. Pure: the same input gives the same plan.

Three decisions, in this order: the ``Reason`` (is there anything to fetch?), the ``Route`` (which requests fetch it,
and what of the stored rows may stay?), and the order (what is worth most comes first). A preview changes the route of
what it takes up. The steps that follow look at the route and never at the settings.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import attrgetter

from etl.extract.bad_rows import pages_of
from etl.extract.endpoints import Purpose, no_requests
from etl.extract.listing import MOST_ROWS_OF_A_PAGE
from etl.model.lifecycle import (
    LONG_AGO,
    TERMINAL_EXECUTION,
    ExecutionList,
    ExportState,
    ListedExecution,
    StoredExecution,
)
from etl.model.records import DeadLetter
from etl.model.values import timestamp_or_none
from etl.model.wording import Word
from etl.settings import RunTest


class Reason(Word):
    """Why an execution is fetched, or why it is not."""

    NEW = "new", "it is not in the dataset yet"
    CHANGED = "changed", "its row in the API's list has changed, or the list shows it again"
    LISTED = "listed", "it is stored from lists, and its calls' own metrics are still to be fetched"
    DAMAGED = "damaged", "its stored calls or evals differ from what was exported"
    INCOMPLETE = "incomplete", "the last run could not export a part of it"
    REQUESTED = "requested", "--full-refresh requests it"
    SETTLING = "settling", "it has finished, but late data may still arrive"
    SWEEP = "sweep", "it is final, and is compared with the source again"
    UNFINISHED = "unfinished", 'it is still running, and the settings have calls = "all"'
    WAITING = "waiting", "it is still running, so its calls are fetched once it has finished"
    FINAL = "final", "it is exported and unchanged, so it is not fetched"
    FORGOTTEN = "forgotten", "metrics-etl forget removed it, so it is never fetched again"


class Route(Word):
    """How an execution is fetched: what its rows are made of, and which stored calls stay without a request.

    Stored calls are *intact* if there are some, as they were exported: neither damaged nor of a marked execution.

    | reason | stored calls | ``settle_by`` | route |
    |---|---|---|---|
    | new, damaged, requested | any | detail | ``WHOLE`` |
    | changed, incomplete, settling, listed, sweep | not intact | detail | ``WHOLE`` |
    | changed, incomplete, settling, listed, sweep | intact | detail | ``COMPARE`` |
    | listed, incomplete: its state, too, and its entry in the list unchanged | intact | detail | ``RESUME_COMPARED`` |
    | the same, and with detail what this run has stored from its lists | intact | refetch | ``RESUME`` |
    | unfinished; with refetch any reason not above | any | any | ``BARE`` |
    | new, or changed without a stored call, where fetching all takes long | none | any | ``PREVIEW``, then as above |

    With ``metrics = "listed"``: ``WHOLE`` if it was requested; ``LISTS_COMPARED`` if the calls are intact and the
    reason is changed, settling, incomplete or sweep; otherwise ``LISTS``.

    An execution of C calls costs these requests. Where it ``reads_voice_calls`` and its detail has no others, the list
    is that of voice calls, and one call is fetched for all.

    | route | requests |
    |---|---|
    | ``WHOLE`` | list, detail, C |
    | ``BARE`` | list, C |
    | ``COMPARE`` | list, detail, calls that differ |
    | ``RESUME`` | list, calls not fetched since |
    | ``RESUME_COMPARED`` | list, detail, calls that were not fetched since and differ |
    | ``LISTS`` | list, detail, calls that the detail cannot give |
    | ``LISTS_COMPARED`` | detail; a list, too, if that differs from what is stored |
    | ``PREVIEW`` | detail, list |

    A preview leaves all calls' own metrics to another route, and everything where a list cannot be read. Where another
    route's detail cannot be read, an execution that ``may_wait`` is left to the next run. If rows were written without
    the detail, in this run or before, a dead letter says so, and each run requests it again.
    """

    WHOLE = "whole", "every call is fetched, and the detail is read for values that only the detail has"
    BARE = "bare", "every call is fetched, and no detail is read"
    COMPARE = "compare", "a stored call is kept if list and detail show it unchanged; all other calls are fetched"
    RESUME = "resume", "a call is kept if fetched after the execution's row last changed; all others are fetched"
    RESUME_COMPARED = "resume compared", "as for resume, but a call that the detail shows unchanged is kept, too"
    LISTS = "lists", "rows are made from list and detail, and only calls that are missing there are fetched"
    LISTS_COMPARED = "lists compared", "as for lists, but a stored call is kept if the detail shows it unchanged"
    PREVIEW = "preview", "rows are made from list and detail, until the calls' own metrics replace these rows"

    @property
    def reads_detail(self) -> bool:
        """Whether the execution's detail is read, for what the calls' own metrics do not show."""
        return self not in (Route.BARE, Route.RESUME)

    @property
    def keeps_fetched(self) -> bool:
        """Whether calls stay that were fetched since the execution was found as it is listed now."""
        return self in (Route.RESUME, Route.RESUME_COMPARED)

    @property
    def keeps_unchanged(self) -> bool:
        """Whether stored calls stay that the detail shows as they are."""
        return self in (Route.COMPARE, Route.RESUME_COMPARED, Route.LISTS_COMPARED)

    @property
    def makes_rows_of_lists(self) -> bool:
        """Whether a call's row is made of list and detail where these suffice."""
        return self in (Route.LISTS, Route.LISTS_COMPARED, Route.PREVIEW)


_PURPOSES = {Reason.INCOMPLETE: Purpose.DEAD_LETTERS, Reason.SETTLING: Purpose.SETTLE, Reason.SWEEP: Purpose.SWEEP}
"""What requests are counted for; those for any other reason are first fetches."""
_COMPARED = {Reason.SETTLING, Reason.CHANGED, Reason.INCOMPLETE, Reason.LISTED, Reason.SWEEP}
"""Reasons for which intact stored calls may be compared before they are fetched."""
_WITHOUT_DETAIL = {Reason.FINAL, Reason.UNFINISHED, Reason.WAITING}
"""Reasons for which no detail is read: the execution still runs, or it is final."""

_LATER = (Reason.INCOMPLETE, Reason.SETTLING, Reason.UNFINISHED, Reason.SWEEP, Reason.WAITING, Reason.FINAL)
_ORDER = {reason: place for place, reason in enumerate(_LATER, start=1)}
"""Which place a reason has in the order of a plan; those that are not named come first."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say about what a run fetches."""

    fetch_unfinished: bool = False
    """With ``calls = "all"``: executions that still run are fetched, too."""
    full_refresh: bool = False
    """With ``--full-refresh``: every finished execution is fetched, whatever is stored."""
    settle_by_detail: bool = False
    """With ``settle_by = "detail"``: stored calls are compared with the detail before they are fetched again."""
    reads_voice_calls: bool = False
    """With ``metrics = "exact"``, unless payloads are kept: rows are made of lists that show calls whole."""
    detail_suffices: bool = False
    """With ``metrics = "listed"``: rows are made of the lists, and calls have no metrics of their own."""
    overdue_since: datetime = LONG_AGO
    """An execution that has settled since before this time is fetched if it cannot be compared."""
    settle: timedelta = timedelta(0)
    """How long late data may come."""
    previewed: Container[str] = ()
    """The execution_ids of what this run has stored from lists: their details need not be read again."""
    swept: Mapping[str, str] = field(default_factory=dict)
    """The execution_ids of what is compared again, if it is final, with the fingerprints that ``sweep`` gives."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One listed execution and what to do with it."""

    run_test_name: str
    """The run test whose list has it."""
    run_test_key: str
    """The key of the partition where it lies, or will lie."""
    execution: ListedExecution
    """The execution as it is listed."""
    reason: Reason
    """Why it is fetched, or why not."""
    route: Route
    """How it is fetched, if it is."""
    stored: StoredExecution | None
    """What the dataset holds of it."""
    estimated_calls: int
    """How many calls it has, as far as that is known before its calls are listed."""
    unreadable: DeadLetter | None = None
    """Why its row in the list could not be read: then only its head is known."""
    reads_voice_calls: bool = False
    """Its calls may be fetched by two lists, its detail and that of voice calls, if it has voice calls alone."""
    lists_fingerprint: str = ""
    """The fingerprint of its lists and of what is stored when these were last the same; empty if that is not known."""
    may_wait: bool = False
    """Its detail may be missing for another night: it is swept, or settles and is not overdue, nor are its metrics."""

    @property
    def is_fetched(self) -> bool:
        """Whether its calls are fetched in this run."""
        return self.reason not in (Reason.WAITING, Reason.FINAL, Reason.FORGOTTEN)

    @property
    def is_awaited(self) -> bool:
        """Whether a run that does not fetch it is incomplete: it is not compared once more."""
        return self.is_fetched and self.reason is not Reason.SWEEP

    @property
    def purpose(self) -> Purpose:
        """What the requests that fetch it are counted for."""
        return _PURPOSES.get(self.reason, Purpose.FIRST_FETCH)

    @property
    def is_waiting_row_current(self) -> bool:
        """Whether the dataset already says all that can be said without its calls."""
        return self.unreadable is None and _is_waiting_row_current(self.execution, self.stored)

    def requests(self, page_limit: int) -> int:
        """An estimate of the requests that fetching it takes."""
        lists = pages(self.estimated_calls, page_limit)
        # What is made of lists and settles is probably unchanged: then the detail takes the place of a list.
        is_in_place = self.route is Route.LISTS_COMPARED and self.reason is Reason.SETTLING
        details = self.route.reads_detail and not is_in_place
        return lists + details + self.call_requests

    @property
    def call_requests(self) -> int:
        """How many of these are for one call by itself."""
        if self.route.makes_rows_of_lists and not self.is_shown_whole:
            return 0
        calls = self._calls_to_fetch(some_stay=self.route.keeps_fetched or self.route.keeps_unchanged)
        return min(calls, 1) if self.is_shown_whole else calls

    @property
    def is_shown_whole(self) -> bool:
        """Whether lists probably show all its calls whole, so that one of them is fetched at most."""
        return self.reads_voice_calls and not self.execution.has_chats

    def _calls_to_fetch(self, *, some_stay: bool) -> int:
        # An execution that changed has probably run again, and all its calls with it.
        if self.stored is None or not some_stay or self.reason is Reason.CHANGED:
            return self.estimated_calls
        exact = self.stored.held.exported_calls - self.stored.held.detail_calls
        return max(0, self.estimated_calls - exact)


def requests_to_fetch(
    plan: Iterable[Planned], previewed: Iterable[Planned] = (), *, page_limit: int
) -> dict[Purpose, int]:
    """An estimate of the requests that fetching all of it takes, by purpose.

    What is ``previewed`` is fetched before: whole, if lists show it so, else all but its calls' own metrics.
    """
    expected = no_requests()
    before = {item.execution.execution_id: item for item in previewed}
    for item in filter(attrgetter("is_fetched"), (*plan, *before.values())):
        requests = item.requests(page_limit)
        if item.route is not Route.PREVIEW and item.execution.execution_id in before:
            requests = 0 if item.is_shown_whole else requests - item.route.reads_detail
        expected[item.purpose] += requests
    return expected


def previews(plan: Iterable[Planned]) -> list[Planned]:
    """What is new of the plan, to be stored from its lists before the rest is fetched: two requests an execution."""
    return [replace(item, route=Route.PREVIEW) for item in plan if _can_be_previewed(item)]


def _can_be_previewed(item: Planned) -> bool:
    is_new = item.reason in (Reason.NEW, Reason.CHANGED) and not (item.stored and item.stored.held.exported_calls)
    return is_new and item.unreadable is None and not item.route.makes_rows_of_lists


def pages(rows: int, limit: int) -> int:
    """How many pages are read of a list of so many rows.

    They are pages of ``limit`` rows, or one of these and then the largest that there are, whichever are fewer.
    """
    return min(max(1, pages_of(rows, limit)), 1 + pages_of(rows, MOST_ROWS_OF_A_PAGE))


def says_nothing_new(listed: ListedExecution, known: StoredExecution | None, policy: Policy) -> bool:
    """Whether the execution gives a run nothing to fetch or to write."""
    reason = _reason(listed, known, policy)
    return reason in (Reason.FINAL, Reason.FORGOTTEN) or (
        reason is Reason.WAITING and _is_waiting_row_current(listed, known)
    )


def plan_run_test(
    run_test: RunTest,
    listed: ExecutionList,
    stored: Mapping[str, StoredExecution],
    *,
    home: str,
    policy: Policy = Policy(),
) -> list[Planned]:
    """One entry for each listed execution that the run test's ``since`` lets in, in no particular order.

    An older one is let in, too, when the dataset holds a part of it, or says that it was deleted. ``stored`` is by
    execution_id. ``home`` is the key for what is new.
    """
    plan = []
    for execution in listed.executions.values():
        known = stored.get(execution.execution_id)
        is_old = run_test.since and execution.started_at and execution.started_at.date() < run_test.since
        if is_old and not (known and _is_wrong(known)):
            continue
        letter = listed.heads.get(execution.execution_id)
        reason = _reason(execution, known, policy)
        # Only its head could be read, and its aggregates are missing: the next run must try again.
        if letter and known and reason in (Reason.FINAL, Reason.SWEEP, Reason.SETTLING, Reason.CHANGED):
            reason = Reason.INCOMPLETE
        route = _route(execution, known, reason, policy)
        plan.append(
            Planned(
                run_test_name=run_test.name,
                run_test_key=known.run_test_key if known else home,
                execution=execution,
                reason=reason,
                route=route,
                stored=known,
                estimated_calls=_estimated_calls(execution, known),
                unreadable=letter,
                lists_fingerprint=policy.swept.get(execution.execution_id, ""),
                reads_voice_calls=policy.reads_voice_calls and route.reads_detail and not route.makes_rows_of_lists,
                may_wait=reason is Reason.SWEEP
                or (reason is Reason.SETTLING and known is not None and _may_wait(execution, known, policy)),
            )
        )
    return plan


def order_by_worth(plan: Iterable[Planned]) -> list[Planned]:
    """The plan in the order in which it is fetched.

    First what is new, changed, damaged, requested or listed, newest first; then what failed before, and may fail again;
    then what settles, what still runs, and what is swept.
    """
    newest_first = sorted(plan, key=lambda planned: planned.execution.started_at or LONG_AGO, reverse=True)
    return sorted(newest_first, key=lambda planned: _ORDER.get(planned.reason, 0))


def _reason(execution: ListedExecution, known: StoredExecution | None, policy: Policy) -> Reason:
    """Why the execution is fetched, or why not, by its status, the options, and what is stored of it."""
    if known and known.is_forgotten:
        return Reason.FORGOTTEN
    if execution.status not in TERMINAL_EXECUTION:
        return Reason.UNFINISHED if policy.fetch_unfinished else Reason.WAITING
    if policy.full_refresh:
        return Reason.REQUESTED
    return Reason.NEW if known is None else _reason_to_refetch(execution, known, policy)


def _is_waiting_row_current(execution: ListedExecution, known: StoredExecution | None) -> bool:
    return (
        known is not None
        and known.export_state == ExportState.WAITING
        and known.deleted_at is None
        and not known.has_letters
        and not known.is_damaged
        and known.fingerprint == execution.fingerprint
    )


def _is_wrong(known: StoredExecution) -> bool:
    """Whether what is stored of a listed execution is less than was there, or says that it was deleted."""
    return _is_incomplete(known) or known.lacks_detail or known.is_damaged or known.deleted_at is not None


def _is_incomplete(known: StoredExecution) -> bool:
    return known.export_state == ExportState.INCOMPLETE or known.has_letters


def _reason_to_refetch(execution: ListedExecution, known: StoredExecution, policy: Policy) -> Reason:
    """Why a finished execution that is stored is fetched again, or why not; the first reason that holds counts."""
    if _is_incomplete(known):
        return Reason.INCOMPLETE
    if known.export_state == ExportState.WAITING or known.deleted_at or known.fingerprint != execution.fingerprint:
        return Reason.CHANGED
    if known.is_damaged:
        return Reason.DAMAGED
    if (known.held.detail_calls or known.export_state == ExportState.LISTED) and not policy.detail_suffices:
        return Reason.LISTED
    is_final = known.export_state == ExportState.EXPORTED and not known.lacks_detail
    if not is_final:
        return Reason.SETTLING
    return Reason.SWEEP if execution.execution_id in policy.swept else Reason.FINAL


def _may_wait(execution: ListedExecution, known: StoredExecution, policy: Policy) -> bool:
    """Whether an execution that settles need not be fetched if it cannot be compared.

    It need not be for some nights, nor if only its detail is missing, and all else was fetched long after its end.
    """
    verified_at = known.verified_at or LONG_AGO
    if verified_at > policy.overdue_since or not known.lacks_detail:
        return verified_at > policy.overdue_since
    ended_at = timestamp_or_none(execution.unpack().payload.get("completed_at"))
    if ended_at is None or ended_at > verified_at:
        ended_at = execution.started_at or LONG_AGO
    return verified_at - ended_at >= policy.settle


def _route(execution: ListedExecution, known: StoredExecution | None, reason: Reason, policy: Policy) -> Route:
    """The table of ``Route``."""
    is_intact = known is not None and _is_intact(known)
    may_compare = is_intact and reason in _COMPARED
    if policy.detail_suffices and reason is not Reason.REQUESTED:
        return Route.LISTS_COMPARED if may_compare else Route.LISTS
    reads_detail = policy.settle_by_detail and execution.execution_id not in policy.previewed
    compares = may_compare and reads_detail
    if is_intact and known is not None and _has_begun(execution, known, reason):
        return Route.RESUME_COMPARED if compares else Route.RESUME
    if compares:
        return Route.COMPARE
    is_detail_wanted = reads_detail or policy.detail_suffices
    return Route.WHOLE if is_detail_wanted and reason not in _WITHOUT_DETAIL else Route.BARE


def _has_begun(execution: ListedExecution, known: StoredExecution, reason: Reason) -> bool:
    """Whether an earlier run began to fetch the execution as it is listed now, and did not come to its end."""
    begun = {Reason.INCOMPLETE: ExportState.INCOMPLETE, Reason.LISTED: ExportState.LISTED}
    return known.fingerprint == execution.fingerprint and known.export_state == begun.get(reason)


def _is_intact(known: StoredExecution) -> bool:
    """Whether the dataset holds calls of it, as they were exported."""
    is_fetched = known.export_state != ExportState.WAITING and known.held.exported_calls > 0
    return is_fetched and not (known.is_damaged or known.deleted_at)


def _estimated_calls(execution: ListedExecution, known: StoredExecution | None) -> int:
    """What the list says, else what was listed last time; only predicts requests."""
    candidates = (execution.calls, known.held.listed_calls if known else None)
    return next((calls for calls in candidates if calls is not None and calls >= 0), 0)
