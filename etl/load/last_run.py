"""The record of the last run, one JSON document: for the next run, for monitors and for people."""

from datetime import datetime

import msgspec

from etl.errors import FileMissingError
from etl.load.files.open import Files
from etl.load.layout import STATE

LAST_RUN = f"{STATE}/last_run.json"


class _LastRun(msgspec.Struct, frozen=True):
    last_complete_at: dict[str, datetime] = {}


def last_complete_at(files: Files) -> dict[str, datetime]:
    """When a run last exported everything in each run test, by its key; empty when there is no such record, or another text.

    Raises:
        DestinationError: it cannot be read.
    """
    try:
        return msgspec.json.decode(files.read(LAST_RUN), type=_LastRun).last_complete_at
    except (FileMissingError, msgspec.MsgspecError):
        return {}
