"""What the API says, as frozen values: identity typed strictly, everything else as it came.

``payload`` is the JSON object as received. Metric blocks stay untouched here: what they mean is for the tables to say.
"""

from typing import Any, Generic, TypeVar

import msgspec

from etl.errors import SourceError

T = TypeVar("T")

METRICS = "/sdk/api/v1/simulation/metrics/"
RUNS = "/sdk/api/v1/simulation/runs/"
RUN_TESTS = "/simulate/run-tests/"


class NumberLiteral(str):
    """A JSON number of which Python's own might not hold every digit (9007199254740993.0, 1e400), or NaN, as it was written."""

    __slots__ = ()


class RunTest(msgspec.Struct, frozen=True, kw_only=True):
    """One run test of the key's workspace. Source: GET /simulate/run-tests/."""

    run_test_id: str
    name: str
    payload: dict[str, Any]


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One execution with its aggregated metrics. Source: GET …/metrics/?run_test_name= or ?execution_id=."""

    execution_id: str
    status: str
    payload: dict[str, Any]


class ListedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call as its execution lists it, with scenario and eval outputs. Source: GET …/runs/?execution_id=."""

    call_execution_id: str
    payload: dict[str, Any]


class CallMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One call's raw metrics. Source: GET …/metrics/?call_execution_id=."""

    call_execution_id: str
    execution_id: str
    status: str
    payload: dict[str, Any]


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list that may shift while it is read."""

    total_pages: int
    count: int
    results: tuple[T, ...]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One request whose answer could not be had: what was asked, and how it failed last."""

    endpoint: str
    subject_id: str
    status: int
    message: str
    excerpt: str
    tries: int

    @classmethod
    def of(cls, endpoint: str, subject_id: str, error: SourceError, *, tries: int | None = None) -> "DeadLetter":
        """The dead letter of a request to the endpoint for the subject that ended in the error, after so many tries.

        ``tries`` is the error's own number unless whoever sent the request tried more often.
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
    """One call, complete: as listed, and its raw metrics."""

    listed: ListedCall
    metrics: CallMetrics


class ExecutionBundle(msgspec.Struct, frozen=True, kw_only=True):
    """One execution and what was fetched of it in one go.

    ``listed`` is None when its calls were not asked for (the execution is still running) or could not be listed.
    ``calls`` are those whose metrics arrived; each listed call is in ``calls`` or in ``dead_letters``.
    """

    run_test_name: str
    run_test_key: str
    execution: Execution
    date: str
    listed: tuple[ListedCall, ...] | None = None
    calls: tuple[FetchedCall, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
