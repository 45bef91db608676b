"""Wait until the quota lets a request through; a wait of hours ends the run instead, which says when to come back."""

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from etl.errors import SourceUnavailableError
from etl.extract.quota import Quota
from etl.extract.transport import Traffic

_sleep = asyncio.sleep
_TOLD_HOLD_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 3600.0


class Gate:
    """The way out for all requests of a client. ``on_hold`` is told for how many seconds nothing will be sent, when that is long.

    ``run_ends_at`` is the time of the loop's clock at which the run must have ended: waiting beyond it is pointless.
    """

    def __init__(self, quota: Quota, traffic: Traffic, on_hold: Callable[[float], None] | None) -> None:
        self.run_ends_at = math.inf
        self._quota = quota
        self._traffic = traffic
        self._on_hold = on_hold
        self._turn = asyncio.Lock()
        self._now = asyncio.get_running_loop().time
        self._refused_since = math.inf

    def refused(self) -> None:
        """The answer to a request was that it must wait."""
        self._refused_since = min(self._refused_since, self._now())

    def let_through(self) -> None:
        """The API gave a useful answer: whatever else comes meanwhile may be a proxy's, or another server's that is down."""
        self._refused_since = math.inf

    async def wait(self) -> None:
        """Return when a request may be sent, which it then must be at once.

        SourceUnavailableError when that takes more than an hour, counted from the first of the refusals since the last answer, or
        longer than the run may last.
        """
        # Without the lock, which nearly no request needs, a twelfth of the client's processor time is saved.
        if not self._turn.locked() and self._quota.wait_seconds(self._now()) <= 0:
            return
        async with self._turn:
            # Only time passing, or an answer that may come at any moment, lets more through: hence a loop.
            while (seconds := self._quota.wait_seconds(self._now())) > 0:
                is_long = max(seconds, self._now() + seconds - self._refused_since) > _LONGEST_WAIT_SECONDS
                if is_long or seconds > self.run_ends_at - self._now():
                    why = "" if is_long else ", which is beyond [export] max_runtime_minutes"
                    whole_minute = datetime.now(UTC) + timedelta(seconds=seconds, minutes=1)
                    raise SourceUnavailableError(
                        f"the API accepts no requests until {whole_minute:%Y-%m-%d %H:%M} UTC{why}: run again then"
                    )
                self._traffic.held_until = self._now() + seconds
                if self._on_hold and seconds >= _TOLD_HOLD_SECONDS:
                    self._on_hold(seconds)
                await _sleep(seconds)
