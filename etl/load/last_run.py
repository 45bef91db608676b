"""The record of the last run, one JSON document: for the next run, for monitors and for people."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec

from etl.load.documents import read_document
from etl.load.files.open import Files
from etl.load.layout import STATE

LAST_RUN = f"{STATE}/last_run.json"
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_MOST_BYTES = 64 << 20  # a run test takes about a kilobyte, and a problem of it another


class LastRun(msgspec.Struct, frozen=True):
    """What the document says of completeness.

    ``complete_at``: when a run over everything that is configured last left nothing out. ``last_complete_at``: the same for each
    configured run test, by its key; None when that never happened. ``incomplete``: keys of those of which the last run over them
    left something out.
    """

    complete_at: _Moment | None = None
    last_complete_at: dict[str, _Moment | None] = {}
    incomplete: tuple[str, ...] = ()


def read_last_run(files: Files, *, note: Callable[[str], object]) -> LastRun:
    """The record; an empty one when there is none.

    What lies there and is none of the exporter's is ignored, after ``note`` was told so in one line.

    Raises:
        DestinationError: it cannot be read.
    """
    return read_document(files, LAST_RUN, LastRun, most_bytes=_MOST_BYTES, note=note) or LastRun()
