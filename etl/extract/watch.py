"""One look at all requests in place of timers for each: what makes no progress, or takes too long in all, is cut off.

The timers of one request are set, moved and unset several times while it runs, and cost more than the rest of its bookkeeping.
Here it only notes the time at which something came.
"""

import asyncio
from types import TracebackType
from typing import Self

_LOOKS_PER_TIMEOUT = 20


class Watch:
    """Cuts off what makes no progress for ``silence_seconds`` or has not ended after ``total_seconds``.

    Only while ``run`` runs, and up to a twentieth of the shorter time late.
    """

    def __init__(self, *, silence_seconds: float, total_seconds: float) -> None:
        self._silence_seconds = silence_seconds
        self._total_seconds = total_seconds
        self._watched: set[Watched] = set()

    def over(self, task: asyncio.Task[object], now: float) -> "Watched":
        """Watch what the task does inside: ``with watch.over(task, now) as watched: …``."""
        return Watched(self._watched, task, now)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(self._silence_seconds, self._total_seconds) / _LOOKS_PER_TIMEOUT)
            self.look(loop.time())

    def look(self, now: float) -> None:
        """Cut off what is overdue by now."""
        for watched in self._watched:
            if now - watched.progress_at >= self._silence_seconds or now - watched.started_at >= self._total_seconds:
                watched.cut_off()


class Watched:
    """One request; ``progress_at`` is when something came last, by the loop's clock."""

    __slots__ = ("_all", "_cancelling", "_is_late", "_task", "progress_at", "started_at")

    def __init__(self, all_watched: "set[Watched]", task: asyncio.Task[object], now: float) -> None:
        self.started_at = self.progress_at = now
        self._all = all_watched
        self._task = task
        self._cancelling = task.cancelling()
        self._is_late = False

    def __enter__(self) -> Self:
        self._all.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.discard(self)
        # Whoever cancelled the task as well must hear of it.
        if self._is_late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def cut_off(self) -> None:
        """Cancel what is done inside; there it becomes a TimeoutError."""
        if not self._is_late:
            self._is_late = True
            self._task.cancel()
