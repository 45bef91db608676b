"""The record of the last run, one JSON document: for the next run, for monitors and for people."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec

from etl.errors import FileMissingError, ForeignFileError
from etl.load.files.open import Files
from etl.load.layout import STATE

LAST_RUN = f"{STATE}/last_run.json"
_MOST_BYTES = 64 << 20  # a run test takes about a kilobyte, and a problem of it another


class _LastRun(msgspec.Struct, frozen=True):
    last_complete_at: dict[str, Annotated[datetime, msgspec.Meta(tz=True)]] = {}


def last_complete_at(files: Files, *, note: Callable[[str], object]) -> dict[str, datetime]:
    """When a run last exported everything in each run test, by its key; empty when there is no such record.

    What lies there and is none of the exporter's is ignored, after ``note`` was told so in one line.

    Raises:
        DestinationError: it cannot be read.
    """
    try:
        return msgspec.json.decode(files.read(LAST_RUN, most_bytes=_MOST_BYTES), type=_LastRun).last_complete_at
    except FileMissingError:
        pass
    except ForeignFileError as exc:
        note(f"{exc}; ignored")
    except (msgspec.MsgspecError, RecursionError) as exc:
        note(f"{files.where(LAST_RUN)}: not written by the exporter, ignored: {exc}")
    return {}
