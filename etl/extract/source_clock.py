"""How far the source's clock is from ours, as its answers tell. Pure.

Whether data has settled is a comparison of the source's times. So it must not depend on a client whose clock is wrong.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from etl.extract.http_date import unix_seconds

_TOLERANCE = timedelta(minutes=1)  # Date has whole seconds, and an answer takes its time
_FARTHEST = timedelta(days=3653)  # no clock of a server is ten years off, and times near the year 9999 overflow


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
