"""Hashes that tell whether something changed: of a listed execution, of a row, of an execution's rows.

Pure, and stable across versions: null columns do not count, so a column added later changes no hash of older rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from etl.tables.coerce import json_text

_encode = msgspec.json.Encoder(order="sorted").encode
_SIZE_BYTES = 16


def fingerprint(payload: Mapping[str, Any]) -> str:
    """Hash of an execution's listed payload, whatever the order of its keys."""
    return blake2b(json_text(payload, is_sorted=True).encode(), digest_size=_SIZE_BYTES).hexdigest()


def row_hash(names: Sequence[str], values: Sequence[Any]) -> str:
    """Hash of a row's values that are not null; ``values`` as coerced, datetimes aware."""
    row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return blake2b(_encode(row), digest_size=_SIZE_BYTES).hexdigest()


def rows_digest(hashes: Iterable[str]) -> str:
    """Hash over the row hashes of one execution's calls and evals, in any order."""
    return blake2b("\n".join(sorted(hashes)).encode(), digest_size=_SIZE_BYTES).hexdigest()
