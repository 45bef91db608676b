"""Rows on their way to a warehouse that takes files: a Parquet file on disk, so that memory holds one piece."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import DestinationError


@dataclass(frozen=True, slots=True)
class Spooled:
    """A file with so many rows."""

    path: str
    schema: pa.Schema
    rows: int


@contextmanager
def spooled(pieces: Iterable[pa.Table]) -> Iterator[Spooled | None]:
    """The pieces as one file, None where there are none; it is removed afterwards."""
    left = iter(pieces)
    first = next(left, None)
    if first is None:
        yield None
        return
    with ExitStack() as opened:
        try:
            folder = opened.enter_context(TemporaryDirectory(prefix="metrics-etl-", ignore_cleanup_errors=True))
            file = Spooled(f"{folder}/rows.parquet", first.schema, _written(f"{folder}/rows.parquet", first, left))
        except OSError as exc:
            text = f"{exc}: a load keeps rows in a temporary folder while it runs: set TMPDIR to a writable folder"
            raise DestinationError(text) from exc
        yield file


def _written(path: str, first: pa.Table, left: Iterable[pa.Table]) -> int:
    rows = 0
    with pq.ParquetWriter(path, first.schema, compression="snappy") as writer:
        for piece in chain([first], left):
            writer.write_table(piece)
            rows += len(piece)
    return rows
