"""What a dataset is: its id and its layout, in one small document that the first run writes."""

import secrets
from datetime import datetime
from typing import Annotated

import msgspec

from etl.errors import DestinationError, FileMissingError
from etl.load.files.contract import Files
from etl.load.layout import IDENTITY

_LAYOUT = 2
_MOST_BYTES = 1 << 20


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """``layout`` numbers the one that ``load.layout`` describes; a newer version may have another."""

    dataset_id: str
    layout: int
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]


def read_identity(files: Files) -> Identity | None:
    """The document; None when there is none yet, or none any more.

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
    if identity.layout != _LAYOUT:
        raise DestinationError(f"{where}: layout {identity.layout}, written by a newer version: upgrade the exporter")
    return identity


def identify(files: Files, now: datetime) -> None:
    """Give the dataset an id unless it has one.

    Raises:
        DestinationError: as ``read_identity``, or the document cannot be written.
    """
    if read_identity(files) is None:
        identity = Identity(dataset_id=secrets.token_hex(16), layout=_LAYOUT, created_at=now)
        files.publish(IDENTITY, msgspec.json.encode(identity))
