"""Hashes that show whether something changed: of a listed execution, of a row, of all rows of an execution.

Pure, and stable across versions: nulls are not hashed, so a new column does not change the hashes of older rows.
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
    """Hash of an execution's listed payload; the order of its keys does not matter."""
    return blake2b(json_text(payload, is_sorted=True).encode(), digest_size=_SIZE_BYTES).hexdigest()


def row_hasher(columns: Sequence[str], hashed: Iterable[str]) -> Callable[[Sequence[Any]], str]:
    """A function that hashes the values of a row in the ``hashed`` columns (two or more) that are not null.

    Rows have the given ``columns``; values are as coerced, datetimes aware.
    """
    names = sorted(hashed)
    pick = itemgetter(*map(columns.index, names))
    # A struct is encoded without its nulls, in half the time of a dict.
    row_type = msgspec.defstruct("Row", [(name, Any, None) for name in names], omit_defaults=True, gc=False)

    def row_hash(row: Sequence[Any]) -> str:
        return blake2b(_encode(row_type(*pick(row))), digest_size=_SIZE_BYTES).hexdigest()

    return row_hash


_DELETED = "-"


def voucher(row_hash: str, *, is_deleted: bool) -> str:
    """What the digest of an execution takes of one of its calls or evals: the hash of the row, and its mark if it has one."""
    return row_hash + _DELETED if is_deleted else row_hash


def is_deleted_voucher(text: str) -> bool:
    """Whether it is that of a row which is marked as deleted."""
    return text.endswith(_DELETED)


def rows_digest(hashes: Iterable[str]) -> str:
    """Hash over the vouchers of an execution's calls and evals; their order does not matter."""
    return blake2b("\n".join(sorted(hashes)).encode(), digest_size=_SIZE_BYTES).hexdigest()
