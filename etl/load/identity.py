"""What a dataset is: its id and its layout, in one small document that the first run writes."""

import secrets
from datetime import datetime
from typing import Annotated

import msgspec

from etl.errors import DestinationError, FileMissingError
from etl.load.files.open import Files, data_files
from etl.load.layout import IDENTITY, Layout
from etl.model import schema

_MOST_BYTES = 1 << 20


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """``layout`` is that of new executions, as a number of ``Layout``."""

    dataset_id: str
    layout: int
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]


def read_identity(files: Files) -> Identity | None:
    """The document; None when there is none: the dataset is new, or its layout is by day.

    Raises:
        DestinationError: it cannot be read, is none of the exporter's, or tells of a layout that this version does not know.
    """
    where = files.where(IDENTITY)
    try:
        identity = msgspec.json.decode(files.read(IDENTITY, most_bytes=_MOST_BYTES), type=Identity)
    except FileMissingError:
        return None
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise DestinationError(
            f"{where}: not written by the exporter: restore it, or remove it for the next run to make a new one: {exc}"
        ) from exc
    if identity.layout not in set(Layout):
        raise DestinationError(f"{where}: layout {identity.layout}, written by a newer version: upgrade the exporter")
    return identity


def identify(files: Files, now: datetime) -> Layout:
    """The layout of the dataset. One that does not say is by day if it has days, and else is given an id and months.

    Raises:
        DestinationError: as ``read_identity``, or the document cannot be written.
    """
    identity = read_identity(files)
    if identity is None:
        if is_by_day(files):
            return Layout.BY_DAY
        write_identity(files, now)
        return Layout.BY_MONTH
    return Layout(identity.layout)


def write_identity(files: Files, now: datetime) -> None:
    """Say that the dataset is by month from now on.

    Raises:
        DestinationError: it cannot be written.
    """
    identity = Identity(dataset_id=secrets.token_hex(16), layout=Layout.BY_MONTH, created_at=now)
    files.publish(IDENTITY, msgspec.json.encode(identity))


def is_by_day(files: Files) -> bool:
    """Whether a file of the dataset lies in the folder of a day.

    Raises:
        DestinationError: a folder cannot be listed.
    """
    return any("/date=" in entry.path for name in schema.TABLES for entry in data_files(files, name))
