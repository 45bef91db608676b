"""The note of the last load into a warehouse, one JSON document, for ``status``."""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec.structs import replace

from etl.errors import DestinationError
from etl.load.documents import read_document
from etl.load.files.contract import Files
from etl.load.layout import LAST_LOAD
from etl.model.digest import rows_digest
from etl.model.lifecycle import CLOCKS_DIFFER

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_MOST_BYTES = 1 << 20


class LastLoad(msgspec.Struct, frozen=True, kw_only=True):
    """``warehouse``: its place, as the settings name it; ``problem``: why the load failed, or what it left out.

    ``export_run_id``: the newest export run that the last load which did not fail left there; ``runs_digest``: of all that it left.
    ``loaded_at``: when a load last left nothing out.
    """

    warehouse: str
    tried_at: _Moment
    export_run_id: str | None = None
    runs_digest: str = ""
    problem: str | None = None
    loaded_at: _Moment | None = None


def read_last_load(files: Files, *, note: Callable[[str], object]) -> LastLoad | None:
    """The note; None when nothing was ever loaded.

    What lies there and is none of the exporter's is ignored, after ``note`` was told so in one line.

    Raises:
        DestinationError: it cannot be read.
    """
    return read_document(files, LAST_LOAD, LastLoad, most_bytes=_MOST_BYTES, note=note)


def last_load_into(files: Files, place: str, now: datetime) -> LastLoad:
    """The note of a load into the warehouse at ``place``; one that tells of nothing where there is none, or it cannot be read.

    Nor does a ``loaded_at`` count that has not come yet: a clock was wrong.
    """
    no_load = LastLoad(warehouse=place, tried_at=now)
    try:
        load = read_last_load(files, note=lambda _: None) or no_load
    except DestinationError:
        return no_load
    if load.warehouse != place:
        return no_load
    is_future = load.loaded_at is not None and load.loaded_at > now + CLOCKS_DIFFER
    return replace(load, loaded_at=None) if is_future else load


def note_load(files: Files, load: LastLoad) -> None:
    """Replace the note.

    Raises:
        DestinationError: it cannot be written.
    """
    files.publish(LAST_LOAD, msgspec.json.encode(load))


def lacks_of_warehouse(load: LastLoad | None, place: str, *export_runs: Collection[str]) -> str | None:
    """What is missing from the warehouse at ``place`` after this load, in words.

    ``export_runs`` are the ids of those that it should have: of all, or of all but one that is loading.
    """
    if load is None:
        return "the warehouse was never loaded"
    if load.warehouse != place:
        return f"{place} was never loaded; the last load was into {load.warehouse}"
    if load.problem:
        return f"the last load left the warehouse behind: {load.problem}"
    is_there = load.runs_digest in map(rows_digest, export_runs)
    return None if is_there else "the last run was not loaded into the warehouse"
