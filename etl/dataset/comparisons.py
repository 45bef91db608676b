"""When a comparison of each final execution with the source last found no difference.

Owns ``_state/compared.json``. It is a cache: rows say when they were fetched, and a comparison without a difference
changes no row. If it is missing or damaged, or a run is killed before it is written, these executions are compared
earlier than they need be, and cell by cell.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec

from etl.dataset.parts import read_document
from etl.files.interface import Files
from etl.files.names import COMPARED

_Document = dict[Annotated[datetime, msgspec.Meta(tz=True)], dict[str, str]]
"""By time, the fingerprints of the executions that were compared last then."""


class Comparison(NamedTuple):
    """One that found no difference."""

    at: datetime
    """When it was."""
    fingerprint: str
    """Of what the execution's lists said and what is stored of it; empty if it was compared otherwise."""


def read_compared(files: Files) -> dict[str, Comparison]:
    """By execution_id, its last one; a DestinationError if the file may not be read."""
    document = read_document(files, COMPARED, _Document, note=lambda _: None) or {}
    return {key: Comparison(at, said) for at, found in document.items() for key, said in found.items()}


def write_compared(files: Files, compared: Mapping[str, Comparison]) -> None:
    """Replace the file; only for the holder of the lock."""
    document = defaultdict[datetime, dict[str, str]](dict)
    for execution_id, (at, fingerprint) in compared.items():
        document[at][execution_id] = fingerprint
    files.publish(COMPARED, msgspec.json.encode(document))
