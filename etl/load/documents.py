"""The exporter's own small JSON documents beside the tables. What lies in their place and is none of ours is ignored."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from etl.errors import FileMissingError, ForeignFileError
from etl.load.files.contract import Files

T = TypeVar("T")


def read_document(
    files: Files, path: str, kind: type[T], *, most_bytes: int, note: Callable[[str], object]
) -> T | None:
    """The document; None when there is none, or something else, of which ``note`` was told in one line.

    Raises:
        DestinationError: it cannot be read.
    """
    try:
        return msgspec.json.decode(files.read(path, most_bytes=most_bytes), type=kind)
    except FileMissingError:
        pass
    except ForeignFileError as exc:
        note(f"{exc}; ignored")
    except (msgspec.MsgspecError, RecursionError) as exc:
        note(f"{files.where(path)}: not written by the exporter, ignored: {exc}")
    return None
