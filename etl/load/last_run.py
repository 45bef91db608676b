"""What the last run left behind for the next one, for monitors and for people: one JSON document."""

from contextlib import suppress
from datetime import datetime

import msgspec

from etl.load.files.local import LocalFiles
from etl.load.layout import STATE

LAST_RUN = f"{STATE}/last_run.json"


class _LastRun(msgspec.Struct, frozen=True):
    last_complete_at: dict[str, datetime] = {}


def last_complete_at(files: LocalFiles) -> dict[str, datetime]:
    """When a run last left nothing out of each run test, by its key; nothing when no run told, or something else stands there.

    Raises:
        DestinationError: it cannot be read.
    """
    if not files.has(LAST_RUN):
        return {}
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(files.read(LAST_RUN), type=_LastRun).last_complete_at
    return {}
