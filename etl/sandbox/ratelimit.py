"""The API's request quota: a fixed window, aligned to the epoch, in which refused requests count too. Pure."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one request is allowed, and what the headers say about the limit."""

    is_allowed: bool
    limit: int
    remaining: int
    resets_at: float
    retry_after_seconds: int


@dataclass(slots=True)
class FixedWindow:
    """``limit`` requests per window; a window of 60 seconds is a minute of the clock."""

    limit: int
    window_seconds: float = 60.0
    _window: int = field(default=-1, init=False)
    _used: int = field(default=0, init=False)

    def take(self, now: float) -> Verdict:
        """Count one request at ``now`` (unix seconds)."""
        window = math.floor(now / self.window_seconds)
        if window != self._window:
            self._window, self._used = window, 0
        self._used += 1
        resets_at = (window + 1) * self.window_seconds
        return Verdict(
            is_allowed=self._used <= self.limit,
            limit=self.limit,
            remaining=max(0, self.limit - self._used),
            resets_at=resets_at,
            retry_after_seconds=max(1, math.ceil(resets_at - now)),
        )
