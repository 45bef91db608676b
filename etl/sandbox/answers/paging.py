"""Pages of a list, with the quirks of the real server. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from etl.sandbox.aggregates import AnswerError

Row = TypeVar("Row")
DEFAULT_LIMIT = 10


class PastTheEndError(AnswerError):
    """The list has no such page."""


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
