"""What the API returns, as frozen values: ids and statuses have fields of their own, ``payload`` is the JSON object as received."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from etl.errors import SourceError

T = TypeVar("T")

METRICS = "/sdk/api/v1/simulation/metrics/"
RUNS = "/sdk/api/v1/simulation/runs/"
RUN_TESTS = "/simulate/run-tests/"
DETAIL = "/simulate/test-executions/"
FROM_METRICS, FROM_DETAIL = "metrics", "detail"
"""Where the row of a call has its metrics from: the values of ``calls.metrics_from``."""


class NumberLiteral(str):
    """A JSON number as it was written: one that a Python number might not hold exactly (9007199254740993.0, 1e400), or NaN."""

    __slots__ = ()


class ListedRunTest(msgspec.Struct, frozen=True, kw_only=True):
    """One run test in the workspace of the key. Source: GET /simulate/run-tests/."""

    run_test_id: str
    name: str
    payload: dict[str, Any]


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One execution with its aggregated metrics. Source: GET …/metrics/?run_test_name= or ?execution_id=."""

    execution_id: str
    status: str
    payload: dict[str, Any]


class ListedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call in the list of its execution, with scenario and eval outputs. Source: GET …/runs/?execution_id=."""

    call_execution_id: str
    payload: dict[str, Any]


class CallMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One call's raw metrics. Source: GET …/metrics/?call_execution_id=; or, with ``is_from_detail``, its execution's detail."""

    call_execution_id: str
    execution_id: str
    status: str
    payload: dict[str, Any]
    is_from_detail: bool = False


class DetailedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call in its execution's detail: most of its metrics, in another shape. Source: GET /simulate/test-executions/{id}/."""

    call_execution_id: str
    payload: dict[str, Any]


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list, which may shift while it is read."""

    total_pages: int
    count: int
    results: tuple[T, ...]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was given up: what it asked for, and how it last failed."""

    endpoint: str
    subject_id: str
    status: int
    message: str
    excerpt: str
    tries: int

    @classmethod
    def of(cls, endpoint: str, subject_id: str, error: SourceError, *, tries: int | None = None) -> "DeadLetter":
        """The dead letter of a request about the subject; ``tries`` is given where it was tried more often than the error knows."""
        return cls(
            endpoint=endpoint,
            subject_id=subject_id,
            status=error.status,
            message=str(error),
            excerpt=error.excerpt,
            tries=error.tries if tries is None else tries,
        )


class FetchedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call: its entry in the list, its raw metrics, and what only the execution's detail shows of it."""

    listed: ListedCall
    metrics: CallMetrics
    shown: Mapping[str, Any] = {}


class ExecutionBundle(msgspec.Struct, frozen=True, kw_only=True):
    """One execution and everything that was fetched of it.

    ``listed`` is None if its calls were not requested (the execution is still running) or could not be listed. Each listed call is
    in ``calls``, with its metrics, in ``dead_letters``, or in ``kept``: its stored row is as the API has it, and stays, or one of
    ``amended`` takes its place. ``deleted`` are stored calls that the source no longer has. ``lacking``: in how many calls each
    column is null, though the execution's detail has its value. ``part_of`` is how many calls its list has when only some have
    arrived, which are the ``listed`` ones then: more is to come. ``lacks_evals``: the entries of ``kept`` calls have no evals, and
    the stored ones stay, too.
    """

    run_test_name: str
    run_test_key: str
    execution: Execution
    listed: tuple[ListedCall, ...] | None = None
    calls: tuple[FetchedCall, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    kept: frozenset[str] = frozenset()
    amended: tuple[Sequence[Any], ...] = ()
    deleted: frozenset[str] = frozenset()
    lacking: Mapping[str, int] = {}
    part_of: int | None = None
    lacks_evals: bool = False
