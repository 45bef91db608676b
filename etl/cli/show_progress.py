"""What a run and a load redraw on a terminal while they work. Decides nothing."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import rich.progress
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from etl.cli.console import duration
from etl.model.wording import counted
from etl.pipeline.run import Progress


def can_show_progress() -> bool:
    """Whether stderr is a terminal on which a line can be redrawn."""
    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def live_progress(progress: Progress, *, is_shown: bool) -> Iterator[None]:
    """Show the run's progress on stderr while the block runs."""
    if not is_shown:
        yield
        return
    console = Console(stderr=True)
    with Live(
        get_renderable=lambda: _progress_line(progress, monotonic(), width=console.width),
        console=console,
        refresh_per_second=4,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield


def _progress_line(progress: Progress, now: float, *, width: int) -> Table:
    """One line that is cut at the width of the terminal, so what matters most comes first."""
    line = Table.grid(padding=(0, 1))
    words = Text("  ".join(progress_parts(progress, now)), no_wrap=True, overflow="ellipsis")
    if not progress.crawls:
        line.add_row(words)
    else:
        total, done = max(progress.planned_requests, 1), progress.done_requests
        line.add_row(ProgressBar(total=total, completed=done, width=8 if width <= 100 else 24), words)
    return line


def progress_parts(progress: Progress, now: float) -> Iterator[str]:
    """The parts of the line, most important first."""
    if not progress.crawls:
        yield (
            f"listing: {counted(progress.listed_executions, 'execution')}, {counted(progress.traffic.requests, 'request')}"
        )
    else:
        yield f"{progress.done_requests:,}/{progress.planned_requests:,} requests"
        if (seconds := progress.seconds_left(now)) is not None:
            yield f"{duration(seconds)} left"
    if (held := math.ceil(progress.held_seconds(now))) > 1:
        yield f"rate limit: waiting {held} s"
    elif (left := progress.quota.left(now)) is not None:
        yield f"rate limit: {left:,} of {progress.quota.requests_per_minute:,} left"
    if progress.crawls:
        yield f"{progress.committed_executions:,}/{progress.planned_executions:,} saved"


@contextmanager
def load_progress(*, is_shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar of the files that were read, on stderr if that is a terminal; gives what moves it."""
    if not (is_shown and can_show_progress()):
        yield lambda _done, _total: None
        return
    columns = (
        TextColumn("loading"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} files"),
        TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
