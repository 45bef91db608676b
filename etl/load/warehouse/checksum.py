"""A checksum of the rows of each item, for warehouses that have none of their own. Pure.

The order of rows and columns does not matter, and a null adds nothing, so that a new column changes no checksum.
"""

from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

from etl.model.schema import BOOL, STRING

_Hashes = npt.NDArray[np.uint64]


def checksums(rows: pa.Table, item: str) -> dict[str, int]:
    """By value of the column ``item`` the sum of 64-bit hashes of its rows; sums of pieces may be added, see ``added``."""
    items = rows.column(item).combine_chunks().dictionary_encode()
    sums = np.zeros(len(items.dictionary), np.uint64)
    np.add.at(sums, items.indices.to_numpy(), _mixed(_row_hashes(rows)))
    return dict(zip(items.dictionary.to_pylist(), sums.tolist(), strict=True))


def added(total: dict[str, int], sums: dict[str, int]) -> None:
    """Add sums to a total, as the rows of both together would have given it."""
    for item, value in sums.items():
        total[item] = (total.get(item, 0) + value) % 2**64


def _row_hashes(rows: pa.Table) -> _Hashes:
    total = np.zeros(len(rows), np.uint64)
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        seed = np.frombuffer(blake2b(name.encode(), digest_size=8).digest(), np.uint64)
        hashes = _mixed(_value_hashes(column) ^ seed)
        hashes[column.is_null().to_numpy()] = 0
        total += hashes
    return total


def _value_hashes(column: pa.ChunkedArray) -> _Hashes:
    """Of the values themselves; whatever stands for a null."""
    if column.type == STRING:
        texts = column.combine_chunks().dictionary_encode()
        hashes = hash_array(texts.dictionary.to_numpy(zero_copy_only=False), categorize=False)
        found: _Hashes = np.append(hashes, np.uint64(0))[texts.indices.fill_null(len(hashes)).to_numpy()]
        return found
    if column.type == BOOL:
        column = column.cast(pa.uint8())
    elif pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    values = pc.fill_null(column, pa.scalar(0, column.type)).to_numpy()
    bits: _Hashes = values.astype(values.dtype if values.dtype.itemsize == 8 else np.int64).view(np.uint64)
    return bits


def _mixed(values: _Hashes) -> _Hashes:
    """The finalizer of SplitMix64: each bit of a value changes half of the bits of its hash."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
