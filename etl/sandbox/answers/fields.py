"""What the answers of several endpoints share: fields, and the pages of a list with the quirks of the real server. Pure."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from etl.sandbox.aggregates import AnswerError
from etl.sandbox.world import Call, Execution

Row = TypeVar("Row")
DEFAULT_LIMIT = 10


class PastTheEndError(AnswerError):
    """The list has no such page."""


def timestamp(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with a Z, as the API writes it."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def execution_head(execution: Execution) -> dict[str, Any]:
    """Id, status, times and stored counters."""
    return {
        "execution_id": execution.execution_id,
        "status": execution.status,
        "started_at": timestamp(execution.started_at),
        "completed_at": timestamp(execution.completed_at),
        "total_calls": execution.total_calls,
        "completed_calls": execution.completed_calls,
        "failed_calls": execution.failed_calls,
    }


def call_latency(call: Call) -> dict[str, Any]:
    """The call's latency block without open-ended objects."""
    return {"avg_agent_latency_ms": call.avg_agent_latency_ms, "response_time_ms": call.response_time_ms}


def call_cost(call: Call) -> dict[str, Any]:
    """The call's cost block without open-ended objects."""
    return {
        "total_cost_cents": call.total_cost_cents,
        "stt_cost_cents": call.stt_cost_cents,
        "llm_cost_cents": call.llm_cost_cents,
        "tts_cost_cents": call.tts_cost_cents,
    }


def eval_outputs(call: Call, eval_names: Collection[str] | None) -> dict[str, Any]:
    """The call's eval outputs by config id; only those of ``eval_names``, in any case, unless it is None.

    Raises:
        AnswerError: they are to be filtered by name, and are no object, or one of them has null for a name.
    """
    if eval_names is None:
        return call.eval_outputs
    if not isinstance(call.eval_outputs, dict):
        raise AnswerError("eval outputs that are no object")
    if any(isinstance(each, dict) and each.get("name", "") is None for each in call.eval_outputs.values()):
        raise AnswerError("an eval output whose name is null")
    wanted = {name.lower() for name in eval_names}
    return {
        config_id: output
        for config_id, output in call.eval_outputs.items()
        if isinstance(output, dict) and str(output.get("name", "")).lower() in wanted
    }


def page_of(rows: Sequence[Row], page: str | None, limit: str | None, max_limit: int | None = None) -> dict[str, Any]:
    """One page of ``rows``. A limit that is not a positive integer silently becomes 10.

    Raises:
        PastTheEndError: ``rows`` has no such page; page 1 always exists.
    """
    size = _integer(limit)
    size = DEFAULT_LIMIT if size is None or size < 1 else size
    size = size if max_limit is None else min(size, max_limit)
    total_pages = max(1, -(-len(rows) // size))
    number = 1 if page is None else _integer(page)
    if number is None or not 1 <= number <= total_pages:
        raise PastTheEndError(page)
    return {
        "total_pages": total_pages,
        "current_page": number,
        "count": len(rows),
        "results": rows[(number - 1) * size : number * size],
    }


def page_link(url: str, query: Mapping[str, str], page: int) -> str:
    """The URL of another page of the same list; page 1 has no page parameter."""
    others = {name: value for name, value in query.items() if name != "page"}
    pairs = sorted(others.items() if page == 1 else {**others, "page": str(page)}.items())
    return f"{url}?{urlencode(pairs)}" if pairs else url


def _integer(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
