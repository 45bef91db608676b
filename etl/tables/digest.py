"""Hashes that tell whether something changed: of a listed execution, of a row, of an execution's rows.

Pure, and stable across versions: null columns do not count, so a column added later changes no hash of older rows.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

_encode = msgspec.json.Encoder(enc_hook=str, order="sorted").encode
_SIZE_BYTES = 16


def fingerprint(payload: Mapping[str, Any]) -> str:
    """Hash of an execution's listed payload, whatever the order of its keys."""
    try:
        text = _encode(payload)
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot hold
        text = json.dumps(payload, sort_keys=True).encode()
    return blake2b(text, digest_size=_SIZE_BYTES).hexdigest()


def row_hash(names: Sequence[str], values: Sequence[Any]) -> str:
    """Hash of a row's values that are not null; ``values`` as coerced, datetimes aware."""
    row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return blake2b(_encode(row), digest_size=_SIZE_BYTES).hexdigest()


def rows_digest(hashes: Iterable[str]) -> str:
    """Hash over the row hashes of one execution's calls and evals, in any order."""
    return blake2b("\n".join(sorted(hashes)).encode(), digest_size=_SIZE_BYTES).hexdigest()
