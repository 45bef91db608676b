"""What the modules of several warehouses share: errors in one line, and rows in pieces that fit into memory.

It knows no driver, and nothing of what a load decides.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from tempfile import TemporaryDirectory
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import DestinationError, WarehouseUnavailableError
from etl.load.tables import STATE, VIEWS

_MESSAGE_MAX_CHARACTERS = 500
_PASSES = re.compile(
    # PostgreSQL tells no code of a connection that was refused or lost; PgBouncer, of a server that it cannot reach
    "connection to the server|server closed the connection|[Cc]onnection re(fused|set)|could not (send|receive) data|"
    "too many (clients|connections)|connection slots|starting up|shutting down|in recovery mode|not yet accepting|"
    "server login has been failing|no more connections allowed|server_login_retry|query_wait_timeout|"
    "Conflicting lock is held"  # DuckDB: another process has the file open
)
"""Finds, in what a driver says, that the same load may succeed a moment later."""


def not_ours(where: str, name: str) -> DestinationError:
    """The error for a table or view that has one of our names, although the warehouse has no ``STATE`` table."""
    thing = f"{'view' if name in {view.name for view in VIEWS} else 'table'} {name}"
    return DestinationError(
        f"{where}: the {thing} exists, but {STATE} does not, so the {thing} may be someone else's. "
        f"Name another [warehouse] schema or url, or drop the {thing} if nobody needs it"
    )


def failure(where: str, text: str, hints: Mapping[str, str] = MappingProxyType({})) -> DestinationError:
    """The error for what a driver says in ``text``: one line that names the warehouse, cut where it gets long.

    ``hints`` say what to do about it, by a part of the text; the first that fits is added.
    """
    hint = next((f". {hint}" for part, hint in hints.items() if part in text), "")
    kind = WarehouseUnavailableError if passes(text) else DestinationError
    return kind(f"{where}: {' '.join(text.split())[:_MESSAGE_MAX_CHARACTERS]}{hint}")


def passes(text: str) -> bool:
    """Whether what a driver says passes by itself, so that a load is worth a retry."""
    return bool(_PASSES.search(text))


@contextmanager
def translated_errors(
    where: str, *errors: type[Exception], hints: Mapping[str, str] = MappingProxyType({})
) -> Iterator[None]:
    """Raise these errors of a driver as a DestinationError, see ``failure``."""
    try:
        yield
    except errors as exc:
        raise failure(where, str(exc), hints) from exc


@contextmanager
def streamed(pieces: Iterable[pa.Table]) -> Iterator[pa.RecordBatchReader]:
    """The pieces, at least one, as one Arrow stream, for a driver that reads one.

    An error of ``pieces`` is raised as it is, not as the driver reports that its stream ended.
    """
    remaining = iter(pieces)
    first = next(remaining)
    errors: list[BaseException] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for piece in chain([first], remaining):
                yield from piece.to_batches()
        except BaseException as exc:
            errors.append(exc)
            raise

    try:
        yield pa.RecordBatchReader.from_batches(first.schema, batches())
    except Exception:
        if errors:  # the driver has wrapped it in an error of its own
            raise errors[0] from None
        raise


@dataclass(frozen=True, slots=True)
class Spooled:
    """A temporary Parquet file on its way to a warehouse."""

    path: str
    """Where it is, until the ``with`` block of ``spooled`` ends."""
    schema: pa.Schema
    """Its columns."""
    rows: int
    """How many rows it holds: the engine has to load exactly as many."""


@contextmanager
def spooled(pieces: Iterable[pa.Table]) -> Iterator[Spooled]:
    """The pieces, at least one, as one temporary file, for a driver that loads files.

    Memory holds one piece at a time.

    Raises:
        DestinationError: the file cannot be written, for example because the disk of the temporary folder is full.
    """
    remaining = iter(pieces)
    first = next(remaining)
    with ExitStack() as opened:
        try:
            folder = opened.enter_context(TemporaryDirectory(prefix="metrics-etl-", ignore_cleanup_errors=True))
            path = f"{folder}/rows.parquet"
            rows = 0
            with pq.ParquetWriter(path, first.schema, compression="snappy") as writer:
                for piece in chain([first], remaining):
                    writer.write_table(piece)
                    rows += len(piece)
        except OSError as exc:
            text = f"{exc}. A load needs a temporary folder for rows. Set TMPDIR to a writable folder with enough space"
            raise DestinationError(text) from exc
        yield Spooled(path, first.schema, rows)


def do_nothing(*_: object) -> None:
    """The default of ``on_progress``, ``on_wait`` and ``on_retry``."""
