"""What every warehouse does.

``Warehouse`` is all that the rest of the exporter knows of a warehouse. Nothing here names an implementation:
``open.py`` decides which one a URL means, and ``synchronize.py`` decides what is loaded.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

from etl.load.tables import Place
from etl.model.schema import Table


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a warehouse holds now, as ``Warehouse.loaded`` finds it."""

    dataset_id: str | None = None
    """The dataset that was loaded; None before the first load."""
    digests: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    """By kind (see ``tables.GROUPS``) and item, the digest with which the item was loaded.

    None: the warehouse has more or fewer rows of the item than were loaded, so the item is loaded again, or removed if
    the dataset does not have it. Empty: its rows may have changed, so it is loaded again; if the dataset does not have
    it, it stays.
    """
    is_outdated: bool = True
    """Tables, views or columns may be missing, or views altered: a load has work, even if all digests agree."""
    altered_views: tuple[str, ...] = ()
    """Names of the views that are no longer defined as the last load noted."""


@dataclass(frozen=True, slots=True)
class LoadStep:
    """What one load removes from a warehouse, and what it puts there."""

    dataset_id: str
    """The dataset that is loaded, to be noted in the warehouse."""
    removed: Mapping[str, Collection[str]]
    """By kind, the items whose rows are deleted first: those that go, and those that are replaced."""
    arriving: Mapping[str, Mapping[str, str]]
    """By kind, the items that arrive, each with the digest to note for it."""
    times: Mapping[str, datetime | None]
    """What the view ``last_load`` is to show: by column, a time in UTC."""
    places: Mapping[str, Collection[Place]]
    """By kind, the values of the partition columns of all rows that arrive."""
    rows: Callable[[Table], Iterator[pa.Table]]
    """Reads the rows of one table that arrive, in pieces that fit into memory. Call it once for each table."""


class Warehouse(Protocol):
    """One warehouse, connected. Every failure is a DestinationError of one line, with the fix."""

    where: str
    """What messages call the warehouse; without credentials."""

    def loaded(self) -> Loaded:
        """Say what the warehouse holds; at any time, and without changing anything.

        Raises:
            DestinationError: a table may be somebody else's, or one of its columns has another type.
        """

    def replace(self, step: LoadStep) -> list[str]:
        """Remove and add what the step says, and note what was loaded; return notices for people.

        It first creates the tables, or completes them. Call it after ``loaded``, at most once, and not on a warehouse
        that was opened to be read. It is one transaction where the engine has transactions over several tables, and
        elsewhere one commit per table. What arrived is counted, where the engine can count it, before it is noted.

        Raises:
            DestinationError: as ``loaded``; or somebody else wrote meanwhile, or rows did not arrive as they were sent.
                Then a transaction changed nothing; without one, the next load repairs the rest.
        """

    def rehearse(self, step: LoadStep) -> bool:
        """Do all that ``replace`` does, and undo it; False where it could not be undone, so that nothing was done.

        Call it after ``loaded``, on a warehouse that was opened to rehearse.

        Raises:
            DestinationError: ``replace`` would fail, with the same error.
        """

    def places(self, table: Table) -> set[Place]:
        """The values of the table's partition columns that occur in it; at any time.

        Raises:
            DestinationError: the table, or one of its columns, is missing: run a load first.
        """

    def rows(self, table: Table, place: Place) -> pa.Table:
        """All rows of the table with these values of its partition columns, none for a place that does not occur.

        Columns and types are those of ``tables.columns_of``. Call it after ``places``, which checks that the table has
        them.
        """

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """The rows as the warehouse can hold them; what it cannot hold is replaced. At any time; writes nothing."""

    def close(self) -> None:
        """End the connection, as the last call. What was not committed is undone."""


def noted_digests(rows: Iterable[Mapping[str, Any]]) -> defaultdict[str, dict[str, str | None]]:
    """By kind and item, the digests in rows of the table of what was loaded."""
    digests: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
    for row in rows:
        digests[row["kind"]][row["item"]] = row["digest"]
    return digests
