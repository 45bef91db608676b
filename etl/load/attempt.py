"""The note of the last try to export, which a run leaves when it begins, or when it cannot begin.

A row of ``runs`` then says how it ended. A note without one is all that is left of a run that was killed, or that never began.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec

from etl.errors import DestinationError, ExporterError, FileMissingError
from etl.load.documents import read_document
from etl.load.files.contract import Files
from etl.load.layout import ATTEMPT

_MOST_BYTES = 1 << 20


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has begun, and has an ``export_run_id``, or one that could not, and has an ``exit_code`` and a ``message``."""

    started_at: Annotated[datetime, msgspec.Meta(tz=True)]
    export_run_id: str | None = None
    exit_code: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Exporter:
    """The last attempt, who holds the lock, and what is wrong with the note of the attempt."""

    attempt: Attempt | None
    at_work: str | None
    ignored: tuple[str, ...]

    @property
    def is_exporting(self) -> bool:
        """Whether a run may hold the lock: not a load, which took it later than the last attempt."""
        if self.at_work is None or self.attempt is None:
            return self.at_work is not None
        since = self.attempt.started_at.isoformat(timespec="seconds")
        return self.at_work.endswith((f"since {since}", "holder unknown"))


def who_exports(files: Files) -> Exporter:
    """The attempt is read first: a run takes the lock before it leaves its note, and gives it back when all is done.

    Raises:
        DestinationError: the lock cannot be read.
    """
    ignored = list[str]()
    try:
        attempt = read_attempt(files, note=ignored.append)
    except DestinationError as error:  # a run replaces the note without reading it
        attempt = None
        ignored.append(f"{error}; ignored, so it is not known whether the last run started")
    return Exporter(attempt, files.lock_holder(), tuple(ignored))


def read_attempt(files: Files, *, note: Callable[[str], object]) -> Attempt | None:
    """The note; None when there is none.

    What lies there and is none of the exporter's is ignored, after ``note`` was told so in one line.

    Raises:
        DestinationError: it cannot be read.
    """
    return read_document(files, ATTEMPT, Attempt, most_bytes=_MOST_BYTES, note=note)


def note_attempt(files: Files, attempt: Attempt) -> None:
    """Replace the note.

    Raises:
        DestinationError: it cannot be written.
    """
    files.publish(ATTEMPT, msgspec.json.encode(attempt))


def note_failure(files: Files, error: ExporterError, started_at: datetime) -> str | None:
    """Note a run that could not begin. Returns None, or why the note could not be left: that must not hide the error."""
    attempt = Attempt(started_at=started_at, exit_code=error.exit_code, message=str(error))
    try:
        try:
            note_attempt(files, attempt)
        except FileMissingError:  # no run ever made the folder
            files.prepare()
            note_attempt(files, attempt)
    except DestinationError as reason:
        why = "" if str(reason) == str(error) else f": {reason}"
        return f"metrics-etl status will not show this run: its note could not be written{why}"
    return None
