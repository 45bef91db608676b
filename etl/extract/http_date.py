"""Read the date in an HTTP header. Pure."""

from email.utils import parsedate_to_datetime
from functools import lru_cache


# Every answer has a date of whole seconds: those of a second share theirs.
@lru_cache(maxsize=8)
def unix_seconds(value: str) -> float | None:
    """The moment in unix seconds; None when it is no date with a zone, whatever stands there instead."""
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return moment.timestamp() if moment.tzinfo else None
