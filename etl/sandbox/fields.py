"""What several endpoints' answers share: fields, and the pages of a list with the quirks of the real server. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from etl.sandbox.world import SimulatedCall, SimulatedExecution

LATENCY = ("avg_agent_latency_ms", "response_time_ms")
COST = ("total_cost_cents", "stt_cost_cents", "llm_cost_cents", "tts_cost_cents")
COUNTERS = ("total_calls", "completed_calls", "failed_calls")
DEFAULT_LIMIT = 10


class AnswerError(Exception):
    """The real server cannot compute this answer either: it answers 500."""


def timestamp(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with a Z, as the API writes it."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def execution_head(execution: SimulatedExecution) -> dict[str, Any]:
    """Id, status, times and stored counters."""
    return named_fields(execution, ("execution_id", "status", "started_at", "completed_at", *COUNTERS))


def named_fields(record: SimulatedCall | SimulatedExecution, names: Iterable[str]) -> dict[str, Any]:
    """These fields of the record, as they are; times as the API writes them."""
    values = {name: getattr(record, name) for name in names}
    return {name: timestamp(value) if isinstance(value, datetime) else value for name, value in values.items()}


def page_of(rows: Sequence[Any], query: Mapping[str, str], max_limit: int | None = None) -> dict[str, Any]:
    """The page of ``rows`` that the query names. Page 1 always exists; a limit that is no positive integer becomes 10.

    Raises:
        AnswerError: There is no such page.
    """
    limit = _integer(query.get("limit")) or 0
    number = _integer(query.get("page", "1")) or 0
    page = cut(rows, number, limit if limit > 0 else DEFAULT_LIMIT, max_limit)
    if not 1 <= number <= page["total_pages"]:
        raise AnswerError(f"no page {number}")
    return page


def cut(rows: Sequence[Any], page: int, limit: int, max_limit: int | None = None) -> dict[str, Any]:
    """Page number ``page`` of ``rows``, as the API shows it; without rows past the end."""
    limit = limit if max_limit is None else min(limit, max_limit)
    return {
        "total_pages": max(1, -(-len(rows) // limit)),
        "current_page": page,
        "count": len(rows),
        "results": rows[(page - 1) * limit : page * limit],
    }


def links(page: Mapping[str, Any], url: str, query: Mapping[str, str]) -> dict[str, str | None]:
    """The URLs of the pages before and after this one; that of page 1 has no page parameter."""

    def link(number: int) -> str:
        parameters = {name: value for name, value in query.items() if name != "page"}
        if number > 1:
            parameters["page"] = str(number)
        return f"{url}?{urlencode(sorted(parameters.items()))}" if parameters else url

    current, last = page["current_page"], page["total_pages"]
    previous = link(current - 1) if 1 < current <= last else None
    return {"next": link(current + 1) if current < last else None, "previous": previous}


def _integer(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
