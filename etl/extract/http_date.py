"""Read the date in an HTTP header. Pure."""

from email.utils import parsedate_to_datetime


def unix_seconds(value: str) -> float | None:
    """The moment in unix seconds; None when it is no date with a zone, whatever stands there instead."""
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return moment.timestamp() if moment.tzinfo else None
