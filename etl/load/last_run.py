"""The record of the last run, one JSON document: for the next run, for monitors and for people."""

from datetime import datetime

import msgspec

from etl.errors import FileMissingError
from etl.load.files.open import Files
from etl.load.layout import STATE

LAST_RUN = f"{STATE}/last_run.json"


class LastRun(msgspec.Struct, frozen=True):
    """What the document says of completeness.

    ``complete_at``: when a run over everything that is configured last left nothing out. ``last_complete_at``: the same for each
    configured run test, by its key; None when that never happened. ``incomplete``: keys of those of which the last run over them
    left something out.
    """

    complete_at: datetime | None = None
    last_complete_at: dict[str, datetime | None] = {}
    incomplete: tuple[str, ...] = ()


def read_last_run(files: Files) -> LastRun:
    """The record; an empty one when there is none, or another text.

    Raises:
        DestinationError: it cannot be read.
    """
    try:
        return msgspec.json.decode(files.read(LAST_RUN), type=LastRun)
    except (FileMissingError, msgspec.MsgspecError):
        return LastRun()
