"""Why the list of an execution's calls is not believed, as dead letters. Pure."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from etl.errors import SourceError
from etl.extract.plan import Planned, is_mass_vanishing
from etl.model.listed_execution import call_counts
from etl.model.records import METRICS, RUNS, CallMetrics, DeadLetter, ListedCall
from etl.transform.flatten import eval_outputs

_MAY_VANISH = 1


def expected_calls(item: Planned, stored_calls: int, unlisted_before: int = 0) -> int:
    """The calls that are stored or were listed last time, and those that the source counts, whichever are more.

    The source counts deleted calls for ever. So its count says nothing of an execution that was exported as it is now, and those
    are not expected that were counted and not listed before (``unlisted_before``).
    """
    known = item.stored
    expected = max(stored_calls, (known.held.listed_calls or 0) if known else 0)
    if is_as_exported(item):
        return expected
    return max(expected, max(call_counts(item.execution.unpack().payload), default=0) - unlisted_before)


def is_as_exported(item: Planned) -> bool:
    """Whether the execution was exported whole as it is listed now: then none of its calls has changed."""
    known = item.stored
    return known is not None and known.was_whole and known.fingerprint == item.execution.fingerprint


def too_few_calls(
    item: Planned, *, stored: int, unlisted: int, count: int, unlisted_before: int = 0
) -> DeadLetter | None:
    """The list counts so few calls, or leaves out so many of the stored ones, that it may be wrong; None if it does not.

    That is when all are missing, or more than a tenth. One may always be.
    """
    expected = expected_calls(item, stored, unlisted_before)
    missing = max(unlisted, expected - count)
    if not is_mass_vanishing(vanished=missing, living=expected, always_allowed=_MAY_VANISH):
        return None
    return _contradiction(
        RUNS,
        item.execution.execution_id,
        f"{missing} of its {expected} calls are missing from its list; the stored ones were kept: "
        "run with --accept-deletions if they were deleted on purpose",
    )


def too_few_evals(
    item: Planned,
    stored: Mapping[str, AbstractSet[str]],
    listed: Mapping[str, ListedCall],
    changed: AbstractSet[str] = frozenset(),
) -> DeadLetter | None:
    """The list leaves out all or most of the stored evals of its calls, so that it may be wrong; None if it does not.

    ``stored`` are the configs of the evals by call. Those of calls that have ``changed`` may have gone with a rerun. An eval that
    is new in the list makes up for a missing one of the same call: evals that are set up again get other ids.
    """
    same = {call_id: evals for call_id, evals in stored.items() if call_id in listed and call_id not in changed}
    expected = sum(map(len, same.values()))
    missing = sum(_missing_evals(evals, eval_outputs(listed[call_id])) for call_id, evals in same.items())
    if not missing or (missing < expected and missing <= max(_MAY_VANISH, expected / 2)):
        return None
    return _contradiction(
        RUNS,
        item.execution.execution_id,
        f"{missing} of its {expected} evals are missing from its list; the stored ones were kept: "
        "run with --accept-deletions if they were deleted on purpose",
    )


def _missing_evals(stored: AbstractSet[str], listed: Mapping[str, Any]) -> int:
    others = sum(isinstance(output, dict) for config_id, output in listed.items() if config_id not in stored)
    return max(0, len(stored - listed.keys()) - others)


def unlisted_call(call_execution_id: str, execution_id: str) -> DeadLetter:
    """A call of the execution exists, although the list leaves it out."""
    message = f"call {call_execution_id} exists, but is missing from the list of its execution"
    return _contradiction(RUNS, execution_id, message)


def foreign_call(metrics: CallMetrics, execution_id: str) -> DeadLetter:
    """The execution lists a call whose own metrics name another one."""
    message = (
        f"call {metrics.call_execution_id}: execution {execution_id} lists it, but it belongs to execution "
        f"{metrics.execution_id}"
    )
    return _contradiction(METRICS, metrics.call_execution_id, message)


def moved_call(metrics: CallMetrics, execution_id: str) -> DeadLetter:
    """The execution no longer lists a stored call whose own metrics name another one, which may not have it yet."""
    message = (
        f"call {metrics.call_execution_id}: execution {execution_id} no longer lists it, and it names execution "
        f"{metrics.execution_id}; its rows stay until they are there, too"
    )
    return _contradiction(RUNS, metrics.call_execution_id, message)


def _contradiction(endpoint: str, subject_id: str, message: str) -> DeadLetter:
    return DeadLetter.of(endpoint, subject_id, SourceError(message, status=200))
