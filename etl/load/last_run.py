"""The record of the last run, one JSON document: for the next run, for monitors and for people."""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Annotated, Self

import msgspec

from etl.load.attempt import Attempt
from etl.load.documents import read_document
from etl.load.files.contract import Files
from etl.load.layout import LAST_RUN

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_MOST_BYTES = 64 << 20  # a run test takes about a kilobyte, and a problem of it another


class RunTestResult(msgspec.Struct, frozen=True):
    """What the document says of one run test of the last run.

    ``error``: why nothing of it could be exported.
    """

    key: str
    error: str | None = None


class LastRun(msgspec.Struct, frozen=True):
    """What the document says of completeness, and how the run ended; ``rows`` are those that it wrote, by table.

    ``complete_at``: when a run over everything that is configured last left nothing out. ``last_complete_at``: the same for each
    configured run test, by its key; None when that never happened. ``incomplete``: keys of those of which the last run over them
    left something out. ``undiscovered``: what is wrong with the list of "all" run tests, in words. ``asked_for``: keys of run
    tests that are gone, and whose executions were all looked up since, or accepted as deleted; ``ask_again``: keys that are not
    exported, and of whose executions some could not be looked up. ``not_listed``: how many stored executions the last list of a
    run test lacked that exist, by its key, unless it was none. ``is_all``: ``complete_at`` is that of "all" run tests, not of some
    that were named. ``complete_since``: the day from which on each of ``last_complete_at`` was exported; None for the first.
    """

    complete_at: _Moment | None = None
    last_complete_at: dict[str, _Moment | None] = {}
    incomplete: tuple[str, ...] = ()
    undiscovered: tuple[str, ...] = ()
    asked_for: tuple[str, ...] = ()
    ask_again: tuple[str, ...] = ()
    not_listed: dict[str, int] = {}
    is_all: bool = False
    complete_since: dict[str, date | None] = {}
    export_run_id: str | None = None
    started_at: _Moment | None = None
    finished_at: _Moment | None = None
    outcome: str = ""
    exit_code: int = 0
    seconds: float = 0.0
    requests: int = 0
    rows: dict[str, int] = {}
    problems: tuple[str, ...] = ()
    run_tests: tuple[RunTestResult, ...] = ()

    def within(self, since: Mapping[str, date | None], *, is_all: bool) -> Self:
        """What of it holds for these run tests, each from its day on, or for "all": what is wider was never complete."""
        days = {key: day for key, day in self.complete_since.items() if day and (is_all or key in since)}
        wider = {key for key, day in days.items() if (since.get(key) or date.min) < day}
        return msgspec.structs.replace(
            self,
            complete_at=None if wider or (is_all and not self.is_all) else self.complete_at,
            last_complete_at={key: None if key in wider else at for key, at in self.last_complete_at.items()},
        )

    def after(self, attempt: Attempt | None) -> Self:
        """What of it holds when this was the last attempt: one that it does not tell of left something out of every run test."""
        return self if attempt is None or attempt.export_run_id == self.export_run_id else self.doubted()

    def doubted(self) -> Self:
        """What of it holds when something may be missing of every run test."""
        return msgspec.structs.replace(self, incomplete=tuple(self.last_complete_at))


def read_last_run(files: Files, *, note: Callable[[str], object]) -> LastRun:
    """The record; an empty one when there is none.

    What lies there and is none of the exporter's is ignored, after ``note`` was told so in one line.

    Raises:
        DestinationError: it cannot be read.
    """
    return read_document(files, LAST_RUN, LastRun, most_bytes=_MOST_BYTES, note=note) or LastRun()
