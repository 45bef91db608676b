"""Where requests wait until the quota lets them through.

Owns the waiting and its end: a wait of more than an hour, or beyond the end of the run, ends the run, whose message
says when to run again. Never decides how long to wait: that is the quota's part.
"""

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from etl.errors import SourceUnavailableError
from etl.extract.quota import Quota
from etl.extract.transport import Traffic

OnHold = Callable[[float], None]
"""Called with the number of seconds for which nothing will be sent, if that is long and a request waits."""

_sleep = asyncio.sleep
_REPORTED_HOLD_SECONDS = 5.0
"""``on_hold`` is called for holds of at least this length."""
_LONGEST_WAIT_SECONDS = 3600.0


class Gate:
    """The way out for all requests of a client; it belongs to the event loop in which it is made.

    Args:
        quota: How long to wait.
        traffic: Gets the time until which nothing is sent.
        on_hold: Called before each wait of five seconds or more.
    """

    def __init__(self, quota: Quota, traffic: Traffic, on_hold: OnHold | None) -> None:
        self.run_ends_at = math.inf
        """When the run must have ended, by the event loop's clock: waiting beyond it is pointless."""
        self._quota = quota
        self._traffic = traffic
        self._on_hold = on_hold
        self._turn = asyncio.Lock()
        self._now = asyncio.get_running_loop().time
        self._refused_since = math.inf
        """When the first refusal since the last useful answer came; infinite if none has."""

    def note_refusal(self) -> None:
        """Note that the answer to a request was to wait."""
        self._refused_since = min(self._refused_since, self._now())

    def note_useful_answer(self) -> None:
        """Note that the API gave a useful answer; any other may be a proxy's, or of a second server that is down."""
        self._refused_since = math.inf

    async def wait(self) -> None:
        """Return when a request may be sent. The caller must send it at once: before the next ``await``.

        Raises:
            SourceUnavailableError: That would take more than an hour, counted from the first refusal since the last
                useful answer, or longer than the run may last.
        """
        # Most requests need not wait. Taking the lock only for those that do saves a twelfth of the client's CPU time.
        if not self._turn.locked() and self._quota.wait_seconds(self._now()) <= 0:
            return
        async with self._turn:
            # An answer may arrive during the wait and change the quota, so it is checked again.
            while (seconds := self._quota.wait_seconds(self._now())) > 0:
                self._refuse_long_wait(seconds)
                self._traffic.held_until = self._now() + seconds
                if self._on_hold and seconds >= _REPORTED_HOLD_SECONDS:
                    self._on_hold(seconds)
                await _sleep(seconds)

    def _refuse_long_wait(self, seconds: float) -> None:
        """Raise SourceUnavailableError if a wait of so many seconds is too long: see ``wait``."""
        if max(seconds, self._now() + seconds - self._refused_since) > _LONGEST_WAIT_SECONDS:
            why = ""
        elif seconds > self.run_ends_at - self._now():
            why = ", which is after the end of [export] max_runtime_minutes"
        else:
            return
        # The message has whole minutes: the next one is never too early.
        end = datetime.now(UTC) + timedelta(seconds=seconds, minutes=1)
        raise SourceUnavailableError(f"the API allows no request until {end:%Y-%m-%d %H:%M} UTC{why}. Run again then")
