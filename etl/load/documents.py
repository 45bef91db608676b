"""The exporter's own small JSON documents beside the tables, and the one that says what a dataset is: its id and its layout.

One that cannot be read counts as missing, and a run sets it aside.
"""

import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec

from etl.errors import DestinationError, FileMissingError, ForeignFileError
from etl.load.files.contract import Files
from etl.load.layout import IDENTITY

T = TypeVar("T")

_LAYOUT = 2
_MOST_BYTES = 1 << 20


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """``layout`` numbers the one that ``load.layout`` describes; a newer version may have another."""

    dataset_id: str
    layout: int
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]


def read_document(
    files: Files, path: str, kind: type[T], *, most_bytes: int, note: Callable[[str], object], set_aside: bool = False
) -> T | None:
    """The document; None when there is none, or something else, of which ``note`` is told in one line.

    With ``set_aside`` that is moved to the quarantine, otherwise ignored.

    Raises:
        DestinationError: it cannot be opened, or not be moved.
    """
    try:
        return msgspec.json.decode(files.read(path, most_bytes=most_bytes), type=kind)
    except FileMissingError:
        return None
    except ForeignFileError as exc:
        fault = str(exc)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        fault = f"{files.where(path)}: not written by the exporter: {exc}"
    note(f"{fault}; moved to {files.set_aside(path)}" if set_aside else f"{fault}; ignored")
    return None


def read_identity(
    files: Files, *, note: Callable[[str], object] = lambda _: None, set_aside: bool = False
) -> Identity | None:
    """The document; None when there is none, or it cannot be read: see ``read_document``.

    Raises:
        DestinationError: it cannot be opened, or tells of a layout that this version does not know.
    """
    identity = read_document(files, IDENTITY, Identity, most_bytes=_MOST_BYTES, note=note, set_aside=set_aside)
    if identity and identity.layout != _LAYOUT:
        raise DestinationError(
            f"{files.where(IDENTITY)}: layout {identity.layout}, written by a newer version: upgrade the exporter"
        )
    return identity


def identify(files: Files, now: datetime, *, note: Callable[[str], object] = lambda _: None) -> None:
    """Give the dataset an id, unless it has one that can be read.

    Raises:
        DestinationError: as ``read_identity``, or the document cannot be written.
    """
    if read_identity(files, note=note, set_aside=True) is None:
        identity = Identity(dataset_id=secrets.token_hex(16), layout=_LAYOUT, created_at=now)
        files.publish(IDENTITY, msgspec.json.encode(identity))
