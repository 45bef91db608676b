"""How far the source's clock is from ours, as its answers tell, and a clock of ours that nobody sets.

Whether data has settled is a comparison of the source's times. So it must not depend on a client whose clock is wrong.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from etl.extract.http_date import unix_seconds

_TOLERANCE = timedelta(minutes=1)  # Date has whole seconds, and an answer takes its time
_FARTHEST = timedelta(days=3653)  # no clock of a server is ten years off, and times near the year 9999 overflow


class SteadyClock:
    """Begins with the time of this machine, and goes on though that is set anew.

    Else what is heard of the source's clock would not fit times that were taken before.
    """

    def __init__(self) -> None:
        self._began_at, self._began = datetime.now(UTC), time.monotonic()

    def __call__(self) -> datetime:
        """The time."""
        return self._began_at + timedelta(seconds=time.monotonic() - self._began)


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
