"""Dates in the headers of answers, and how far the source's clock is from ours by them. Pure.

Whether data has settled is a comparison of the source's times. So it must not depend on a client whose clock is wrong.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache

_TOLERANCE = timedelta(minutes=1)  # Date has whole seconds, and an answer takes its time
_FARTHEST = timedelta(days=3653)  # no clock of a server is ten years off, and times near the year 9999 overflow


# Every answer has a date of whole seconds: those of a second share theirs.
@lru_cache(maxsize=8)
def unix_seconds(value: str) -> float | None:
    """The moment of a date in a header, in unix seconds; None when it is no date with a zone, whatever stands there instead."""
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return moment.timestamp() if moment.tzinfo else None


def clock_offset(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """What to add to our time to get the source's, from the header ``Date`` of an answer that came ``now``.

    Zero where the two clocks agree within a minute. None when there is no such header, or another text, or a date more
    than ten years away.
    """
    then = unix_seconds(headers.get("Date", ""))
    if then is None:
        return None
    offset = timedelta(seconds=then - now.timestamp())
    if abs(offset) > _FARTHEST:
        return None
    return offset if abs(offset) > _TOLERANCE else timedelta(0)
