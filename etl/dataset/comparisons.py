"""When final executions were last compared with the source without a difference.

Owns ``_state/compared.json``. It is a cache: rows say when they were fetched, and a comparison without a difference
changes no row. If it is missing or damaged, or a run is killed before it is written, these executions are compared
earlier than they need be.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec

from etl.dataset.parts import read_document
from etl.files.interface import Files
from etl.files.names import COMPARED

_Document = dict[Annotated[datetime, msgspec.Meta(tz=True)], list[str]]
"""By time, which executions were compared last then."""


def read_compared(files: Files) -> dict[str, datetime]:
    """By execution_id, when that was; a DestinationError if the file may not be read."""
    document = read_document(files, COMPARED, _Document, note=lambda _: None) or {}
    return {execution_id: at for at, ids in document.items() for execution_id in ids}


def write_compared(files: Files, compared: Mapping[str, datetime]) -> None:
    """Replace the file; only for the holder of the lock."""
    document = defaultdict[datetime, list[str]](list)
    for execution_id, at in compared.items():
        document[at].append(execution_id)
    files.publish(COMPARED, msgspec.json.encode(document))
