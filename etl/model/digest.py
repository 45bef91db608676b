"""Hashes that tell whether something changed: of a listed execution, of a row, of an execution's rows.

Pure, and stable across versions: null columns do not count, so a column added later changes no hash of older rows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any

import msgspec

from etl.model.values import json_text

_encode = msgspec.json.Encoder().encode
_SIZE_BYTES = 16


def fingerprint(payload: Mapping[str, Any]) -> str:
    """Hash of an execution's listed payload, whatever the order of its keys."""
    return blake2b(json_text(payload, is_sorted=True).encode(), digest_size=_SIZE_BYTES).hexdigest()


def row_hasher(columns: Sequence[str], hashed: Iterable[str]) -> Callable[[Sequence[Any]], str]:
    """A function that hashes a row of these columns: its values of the ``hashed`` ones, two at least, that are not null.

    Values as coerced, datetimes aware.
    """
    names = sorted(hashed)
    pick = itemgetter(*map(columns.index, names))
    # Such a structure is written without what is null, and in half the time of a dictionary.
    row_type = msgspec.defstruct("Row", [(name, Any, None) for name in names], omit_defaults=True, gc=False)

    def row_hash(row: Sequence[Any]) -> str:
        return blake2b(_encode(row_type(*pick(row))), digest_size=_SIZE_BYTES).hexdigest()

    return row_hash


def rows_digest(hashes: Iterable[str]) -> str:
    """Hash over the row hashes of one execution's calls and evals, in any order."""
    return blake2b("\n".join(sorted(hashes)).encode(), digest_size=_SIZE_BYTES).hexdigest()
