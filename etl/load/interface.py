"""What every warehouse does. ``Warehouse`` is all that the rest of the exporter knows of one; it names no implementation."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from etl.load.tables import Place
from etl.model.schema import Table


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
