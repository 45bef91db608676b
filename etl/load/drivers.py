"""What the drivers of warehouses share: their errors in one line, and rows handed over in pieces that fit into memory."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import DestinationError
from etl.load.tables import STATE

_MOST_CHARACTERS = 500


def not_ours(where: str, name: str) -> DestinationError:
    """What to raise of a table with the name of one of ours where there is no table of what was loaded."""
    thing = f"{'view' if name.endswith('_current') else 'table'} {name}"
    return DestinationError(
        f"{where}: the {thing} exists, but {STATE} does not, so it may be someone else's: "
        f"name another [warehouse] schema or url, or drop the {thing} if nobody needs it"
    )


@contextmanager
def naming(where: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn these errors of a driver into one line that names the warehouse."""
    try:
        yield
    except errors as exc:
        raise DestinationError(f"{where}: {' '.join(str(exc).split())[:_MOST_CHARACTERS]}") from exc


@contextmanager
def streamed(pieces: Iterable[pa.Table]) -> Iterator[pa.RecordBatchReader | None]:
    """The pieces as a driver reads them one after the other, None where there are none; raises what it was that stopped them."""
    left = iter(pieces)
    first = next(left, None)
    stopped: list[BaseException] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for piece in chain([first], left):
                yield from piece.to_batches()
        except BaseException as exc:
            stopped.append(exc)
            raise

    try:
        yield None if first is None else pa.RecordBatchReader.from_batches(first.schema, batches())
    except Exception:
        if stopped:  # a driver makes an error of its own of it
            raise stopped[0] from None
        raise


@dataclass(frozen=True, slots=True)
class Spooled:
    """A Parquet file with so many rows, on its way to a warehouse."""

    path: str
    schema: pa.Schema
    rows: int


@contextmanager
def spooled(pieces: Iterable[pa.Table]) -> Iterator[Spooled | None]:
    """The pieces as one file, for a driver that takes one, so that memory holds one piece; None where there are none."""
    left = iter(pieces)
    first = next(left, None)
    if first is None:
        yield None
        return
    with ExitStack() as opened:
        try:
            folder = opened.enter_context(TemporaryDirectory(prefix="metrics-etl-", ignore_cleanup_errors=True))
            path, rows = f"{folder}/rows.parquet", 0
            with pq.ParquetWriter(path, first.schema, compression="snappy") as writer:
                for piece in chain([first], left):
                    writer.write_table(piece)
                    rows += len(piece)
        except OSError as exc:
            text = f"{exc}: a load keeps rows in a temporary folder while it runs: set TMPDIR to a writable folder"
            raise DestinationError(text) from exc
        yield Spooled(path, first.schema, rows)


def do_nothing(*_: int) -> None:
    """What ``on_progress`` and ``on_wait`` do by default."""
