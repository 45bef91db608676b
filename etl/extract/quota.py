"""How many requests may be sent now. One for the whole session; pure: times are seconds of a monotonic clock.

There are three sources of the limit; the best one that is known counts:

- The server tells its window (X-RateLimit headers): each window is used up to ``Remaining``, minus what is under way.
- The limit is configured, or was learned from a refusal: a sliding window of 60 seconds, counted from the time of the
  answers. Whatever the server's clock, none of its fixed windows then sees more requests than the limit.
- Nothing is known: nothing is limited here.

A refusal that says when to come back holds all requests until then. The number of requests that were accepted in the minute that
it ended is taken for the limit. Others may have used part of that minute, so the learned limit is tested: what goes beyond it is
sent one request at a time, and one more for each time that the limit doubled. A confirmed limit is tested again after one minute,
then after two, four, …
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from etl.extract.answers import unix_seconds

WINDOW_SECONDS = 60.0
_POLL_SECONDS = 0.05
_NO_HINT_SECONDS = 5.0
_FORGET_SECONDS = 600.0
_LONGEST_PATIENCE_SECONDS = 960.0
_CONFIRMED_SHARE = 0.8
_SHORT_SECONDS = 15.0
_ROUNDED_SECONDS = 1.0  # Retry-After is told in whole seconds, mostly rounded up
_LONGEST_WINDOW_SECONDS = 86_400.0
_LARGEST_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class Window:
    """The server's present window: what it allows in all, what is left, and when it ends, in its own unix time."""

    limit: int
    remaining: int
    reset_unix_seconds: float


class Quota:
    """The session's allowance. ``share`` of the limit is ours; the rest is left to others of the organization.

    Each request is announced by ``sent`` and ended by ``answered``. What limits it is kept in these fields:

    - ``_window``, the server's latest window, ends at ``_window_ends_at``. Some answers carry no headers, a proxy's error page for
      example: the server may have counted such a request, but did not say so. ``_untold`` counts those of the present window,
      ``_untold_before`` those of the one before it; ``_untold`` is None until the server tells its first window.
    - ``_limit`` is configured, or learned. It applies to ``_answered_at``, the times of the answers of the last 60 seconds, while
      no window is told, or when it was configured. A learned one is tested from ``_test_at`` on, ``_patience_seconds`` after it was
      confirmed last; ``_tested_from`` is what it was before the test. By ``_clean_at`` a minute has passed without a refusal, and
      what was answered in it is the limit.
    - ``_refused_window_started_at`` and ``_refusals`` belong to a window that ended in a refusal, from which the limit is learned.
    - ``_in_flight`` requests are under way; until ``_held_until`` nobody sends.
    """

    def __init__(self, *, requests_per_minute: int | None = None, share: float = 1.0) -> None:
        self._share = share
        self._is_configured = requests_per_minute is not None
        self._limit = None if requests_per_minute is None else self._ours(requests_per_minute)
        self._test_at = self._clean_at = math.inf
        self._patience_seconds = 0.0
        self._tested_from = 1
        self._refused_window_started_at: float | None = None
        self._refusals = 0
        self._window: Window | None = None
        self._window_ends_at = 0.0
        self._untold: int | None = None
        self._untold_before = 0
        self._answered_at: deque[float] = deque()
        self._in_flight = 0
        self._held_until = 0.0

    @property
    def requests_per_minute(self) -> int | None:
        """The limit in force; None until one is known."""
        limits = [self._ours(self._window.limit)] if self._window else []
        if self._limit is not None and self._is_sliding:
            limits.append(self._limit)
        return min(limits, default=None)

    def limit_to(self, requests_per_minute: int) -> None:
        """From now on so many requests a minute are ours, also where the server's window would let more through."""
        self._limit, self._is_configured = requests_per_minute, True
        self._test_at = self._clean_at = math.inf

    def seconds_for(self, requests: int, now: float) -> float | None:
        """When the last of so many requests may be sent, counted from now; None while no limit is known."""
        limit = self.requests_per_minute
        if limit is None:
            return None
        if self._window is None or self._is_configured or now >= self._window_ends_at:
            return max(0, math.ceil(requests / limit) - 1) * WINDOW_SECONDS
        left = max(0, self._left(self._window))
        if requests <= left:
            return 0.0
        return self._window_ends_at - now + (math.ceil((requests - left) / limit) - 1) * WINDOW_SECONDS

    def left(self, now: float) -> int | None:
        """How many more requests the present window lets through; None while no limit is known. Changes nothing."""
        left = []
        if self._window is not None:
            is_over = now >= self._window_ends_at
            rest = self._ours(self._window.limit) if is_over else self._left(self._window) - self._untold_in_window
            left.append(rest - self._in_flight)
        if self._limit is not None and self._is_sliding:
            left.append(self._limit - len(self._answered_at) - self._in_flight)
        return max(0, min(left)) if left else None

    def wait_seconds(self, now: float) -> float:
        """0 when a request may be sent now, else how long to wait before this is called again."""
        if now < self._held_until:
            return self._held_until - now
        self._learn(now)
        return max(self._window_wait_seconds(now), self._sliding_wait_seconds(now))

    def sent(self) -> None:
        """A request goes out."""
        self._in_flight += 1

    def answered(self, now: float, headers: Mapping[str, str]) -> None:
        """A request was answered, or failed without an answer (then there are no headers)."""
        self._in_flight -= 1
        self._answered_at.append(now)
        window = _window_of(headers)
        if window is None:
            self._count_untold(now)
        elif self._window is None or window.reset_unix_seconds > self._window.reset_unix_seconds:
            self._window = window
            # Whether an answer without headers fell into the old window or into this one cannot be known: it counts in both.
            self._untold_before, self._untold = self._untold or 0, 0
            self._window_ends_at = now + _seconds_until_reset(window.reset_unix_seconds, headers)
        elif window.reset_unix_seconds == self._window.reset_unix_seconds and window.remaining < self._window.remaining:
            # Answers overtake each other: within a window, the smallest remainder is the latest one.
            self._window = window

    def refused(self, now: float, retry_after_seconds: float | None) -> None:
        """The server refused the request that was answered just before; nobody sends until it lets requests through again."""
        if retry_after_seconds is None:
            self.hold(now, _NO_HINT_SECONDS)
            return
        self.hold(now, retry_after_seconds)
        # The first refusal fixes the window. Those that follow were under way already; they only count as not accepted. One of
        # a few seconds may be of a shorter window, or of a server that is busy for a moment: it tells nothing of a minute.
        if self._refused_window_started_at is None and _SHORT_SECONDS < retry_after_seconds <= WINDOW_SECONDS:
            self._refused_window_started_at = now + retry_after_seconds - WINDOW_SECONDS - _ROUNDED_SECONDS
            self._refusals = 0
        self._refusals += 1

    def hold(self, now: float, seconds: float) -> None:
        """Let nobody send for so long."""
        self._held_until = max(self._held_until, now + seconds)

    @property
    def _is_sliding(self) -> bool:
        """Whether ``_limit`` counts: a limit that was only learned gives way to a window that the server tells."""
        return self._is_configured or self._window is None

    def _ours(self, limit: int) -> int:
        return max(1, int(limit * self._share))

    def _left(self, window: Window) -> int:
        """What remains of the window, minus what is reserved for others."""
        return window.remaining - (window.limit - self._ours(window.limit))

    @property
    def _untold_in_window(self) -> int:
        return (self._untold or 0) + self._untold_before

    def _count_untold(self, now: float) -> None:
        """Count an answer without headers, if the server has told a window before.

        It stays subtracted from what the server tells later in this window: an answer with headers that arrives after it may have
        been counted by the server before it.
        """
        if self._untold is None:
            return
        self._untold += 1
        if self._window is None or now < self._window_ends_at:
            return
        # The window is over and no new one is told: keep its limit, as if it were configured, in a sliding window.
        if not self._is_configured:
            self._limit = self._ours(self._window.limit)
            self._test_at = self._clean_at = math.inf
        self._window = None

    def _learn(self, now: float) -> None:
        """Take the accepted requests of a refused minute for the limit, and those of a clean one if they were more.

        Called once the hold is over: only then has everything been answered that the ended window let through.
        """
        if self._refused_window_started_at is not None:
            started_at, self._refused_window_started_at = self._refused_window_started_at, None
            accepted = sum(answered_at >= started_at for answered_at in self._answered_at) - self._refusals
            if self._window is None and not self._is_configured and accepted > 0:
                self._relearn(self._ours(accepted), now)
                # The server's window has just begun anew, so the sliding one does, too.
                self._answered_at.clear()
        elif now >= self._clean_at and self._limit is not None:
            self._limit = max(self._limit, len(self._recent(now)))
            self._clean_at = now + WINDOW_SECONDS
        if self._share < 1 and now >= self._test_at:
            self._limit = None

    def _relearn(self, limit: int, now: float) -> None:
        is_confirmed = self._limit is not None and limit >= self._limit * _CONFIRMED_SHARE
        if self._share < 1:
            # Whatever goes beyond it may be the share of others: it is forgotten after a while, and learned again.
            self._patience_seconds = _FORGET_SECONDS
        elif is_confirmed:
            self._patience_seconds = min(max(2 * self._patience_seconds, WINDOW_SECONDS), _LONGEST_PATIENCE_SECONDS)
        else:  # new, or it fell: that may be what others left of that minute
            self._patience_seconds = 0.0
        self._limit = self._tested_from = limit
        self._test_at = now + self._patience_seconds
        self._clean_at = now + WINDOW_SECONDS

    def _window_wait_seconds(self, now: float) -> float:
        if self._window is None:
            return 0.0
        ours = self._ours(self._window.limit)
        if now >= self._window_ends_at:
            # The next window is not told before its first answer: until then, no more than its limit may be under way.
            return 0.0 if self._in_flight < ours else _POLL_SECONDS
        if self._left(self._window) > self._in_flight + self._untold_in_window:
            return 0.0
        # An answer that is still to come may tell more; without any, only the window's end changes something.
        return _POLL_SECONDS if self._in_flight else self._window_ends_at - now

    def _sliding_wait_seconds(self, now: float) -> float:
        recent = self._recent(now)
        if self._limit is None or not self._is_sliding:
            return 0.0
        count = len(recent) + self._in_flight
        if count < self._limit or self._is_test_due(count, now):
            return 0.0
        return _POLL_SECONDS if self._in_flight else recent[0] + WINDOW_SECONDS - now

    def _is_test_due(self, count: int, now: float) -> bool:
        """Whether a request beyond the learned limit may show that there is more; ``count`` is how many this minute has."""
        return now >= self._test_at and self._in_flight <= math.log2(count / self._tested_from)

    def _recent(self, now: float) -> deque[float]:
        """The times of the answers of the last 60 seconds."""
        while self._answered_at and self._answered_at[0] + WINDOW_SECONDS <= now:
            self._answered_at.popleft()
        return self._answered_at


def _window_of(headers: Mapping[str, str]) -> Window | None:
    """The window that the headers tell; None when they tell none or one that cannot be true."""
    limit = headers.get("X-RateLimit-Limit")
    if limit is None:
        return None
    try:
        window = Window(int(limit), int(headers["X-RateLimit-Remaining"]), float(headers["X-RateLimit-Reset"]))
    except (KeyError, ValueError):
        return None
    # A reset in milliseconds, or counted from now, would end the window years from now or at once; after inf none would come.
    is_near = -WINDOW_SECONDS <= _seconds_until_reset(window.reset_unix_seconds, headers) <= _LONGEST_WINDOW_SECONDS
    is_time = math.isfinite(window.reset_unix_seconds)
    return window if 0 < window.limit <= _LARGEST_LIMIT and is_time and is_near else None


def _seconds_until_reset(reset_unix_seconds: float, headers: Mapping[str, str]) -> float:
    """By the server's own clock, which ``Date`` tells to the second; without it, a whole window."""
    now = unix_seconds(headers.get("Date"))
    return WINDOW_SECONDS if now is None else reset_unix_seconds - now
