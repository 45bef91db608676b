"""Hashes that show whether something changed: of a listed execution, of a row, of all rows of an execution.

Pure, and stable across versions: nulls are not hashed, so a new column does not change the hashes of older rows.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec

from etl.model.values import json_text

_encode = msgspec.json.Encoder().encode
_SIZE_BYTES = 16


def fingerprint(payload: Mapping[str, Any]) -> str:
    """Hash of an execution's listed payload; the order of its keys does not matter."""
    return blake2b(json_text(payload, is_sorted=True).encode(), digest_size=_SIZE_BYTES).hexdigest()


def row_hashes(columns: Mapping[str, Iterable[Any]]) -> list[str]:
    """The hash of each row over its values that are not null, which are given by column: as coerced, datetimes aware."""
    names = tuple(sorted(columns))
    rows = map(_row_type(names), *map(columns.__getitem__, names))
    return [blake2b(_encode(row), digest_size=_SIZE_BYTES).hexdigest() for row in rows]


@cache
def _row_type(names: tuple[str, ...]) -> type[msgspec.Struct]:
    """A struct is encoded without its nulls, in half the time of a dict."""
    return msgspec.defstruct("Row", [(name, Any, None) for name in names], omit_defaults=True, gc=False)


def voucher(row_hash: str, *, is_deleted: bool) -> str:
    """What the digest of an execution takes of one of its calls or evals: the hash of the row, and its mark if it has one."""
    return f"{row_hash}-" if is_deleted else row_hash


def rows_digest(hashes: Iterable[str]) -> str:
    """Hash over the vouchers of an execution's calls and evals; their order does not matter."""
    return blake2b("\n".join(sorted(hashes)).encode(), digest_size=_SIZE_BYTES).hexdigest()
