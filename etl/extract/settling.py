"""Which calls of an execution need not be fetched again: two lists show them unchanged, or they are stored already.

The list of calls was read already; the execution's detail costs one request more. Where it cannot be had tonight, an
execution that only settles is left to the next run, which compares it. Once it has settled for long, everything is
fetched as if it were new, and a dead letter says that the detail is missing. From then on, the detail alone is
requested again.
"""

from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from etl.errors import NotFoundError, SourceError
from etl.extract.call_list import CallList, Details, read_details
from etl.extract.client import Client
from etl.extract.endpoints import get_call_metrics
from etl.extract.open_execution import OpenExecution
from etl.extract.plan import Planned, Reason, Route
from etl.extract.stored_rows import (
    Row,
    calls_without_evals,
    candidates_in,
    differences_of,
    fingerprint_of,
    standing_in,
    stays_whole,
)
from etl.extract.voice_list import VoiceLists
from etl.model import schema
from etl.model.lifecycle import StoredCalls
from etl.model.records import FROM_LISTS, CallMetrics, FetchedCall, ListedCall
from etl.model.values import json_text
from etl.transform.detail import (
    SHOWN_COLUMNS,
    amended,
    by_lists,
    by_lists_in_row,
    metrics_in,
    shown_in,
    shown_in_row,
    vouches_for_evals,
)
from etl.transform.drift import ALWAYS_SHOWN, Answer, find_losses
from etl.transform.flatten import COMPLETED, answer_of, call_row, filled
from etl.transform.row_hash import says_the_same

ReadStored = Callable[[Planned], Awaitable[StoredCalls]]
"""Reads what the dataset holds of an execution."""
_Details = Mapping[str, ListedCall]
_MOST_FAILURES = 5
"""After so many details in a row could not be read, the crawl requests no more, unless an earlier one still can be."""
_STATUS = schema.CALLS.names.index("status")


@dataclass(slots=True)
class Counts:
    """What a crawl found."""

    deleted_executions: set[str] = field(default_factory=set)
    """Planned executions that the API no longer has."""
    compared: dict[str, str] = field(default_factory=dict)
    """Executions that are as they are stored, with fingerprints of that."""
    not_compared: dict[str, str] = field(default_factory=dict)
    """Executions that are swept, or settle, about which the source did not say enough, and why."""
    one_by_one: str = ""
    """Why calls were fetched one by one although lists might have shown them whole, the first time; else empty."""

    def add(self, other: "Counts") -> None:
        """Add those of another crawl, which ended later."""
        self.deleted_executions |= other.deleted_executions
        self.compared |= other.compared
        self.not_compared |= other.not_compared
        self.one_by_one = self.one_by_one or other.one_by_one


@dataclass(slots=True, eq=False)
class Settling:
    """Decides which calls of open executions are fetched, by what the dataset holds and the executions' details."""

    client: Client
    """Sends the requests for details."""
    read_stored: ReadStored
    """Reads what the dataset holds of an execution."""
    voice: VoiceLists
    """Reads lists of voice calls, for all crawls of a run."""
    counts: Counts = field(default_factory=Counts)
    """What all comparisons together found; it grows with each."""
    _failures_in_a_row: int = 0
    """How many details could not be read since one could."""
    _answered: Planned | None = None
    """The execution whose detail was read last."""
    _given_up: Details | None = None
    """What there is of each detail once no more are requested."""

    async def compare(self, execution: OpenExecution, latest: CallList) -> bool:
        """Decide which stored calls stay; take what the detail shows of all calls, and their metrics if it suffices.

        False if nothing of the execution is fetched in this step: this needs a detail that cannot be had, or the
        execution is swept, and as it is stored.
        """
        item, said = execution.planned, ""
        has_ended = item.reason in (Reason.SETTLING, Reason.SWEEP)
        if has_ended and item.route.keeps_unchanged and latest.calls:
            latest = replace(latest, details=await self._details_of(execution, latest))
            said = fingerprint_of(item, latest)
        is_known = item.reason is Reason.SWEEP and bool(said) and said == item.lists_fingerprint
        if not is_known:
            execution.stored = await self.read_stored(item)
            if not await self._decide(execution, latest):
                return False
        if is_known or (has_ended and stays_whole(execution, latest)):
            self.counts.compared[execution.execution_id] = said
            return item.reason is not Reason.SWEEP
        return True

    async def _decide(self, execution: OpenExecution, latest: CallList) -> bool:
        """As ``compare``, by comparing each call."""
        item, arrived = execution.planned, execution.arrived
        rows = execution.stored.rows
        standing = standing_in(item, rows)
        arrived.shown = {key: shown_in_row(rows[key]) for key in standing}
        arrived.by_lists = {key: shown for key in standing if (shown := by_lists_in_row(rows[key]))}
        candidates = candidates_in(execution)
        kept = candidates & standing if item.route.keeps_fetched else set()
        details: _Details = {}
        lacked = item.stored is not None and item.stored.lacks_detail
        is_at_hand = latest.details is not None and bool(latest.details.calls)
        if item.route.reads_detail and (lacked or is_at_hand or execution.listed.calls.keys() - kept):
            found = await self._details_of(execution, latest)
            if self._is_left(execution, found, lacked=lacked):
                return False
            details = found.calls
            arrived.detailed, arrived.no_detail = frozenset(details), found.failure
            unseen = candidates - details.keys() if item.may_wait and lacked else set()
            arrived.keeps_unseen = bool(unseen)
            kept |= unseen
        arrived.without_evals = calls_without_evals(execution, details)
        arrived.shown |= {key: arrived.shown.get(key, {}) | shown_in(detail) for key, detail in details.items()}
        arrived.by_lists |= {key: by_lists(detail) for key, detail in details.items()}
        if details:
            fields = (ALWAYS_SHOWN.keys() & detail.payload.keys() for detail in details.values())
            arrived.detail_fields = frozenset().union(*fields)
        if item.route.keeps_unchanged or item.route.makes_rows_of_lists:
            comparable = {key: details[key] for key in sorted(candidates & details.keys())}
            kept |= await self._keepable_calls(execution, comparable, kept=kept)
        arrived.kept = frozenset(kept - arrived.metrics.keys() - arrived.at_hand.keys())
        keys = execution.listed.calls.keys() & details.keys() - arrived.kept
        given = {key: metrics for key in sorted(keys) if (metrics := metrics_in(details[key]))}
        arrived.unjudged = _whole_metrics(execution, details, given) if item.reads_voice_calls else {}
        if item.route.makes_rows_of_lists and not arrived.unjudged:
            if execution.listed.lacks_evals:
                arrived.at_hand = given
            else:
                arrived.metrics |= given
        return True

    def _is_left(self, execution: OpenExecution, found: Details, *, lacked: bool) -> bool:
        """Whether nothing of it is fetched: its detail is missing or, if it is swept, has not every stored call."""
        item = execution.planned
        is_left = not found.calls and (item.route is Route.PREVIEW or (item.may_wait and not lacked))
        if item.reason is Reason.SWEEP:
            is_left = is_left or not execution.listed.calls.keys() & execution.stored.rows.keys() <= found.calls.keys()
        if is_left and item.route is not Route.PREVIEW:
            self.counts.not_compared[execution.execution_id] = str(found.failure or "the detail is missing calls")
        return is_left

    async def list_of_voice(self, item: Planned) -> tuple[Details | None, CallList | None]:
        """The execution's detail, and the list of its calls that this and the list of voice calls make together.

        Neither is read where the route, or this run so far, says that it is of no use.
        """
        if self.voice.is_over or not item.reads_voice_calls:
            return None, None
        details = await self.details(item, rows=item.estimated_calls)
        listed = await self.voice.read(item, details)
        self.counts.one_by_one = self.voice.failure
        return details, listed

    def judge(self, execution: OpenExecution) -> list[str]:
        """Decide, by the call that was fetched of those that lists show whole, whether the others need no request.

        Returns the calls that need one after all.
        """
        difference, left = execution.judge()
        if difference is not None:
            self.voice.note(difference and f"{difference} differ between the call's own metrics and the lists")
            self.counts.one_by_one = self.voice.failure
        return left

    async def is_as_stored(self, item: Planned, listed: CallList) -> bool:
        """Whether the detail that the list was made of shows the stored calls and evals as they are, and no others."""
        stored = await self.read_stored(item)
        details = listed.details.calls if listed.details else {}
        return stored.rows.keys() == details.keys() and all(
            differences_of(item, listed.calls[key], detail, stored.rows[key]) <= SHOWN_COLUMNS
            and vouches_for_evals(detail, stored.evals.get(key, ()))
            for key, detail in details.items()
        )

    async def details(self, item: Planned, *, rows: int) -> Details:
        """What can be had of the execution's detail; ``rows`` is how many calls it probably has.

        Where several in a row cannot be had, and the one that was read last cannot be had again, either, the source
        gives none tonight: then no more are requested. What concerns a single execution holds back no others.
        """
        if self._given_up:
            return self._given_up
        details = await read_details(self.client, item, rows=rows)
        if details.calls or isinstance(details.failure, NotFoundError | None):
            self._failures_in_a_row = 0
            self._answered = item if details.calls else self._answered
            return details
        self._failures_in_a_row += 1
        if self._failures_in_a_row == _MOST_FAILURES:
            self._failures_in_a_row = 0
            again = self._answered and await read_details(
                self.client, self._answered, rows=self._answered.estimated_calls
            )
            if not (again and again.calls):
                why = f"{_MOST_FAILURES} consecutive requests for details failed: {details.failure}"
                self._given_up = Details(failure=SourceError(f"the detail was not requested, because {why}", tries=0))
        return details

    async def _details_of(self, execution: OpenExecution, latest: CallList) -> Details:
        """The detail that was read with the list, or else is read now."""
        return latest.details or await self.details(execution.planned, rows=len(execution.listed.calls))

    async def _keepable_calls(self, execution: OpenExecution, details: _Details, *, kept: AbstractSet[str]) -> set[str]:
        """The calls whose rows can stay by their details.

        What only these show is amended in their rows, and in those of calls that are ``kept`` in any case.
        """
        item = execution.planned
        stored = execution.stored
        columns_of = {
            key: differences_of(item, execution.listed.calls[key], detail, stored.rows[key])
            for key, detail in details.items()
        }
        to_amend = [key for key, names in columns_of.items() if names & SHOWN_COLUMNS]
        amended_rows = {key: amended(stored.rows[key], details[key]) for key in to_amend}
        differing = {key: names - SHOWN_COLUMNS for key, names in columns_of.items()}
        same = {key for key, names in differing.items() if not names}
        if not item.route.makes_rows_of_lists:
            same = await self._calls_as_probed(execution, {**stored.rows, **amended_rows}, differing)
        if execution.listed.lacks_evals:
            same = {key for key in same if vouches_for_evals(details[key], stored.evals.get(key, ()))}
        execution.arrived.amended = {key: amended_rows[key] for key in (same | kept) & amended_rows.keys()}
        return same

    async def _calls_as_probed(
        self, execution: OpenExecution, rows: Mapping[str, Row], differing: Mapping[str, set[str]]
    ) -> set[str]:
        """The calls whose rows can stay, also where all of them look as if the API had changed its answers.

        That is, their rows may have lost a column, or they all differ from the detail in the same columns. Then one
        call is fetched: if its own metrics are still what is stored, such differences prove nothing.
        """
        item = execution.planned
        arrived = execution.arrived
        same = {key for key, names in differing.items() if not names}
        completed = {key: names for key, names in differing.items() if rows[key][_STATUS] == COMPLETED}
        stored = {key: Answer(None, rows[key], arrived.by_lists[key]) for key in completed}
        of_rows = find_losses(schema.CALLS, [*stored.values()])
        losses = of_rows.lost
        in_all = set[str].intersection(*completed.values()) if completed else set()
        if not losses:
            in_all -= {"detail"}
        if not (losses or in_all):
            return same
        lost = {key: find_losses(schema.CALLS, [row]).lost.keys() & losses for key, row in stored.items()}
        probe = max(lost, key=lambda key: len(lost[key]))
        metrics = await self._metrics(item, probe)
        if metrics is None:
            return same - {probe}
        (arrived.at_hand if execution.listed.lacks_evals else arrived.metrics)[probe] = metrics
        call = FetchedCall(
            listed=execution.listed.calls[probe],
            metrics=metrics,
            shown=shown_in_row(rows[probe]),
            by_lists=arrived.by_lists[probe],
        )
        row, _ = call_row(call, run_test_name=item.run_test_name, started_at=item.execution.started_at)
        if not says_the_same(schema.CALLS, filled(call, row), rows[probe]):
            still_lost = find_losses(schema.CALLS, [answer_of(call, row, is_compared=True)]).lost.keys()
            # None stays if the answers have their old form again, or this version knows the new one.
            return same if lost[probe] <= still_lost else set()
        others = len(completed) - 1
        arrived.kept_losses = {name: loss.calls - 1 for name, loss in losses.items()}
        arrived.kept_has = of_rows.has & losses.keys()
        arrived.kept_losses |= {f"{schema.CALLS.name}.{name}": others for name in in_all}
        return {key for key, names in differing.items() if names <= in_all}

    async def _metrics(self, item: Planned, call_execution_id: str) -> CallMetrics | None:
        """The call's own metrics; None when they cannot be had: then the call is fetched with all that differ."""
        request = get_call_metrics(call_execution_id, item.execution.execution_id)
        try:
            metrics = await self.client.get(request.sent_for(item.purpose))
        except SourceError:
            return None
        return metrics if metrics.execution_id == item.execution.execution_id else None


def _whole_metrics(
    execution: OpenExecution, details: _Details, given: Mapping[str, CallMetrics]
) -> dict[str, CallMetrics]:
    """Of the metrics that details give of the calls that do not stay, the whole ones; none if that spares no request.

    A preview takes one, too: no row of lists is exact before a call has confirmed it. The one that tells most about the
    others comes first.
    """
    whole = {key: metrics for key, metrics in given.items() if metrics.made_from == FROM_LISTS}
    is_worth_it = len(whole) > 1 or execution.planned.route is Route.PREVIEW
    if not (is_worth_it and whole.keys() - execution.arrived.metrics):
        return {}
    return dict(sorted(whole.items(), key=lambda pair: _worth(pair[1], details[pair[0]]), reverse=True))


def _worth(metrics: CallMetrics, detail: ListedCall) -> tuple[bool, bool, int]:
    """How much a call tells about others: it has many values, and a turn count, unless the detail makes that up."""
    return metrics.status == COMPLETED, detail.payload.get("turn_count") is not None, len(json_text(metrics.payload))
