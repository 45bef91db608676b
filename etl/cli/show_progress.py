"""What ``run`` and ``load`` write to stderr while they work: on a terminal a line that is redrawn, else events.

An event is one JSON object, or one readable line. Its name is stable, and it carries no key, header or body. Decides
nothing.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Any

from etl.cli.console import print_message
from etl.model.wording import counted, duration, shown
from etl.pipeline.context import Progress
from etl.settings import Log

_EVENT_LEVELS = {
    **dict.fromkeys(("run_test_failed", "load_waits"), "warning"),
    **dict.fromkeys(("problem", "run_failed", "not_notified"), "error"),
}
"""All other events are ``info``."""
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def can_show_progress() -> bool:
    """Whether stderr is a terminal on which a line can be redrawn."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


def live_progress(progress: Progress, *, is_shown: bool) -> AbstractContextManager[None]:
    """Show a run's progress on stderr while the block runs, if ``is_shown``."""
    return _live_line(lambda: "  ".join(progress_parts(progress, monotonic())), is_shown=is_shown)


@contextmanager
def load_progress(*, is_shown: bool) -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """Show on stderr how many files a load has read, if ``is_shown`` and stderr is a terminal, and what it waits for.

    Yields the functions ``on_progress`` and ``on_retry`` of ``load_warehouse``.
    """
    line = "loading"

    def on_progress(done: int, total: int) -> None:
        nonlocal line
        line = f"loading: {done:,}/{total:,} files"

    def on_retry(reason: str) -> None:
        nonlocal line
        is_news, line = f"waiting: {reason}" != line, f"waiting: {reason}"
        if is_news and is_shown and not is_live:
            print_message(line)

    is_live = is_shown and can_show_progress()
    with _live_line(lambda: line, is_shown=is_live):
        yield on_progress, on_retry


@contextmanager
def _live_line(text: Callable[[], str], *, is_shown: bool) -> Iterator[None]:
    """Show the text while the block runs, redrawn four times a second, and cut at the width of the terminal."""
    if not is_shown:
        yield
        return

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(
        get_renderable=lambda: Text(text(), no_wrap=True, overflow="ellipsis"),
        console=Console(stderr=True),
        refresh_per_second=4,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield


def progress_parts(progress: Progress, now: float) -> Iterator[str]:
    """The parts of a run's line, most important first, because a narrow terminal cuts the end.

    ``now`` is on the clock of ``time.monotonic``.
    """
    held = math.ceil(progress.traffic.held_until - now)
    if progress.crawl_began_at is None:
        executions = counted(progress.listed_executions, "execution")
        yield f"listing: {executions} found, {counted(progress.traffic.requests, 'request')} sent"
    else:
        yield f"{progress.done_requests:,} of {progress.planned_requests:,} requests"
        if (seconds := progress.seconds_left(now)) is not None:
            yield f"{duration(max(seconds, held))} left"
    if held > 1:
        yield f"rate limit: waiting {held} s"
    elif (left := progress.quota.left(now)) is not None:
        yield f"rate limit: {left:,} of {progress.quota.requests_per_minute:,} requests left"
    if progress.previews:
        yield f"{progress.previewed:,} of {len(progress.previews):,} readable"
    if progress.crawl_began_at is not None:
        yield f"{progress.committed_executions:,} of {progress.planned_executions:,} executions saved"
        if progress.traffic.call_requests:
            yield f"{progress.traffic.call_requests:,} requests for single calls"


def make_notify(log: Log, *, verbose: bool) -> Callable[..., None]:
    """A function that writes an event with its fields to stderr, as one line in the format of ``log``.

    It leaves out events below the level of ``log``, unless ``verbose``.
    """
    import structlog

    level = _LEVELS["debug" if verbose else log.level]
    is_console = log.format == "console" or (log.format == "auto" and sys.stderr.isatty())
    has_color = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    render: Any = structlog.dev.ConsoleRenderer(colors=has_color) if is_console else structlog.processors.JSONRenderer()
    logger = structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([_escape_texts] if is_console else []),  # JSON escapes by itself
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )

    def notify(event: str, **fields: Any) -> None:
        logger.log(_LEVELS[_EVENT_LEVELS.get(event, "info")], event, **fields)

    return notify


def _escape_texts(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The event with control characters escaped in its texts; other values are shown by ``repr``, which escapes."""
    return {name: shown(value) if isinstance(value, str) else value for name, value in event.items()}
