"""Which warehouse a URL means, and what every warehouse does.

``Warehouse`` is all that the rest of the exporter knows of one. A new kind has its scheme in
``etl/model/locations.py``, and a module of its own.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import DestinationError
from etl.extras import needs_extra
from etl.load.warehouse.tables import STATE, Place
from etl.model.locations import WAREHOUSES, scheme_of
from etl.model.schema import Table

_MOST_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a warehouse has: by kind and item the digest that it was loaded with, None where it has more or fewer rows now.

    The digest is empty where its rows may be other ones: then the item is loaded again, unless the dataset has nothing of it any
    more. ``dataset_id`` is that of the dataset it was loaded from, None before the first load. ``is_outdated``: its tables or views
    are missing, or may lack a column. ``altered_views`` are not as they were made.
    """

    dataset_id: str | None = None
    digests: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    is_outdated: bool = True
    altered_views: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadStep:
    """What to remove from a warehouse and what to put there, by kind and item: one transaction where it has such a thing.

    ``arriving`` gives digests, ``places`` where their rows belong; ``rows`` gives the rows of a table that arrive, in pieces that
    fit into memory. Items that arrive are in ``removed`` too, unless the warehouse has nothing of them.
    """

    dataset_id: str
    removed: Mapping[str, Collection[str]]
    arriving: Mapping[str, Mapping[str, str]]
    places: Mapping[str, Collection[Place]]
    rows: Callable[[Table], Iterator[pa.Table]]


class Warehouse(Protocol):
    """One warehouse, connected. Whatever fails is a DestinationError: one line that names it and the fix."""

    where: str
    """For messages, without credentials."""

    def loaded(self) -> Loaded:
        """What is there. Changes nothing."""

    def replace(self, step: LoadStep) -> list[str]:
        """Remove and put there what the step says, and make or complete the tables first; returns what is worth a notice.

        Tables of somebody else are refused, and so is a column of another type. What arrived is counted before it is noted.
        """

    def places(self, table: Table) -> set[Place]:
        """The values of the partition columns of the table that occur in it."""

    def rows(self, table: Table, place: Place) -> pa.Table:
        """All rows of the table with these values of its partition columns, and the columns of ``tables.columns_of``."""

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """The rows as the warehouse can hold them."""

    def close(self) -> None:
        """End the connection; what was not finished is undone."""


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


def open_warehouse(
    url: str, namespace: str, *, is_read_only: bool = False, on_wait: Callable[[], None] = do_nothing
) -> Warehouse:
    """The warehouse that the URL means, connected; its tables lie in the schema ``namespace``. Errors as for ``module_for``.

    ``is_read_only``: nothing is made by that, not even an empty database. ``on_wait`` is called several times a second while
    a server is waited for, if its driver allows that; what it raises ends the wait, and the statement.
    """
    module = module_for(url)
    connect = getattr(module, "connect_to_read", module.connect) if is_read_only else module.connect
    return cast("Warehouse", connect(url, namespace, on_wait))


def module_for(url: str) -> ModuleType:
    """The module for the URL's kind of warehouse, its driver imported; ConfigurationError when that is not installed."""
    scheme = scheme_of(url) or ""
    kind = WAREHOUSES[scheme]
    try:
        return import_module(f"etl.load.warehouse.{kind}")
    except ModuleNotFoundError as exc:
        raise needs_extra(f"[warehouse] url: {scheme}://", kind, exc) from None
