"""How many requests may be sent now: one ``Quota`` for the whole session (law 10).

Pure: times are seconds of a monotonic clock and are given. It never waits and never sends.

The limit has three sources. Which one counts:

===========================================  ================================================================
what is known                                what is let through
===========================================  ================================================================
the server reports its window                as many as remain of it, without those under way. A configured
(X-RateLimit headers)                        limit counts, too
a limit is configured, or was learned        a sliding window: so many in any 60 seconds, counted from the
from a refusal                               time of their answers. Whatever the server's clock shows, none of
                                             its own windows then sees more requests than the limit
nothing                                      everything
===========================================  ================================================================

How a limit is learned. A refusal that says when to come back holds all requests until then. How many requests were
accepted in the minute that it ended is taken for the limit. Others may have used part of that minute, so the learned
limit is tested: one request beyond it is under way at a time; two once twice the limit was sent within a minute, three
at four times, and so on. A limit that a test confirmed is tested again after one minute, then after two, four, …, 16.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from etl.extract.answers import unix_seconds

WINDOW_SECONDS = 60.0
_POLL_SECONDS = 0.05
"""How soon to look again while an answer that may let more through is on its way."""
_NO_HINT_SECONDS = 5.0
"""How long a refusal holds that does not say for how long."""
_FORGET_SECONDS = 600.0
"""After how long a learned limit is forgotten where a share of it belongs to others."""
_LONGEST_PATIENCE_SECONDS = 960.0
"""The longest time between two tests of a learned limit."""
_CONFIRMED_SHARE = 0.8
"""A test that ends at this share of the known limit, or above, confirms it."""
_SHORT_SECONDS = 15.0
"""A refusal for no longer than this teaches nothing about a minute."""
_ROUNDED_SECONDS = 1.0  # Retry-After has whole seconds, mostly rounded up
_LONGEST_WINDOW_SECONDS = 86_400.0
_LARGEST_LIMIT = 10**9
"""A reported limit above this cannot be true."""


@dataclass(frozen=True, slots=True)
class Window:
    """The server's present window, as the headers of an answer report it."""

    limit: int
    """How many requests it allows in all."""
    remaining: int
    """How many of them are left."""
    reset_unix_seconds: float
    """When it ends, by the server's clock."""


class Quota:
    """The session's allowance: ``wait_seconds`` says when a request may be sent.

    Each request is announced by ``sent`` and ended by ``answered``, whether or not an answer came; a refusal is
    reported by ``refused`` after that.

    Args:
        requests_per_minute: The configured limit; None to go by what the server reports, or to learn it.
        share: Which part of each limit is ours, between 0 and 1; the rest is left to others of the organization.
    """

    def __init__(self, *, requests_per_minute: int | None = None, share: float = 1.0) -> None:
        self._share = share
        self._in_flight = 0
        """How many requests are under way."""
        self._answered_at: deque[float] = deque()
        """When requests were answered; times older than 60 seconds are removed when they are next needed."""
        self._held_until = 0.0
        """Until when nobody sends."""

        # The window that the server reports
        self._window: Window | None = None
        """The latest one; None before the first report, and when it ended without another."""
        self._window_ends_at = 0.0
        self._unreported: int | None = None
        """How many answers without headers the present window has; None before the server reports its first window.

        A proxy's error page is such an answer: the server may have counted the request, but did not say so.
        """
        self._unreported_before = 0
        """The same, of the window before it."""

        # The limit that is configured or was learned, for the sliding window
        self._is_configured = requests_per_minute is not None
        self._limit = None if requests_per_minute is None else self._ours(requests_per_minute)
        """Our share of it; None while there is none."""
        self._test_at = math.inf
        """From when on a learned limit is tested; with a share for others, when it is forgotten."""
        self._tested_from = 1
        """The limit as learned: each doubling of a minute's requests beyond it allows one more test at a time."""
        self._patience_seconds = 0.0
        """How long after it was learned the limit is tested: twice as long after each test that confirms it."""
        self._clean_at = math.inf
        """When 60 seconds without a refusal will have passed: what was answered in them is the limit, if it is more."""

        # The minute that ended in a refusal
        self._refused_window_started_at: float | None = None
        """When it began; None once its limit is learned."""
        self._refusals = 0
        """How many requests were refused in it."""

    @property
    def requests_per_minute(self) -> int | None:
        """Our share of the limit in force; None until one is known."""
        limits = [self._ours(self._window.limit)] if self._window else []
        if self._limit is not None and self._is_sliding:
            limits.append(self._limit)
        return min(limits, default=None)

    def limit_to(self, requests_per_minute: int) -> None:
        """From now on so many requests a minute are ours, also where the server's window would let more through."""
        self._limit = requests_per_minute
        self._is_configured = True
        self._test_at = self._clean_at = math.inf

    def seconds_for(self, requests: int, now: float) -> float | None:
        """How long it will take until the last of so many requests may be sent; None while no limit is known."""
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
        """How many more requests may be sent in the present window; None while no limit is known. Changes nothing."""
        limits = [self._rest_of(self._window, now)] if self._window else []
        if self._limit is not None and self._is_sliding:
            limits.append(self._limit - len(self._answered_at))
        return max(0, min(limits) - self._in_flight) if limits else None

    def wait_seconds(self, now: float) -> float:
        """0 if a request may be sent now, else how long to wait before calling this again."""
        if now < self._held_until:
            return self._held_until - now
        self._learn(now)
        return max(self._window_wait_seconds(now), self._sliding_wait_seconds(now))

    def sent(self) -> None:
        """Note that a request goes out."""
        self._in_flight += 1

    def answered(self, now: float, headers: Mapping[str, str]) -> None:
        """Note that a request was answered, or that it failed without an answer: then there are no headers."""
        self._in_flight -= 1
        self._answered_at.append(now)
        window = _window_of(headers)
        if window is None:
            self._count_unreported(now)
        elif self._window is None or window.reset_unix_seconds > self._window.reset_unix_seconds:
            self._window = window
            # Whether an answer without headers fell into the old window or into this one cannot be known: it counts in
            # both.
            self._unreported_before = self._unreported or 0
            self._unreported = 0
            self._window_ends_at = now + _seconds_until_reset(window.reset_unix_seconds, headers)
        elif window.reset_unix_seconds == self._window.reset_unix_seconds and window.remaining < self._window.remaining:
            # Answers overtake each other: within a window, the smallest remainder is the latest one.
            self._window = window

    def refused(self, now: float, retry_after_seconds: float | None) -> None:
        """Hold all requests: the server refused the one that was noted as answered just before.

        A refusal that names a plausible end of its minute is also what the limit is learned from.
        """
        self.hold(now, _NO_HINT_SECONDS if retry_after_seconds is None else retry_after_seconds)
        if retry_after_seconds is None:
            return
        # The first refusal fixes the window. Those that follow were under way already; they only count as not accepted.
        # One for a few seconds may be of a shorter window, or of a server that is busy for a moment: it says nothing
        # about a minute.
        if self._refused_window_started_at is None and _SHORT_SECONDS < retry_after_seconds <= WINDOW_SECONDS:
            self._refused_window_started_at = now + retry_after_seconds - WINDOW_SECONDS - _ROUNDED_SECONDS
            self._refusals = 0
        self._refusals += 1

    def hold(self, now: float, seconds: float) -> None:
        """Let nobody send for so many seconds; a longer hold that is in force stays."""
        self._held_until = max(self._held_until, now + seconds)

    @property
    def _is_sliding(self) -> bool:
        """Whether ``_limit`` counts: one that was only learned gives way to a window that the server reports."""
        return self._is_configured or self._window is None

    def _ours(self, limit: int) -> int:
        return max(1, int(limit * self._share))

    def _left(self, window: Window) -> int:
        """What remains of the window for us: without the share of others."""
        return window.remaining - (window.limit - self._ours(window.limit))

    def _rest_of(self, window: Window, now: float) -> int:
        """How many requests may be under way in the reported window, or in the one that has followed it by now."""
        if now >= self._window_ends_at:
            # The next window is not reported before its first answer: until then, its limit may be under way.
            return self._ours(window.limit)
        return self._left(window) - (self._unreported or 0) - self._unreported_before

    def _count_unreported(self, now: float) -> None:
        """Count an answer without headers, if the server has reported a window before.

        It stays subtracted from what the server reports later in this window: an answer with headers that arrives after
        it may have been counted by the server before it.
        """
        if self._unreported is None:
            return
        self._unreported += 1
        if self._window is None or now < self._window_ends_at:
            return
        # The window is over and no new one is reported: keep its limit, as if it were configured, in a sliding window.
        if not self._is_configured:
            self._limit = self._ours(self._window.limit)
            self._test_at = self._clean_at = math.inf
        self._window = None

    def _learn(self, now: float) -> None:
        """Take the number of requests accepted in a refused minute for the limit; in a clean minute, if it was more.

        Called only when the hold is over: by then everything has been answered that the ended window let through.
        """
        if self._refused_window_started_at is not None:
            started_at = self._refused_window_started_at
            self._refused_window_started_at = None
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
        """Set the learned limit, and when to test it."""
        is_confirmed = self._limit is not None and limit >= self._limit * _CONFIRMED_SHARE
        if self._share < 1:
            # Whatever goes beyond it may be the share of others: it is forgotten after a while, and learned again.
            self._patience_seconds = _FORGET_SECONDS
        elif is_confirmed:
            self._patience_seconds = min(max(2 * self._patience_seconds, WINDOW_SECONDS), _LONGEST_PATIENCE_SECONDS)
        else:  # it is new, or it fell: that may be what others left of that minute, so it is tested at once
            self._patience_seconds = 0.0
        self._limit = self._tested_from = limit
        self._test_at = now + self._patience_seconds
        self._clean_at = now + WINDOW_SECONDS

    def _window_wait_seconds(self, now: float) -> float:
        if self._window is None or self._rest_of(self._window, now) > self._in_flight:
            return 0.0
        # An answer that is on its way may report more; without any, only the window's end changes something.
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
        """Whether a request beyond the learned limit may be sent now, to see whether there is more.

        ``count`` is how many this minute has; for each time that it doubled, one more test may be under way.
        """
        return now >= self._test_at and self._in_flight <= math.log2(count / self._tested_from)

    def _recent(self, now: float) -> deque[float]:
        """When the requests of the last 60 seconds were answered; older times are forgotten."""
        while self._answered_at and self._answered_at[0] + WINDOW_SECONDS <= now:
            self._answered_at.popleft()
        return self._answered_at


def _window_of(headers: Mapping[str, str]) -> Window | None:
    """The window that the headers report; None if they report none, or one that cannot be true."""
    limit = headers.get("X-RateLimit-Limit")
    if limit is None:
        return None
    try:
        window = Window(int(limit), int(headers["X-RateLimit-Remaining"]), float(headers["X-RateLimit-Reset"]))
    except (KeyError, ValueError):
        return None
    # A reset in milliseconds would end the window in years, one counted from now at once, and inf never.
    is_near = -WINDOW_SECONDS <= _seconds_until_reset(window.reset_unix_seconds, headers) <= _LONGEST_WINDOW_SECONDS
    is_plausible = 0 < window.limit <= _LARGEST_LIMIT and math.isfinite(window.reset_unix_seconds) and is_near
    return window if is_plausible else None


def _seconds_until_reset(reset_unix_seconds: float, headers: Mapping[str, str]) -> float:
    """How long the window lasts, by the server's own clock (``Date``, to the second); without it, a whole minute."""
    now = unix_seconds(headers.get("Date"))
    return WINDOW_SECONDS if now is None else reset_unix_seconds - now
