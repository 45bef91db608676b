"""What ``load`` prints. Decides nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from etl.cli.console import print_line, stdout_console
from etl.cli.show_progress import can_show_progress
from etl.load.warehouse.load import Result
from etl.model.wording import counted

FIELDS = {
    "warehouse": "which warehouse, and its schema",
    "executions.new": "executions that were not in the warehouse yet",
    "executions.changed": "executions that changed in the dataset since they were loaded",
    "executions.altered": "executions that were changed in the warehouse itself",
    "executions.removed": "executions that were removed from the warehouse",
    "executions.damaged": "executions left as they are: their rows in the dataset are not those that were exported",
    "executions.lost": "executions left as they are: the dataset lost their rows",
    "executions.vanished": "executions left as they are: the dataset no longer knows them; `--full` removes them",
    "rows": "rows written, by table",
    "is_changed": "whether there was anything to do",
    "problems": "one line for each thing that is missing from the warehouse",
    "notices": "one line for each thing worth knowing",
}
"""What each field of the JSON means."""


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
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_load(result: Result, *, is_dry_run: bool) -> None:
    """What differed, and what was loaded; to stdout."""
    console = stdout_console()
    print_line(console, "warehouse", result.warehouse)
    print_line(console, "differed", loaded(result))
    if is_dry_run:
        print_line(console, "outcome", "nothing was changed" if result.is_changed else "nothing to do")
        return
    rows = ", ".join(counted(count, name.removesuffix("s")) for name, count in result.rows.items())
    if result.is_changed:
        print_line(console, "loaded", rows or "no row")
    for notice in result.notices:
        print_line(console, "notice", notice)
    for problem in result.problems:
        print_line(console, "problem", problem, style="bold red")


def loaded(result: Result) -> str:
    """What a load was about, in a few words."""
    counts = {"new": result.new, "changed": result.changed, "altered there": result.altered, "removed": result.removed}
    parts = [f"{count:,} {name}" for name, count in counts.items() if count]
    if parts:
        return f"executions: {', '.join(parts)}"
    return "no execution" if result.is_changed else "nothing: it is up to date"
