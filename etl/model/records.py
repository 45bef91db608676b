"""What the API returns, as frozen values, and what a run makes of the answers about one execution.

Ids and statuses have fields of their own; ``payload`` is always the JSON object as received. Nothing here interprets
it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from etl.errors import SourceError

T = TypeVar("T")

# The paths of the endpoints.
METRICS = "/sdk/api/v1/simulation/metrics/"
RUNS = "/sdk/api/v1/simulation/runs/"
ANALYTICS = "/sdk/api/v1/simulation/analytics/"
RUN_TESTS = "/simulate/run-tests/"
DETAIL = "/simulate/test-executions/"
VOICE_CALLS = "/simulate/api/call-executions/"
FROM_METRICS = "metrics"
"""Value of ``calls.metrics_from``: the row was made of the call's own metrics."""
FROM_DETAIL = "detail"
"""Value of ``calls.metrics_from``: the row was made of the two lists of its execution, without a few columns."""
FROM_LISTS = "lists"
"""Value of ``calls.metrics_from``: the row was made of the detail and the list of voice calls, which have all of it."""
FROM_BOTH = "both"
"""Value of ``calls.metrics_from``: its own metrics, and values of the lists where these have none."""


class NumberLiteral(str):
    """A JSON number as it was written, if a Python number might not hold it exactly: 9007199254740993.0, 1e400, NaN."""

    __slots__ = ()


class ListedRunTest(msgspec.Struct, frozen=True, kw_only=True):
    """One run test in the workspace of the key. Source: GET /simulate/run-tests/."""

    run_test_id: str
    name: str
    payload: dict[str, Any]


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One execution with its aggregated metrics.

    Source: GET /sdk/api/v1/simulation/metrics/?run_test_name=… or ?execution_id=…
    """

    execution_id: str
    status: str
    payload: dict[str, Any]


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What lists of run tests say of an execution beside its metrics.

    Sources: GET /simulate/run-tests/{run_test_id}/executions/ and, of what judged it, /simulate/run-tests/.
    """

    execution_id: str
    columns: dict[str, str | None]
    """By column of ``executions``."""


class ListedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call in one of three lists of its execution.

    Sources: GET /sdk/api/v1/simulation/runs/?execution_id=…, with its scenario and its eval outputs;
    /simulate/test-executions/{execution_id}/, the detail, which has most of its metrics, in another shape; and
    /simulate/api/call-executions/?test_execution_id=…, the list of voice calls, with the needed fields alone.
    """

    call_execution_id: str
    payload: dict[str, Any]


class CallMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One call's own metrics.

    Source: GET /sdk/api/v1/simulation/metrics/?call_execution_id=…, or lists of its execution.
    """

    call_execution_id: str
    execution_id: str
    status: str
    payload: dict[str, Any]
    made_from: str = FROM_METRICS
    """What they were put together from, as ``calls.metrics_from`` says it."""


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list. The list may shift while it is read, so two pages need not fit together."""

    total_pages: int
    """Number of pages that the list had when the API answered."""
    count: int
    """Number of rows on all pages together."""
    results: tuple[T, ...]
    """The rows of this page, in the order of the list."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was given up: what it asked for, and how it last failed. A row of ``errors``."""

    endpoint: str
    """Path of the endpoint."""
    subject_id: str
    """The call or the execution that was asked for."""
    status: int
    """HTTP status of the last try; 0 if there was no answer."""
    message: str
    excerpt: str
    """The first 200 characters of the last answer."""
    tries: int
    """Requests that the run spent on it."""

    @classmethod
    def of(cls, endpoint: str, subject_id: str, error: SourceError, *, tries: int | None = None) -> "DeadLetter":
        """The dead letter of a request that ended in this error.

        ``tries`` is given only if the request was tried more often than the error knows.
        """
        return cls(
            endpoint=endpoint,
            subject_id=subject_id,
            status=error.status,
            message=str(error),
            excerpt=error.excerpt,
            tries=error.tries if tries is None else tries,
        )


class FetchedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call, from all that was fetched of it."""

    listed: ListedCall
    metrics: CallMetrics
    shown: Mapping[str, Any] = {}
    """The exported fields that only the execution's detail has, by their name there."""
    by_lists: Mapping[int, Any] = {}
    """What the two lists of its execution show: by place in a row of ``calls``, values as received."""


class ExecutionBundle(msgspec.Struct, frozen=True, kw_only=True):
    """One execution and everything that was fetched of it.

    Each listed call is in one of ``calls``, ``dead_letters`` and ``kept``.
    """

    run_test_name: str
    run_test_key: str
    execution: Execution
    listed: tuple[ListedCall, ...] | None = None
    """Its calls as listed. None if they were not requested, since it still runs, or could not be listed."""
    calls: tuple[FetchedCall, ...] = ()
    """The calls that were fetched with their metrics."""
    dead_letters: tuple[DeadLetter, ...] = ()
    """The requests about it that were given up."""
    kept: frozenset[str] = frozenset()
    """Ids of calls that were not fetched, since their stored rows are as the API has them. The rows stay."""
    amended: tuple[Sequence[Any], ...] = ()
    """Rows of ``calls``, with newer values of the detail, that replace the stored rows of some ``kept`` calls."""
    deleted: frozenset[str] = frozenset()
    """Ids of stored calls that the source no longer has."""
    detail_fields: frozenset[str] | None = None
    """Which fields that only it has the execution's detail names, be they null; None if it was not read."""
    kept_losses: Mapping[str, int] = {}
    """By column, as ``Losses`` names it, in how many kept rows it is null although ``extra`` may have its value."""
    kept_has: frozenset[str] = frozenset()
    """Of columns of which some kept rows lack values so, those that most have."""
    part_of: int | None = None
    """The number of all its calls if only some have arrived, which then are the ``listed`` ones; None if all have."""
    lacks_evals: bool = False
    """Whether the entries of ``kept`` calls come without evals, so that their stored evals stay, too."""
    keeps_unseen: bool = False
    """Whether calls are ``kept`` without a comparison, since the execution's detail is missing."""
