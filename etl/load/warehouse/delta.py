"""Delta Lake: a table for each of ours in a folder or bucket, by deltalake.

There is no transaction over several tables. Each table changes by one commit, calls and evals before their executions, and what was
loaded is noted last: after an interruption the tables are not as noted, and the next load looks at their rows.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pandas.util import hash_array
from pyarrow.fs import FileSelector, PyFileSystem

from etl.errors import DestinationError
from etl.load.warehouse.delta_table import OneTable, create
from etl.load.warehouse.tables import ALL_TABLES, GROUPS, STATE, STATE_TABLE, Group, arrow_schema_of, shape
from etl.load.warehouse.target import Loaded, LoadStep, do_nothing
from etl.model.schema import BOOL, STRING, Table

_Items = dict[str, tuple[str | None, str | None]]
"""By item its digest and the checksum of its rows, as they were noted."""
_Hashes = npt.NDArray[np.uint64]
_DECORATION = re.compile(r"\x1b\[\d*m|↳")
_MOST_CHARACTERS = 500
_NOT_TAKEN = re.compile(r"[%\[\]^|\\\x00-\x1f\x7f]")
"""In the path of a local table deltalake reads these as something else, or panics."""
_UNKNOWN = (None, "")
"""Of an item whose rows are not those that were noted."""


@dataclass(slots=True)
class _Found:
    """What is there: tables by name, the dataset that they hold, its shape when it was loaded, and items by kind."""

    tables: dict[str, OneTable]
    dataset_id: str | None = None
    shape: str | None = None
    items: dict[str, _Items] = field(default_factory=dict)


class DeltaWarehouse:
    """``Warehouse`` of the Delta tables below a URL. A change is made to what ``loaded`` found, or fails."""

    def __init__(self, url: str) -> None:
        self.where = url
        # Without it the commits of two writers at once could replace each other.
        self._options = {"conditional_put": "etag"} if url.startswith("s3://") else {}
        self._found: _Found | None = None
        self._read: dict[str, OneTable] = {}

    def loaded(self, *, would_load: bool = False) -> Loaded:  # noqa: ARG002 it always refuses what it must
        """From what was noted, if nobody has committed to the tables since; else from their rows, too."""
        with self._naming():
            found = self._found = self._look()
        is_outdated = found.shape != shape(ALL_TABLES) or len(found.tables) < len(ALL_TABLES)
        is_outdated |= any(table.lacking for table in found.tables.values())
        digests = {kind: {item: digest for item, (digest, _) in items.items()} for kind, items in found.items.items()}
        return Loaded(found.dataset_id, digests, is_outdated=is_outdated)

    def replace(self, step: LoadStep) -> list[str]:
        """A commit for each table that changes, and one to note it."""
        with self._naming():
            found = self._found or self._look()
            self._found = None
            if found.dataset_id not in (None, step.dataset_id):
                raise DestinationError(
                    f"{self.where} holds another dataset ({found.dataset_id}; this one is {step.dataset_id}): "
                    "name another [warehouse] url"
                )
            self._complete(found, step.dataset_id)
            noted: dict[str, _Items] = {"dataset": {step.dataset_id: (shape(ALL_TABLES), None)}, "table": {}}
            for group in GROUPS:
                gone, arriving = step.removed.get(group.kind, ()), step.arriving.get(group.kind, {})
                sums = dict[str, int]()
                for table in group.tables:
                    rows = _summed(step.rows(table), group.item, sums)
                    noted["table"][table.name] = found.tables[table.name].replace(group.item, gone, rows), None
                kept = {item: known for item, known in found.items[group.kind].items() if item not in gone}
                noted[group.kind] = kept | {item: (digest, _text(sums, item)) for item, digest in arriving.items()}
            noted["table"][STATE] = str(found.tables[STATE].version + 1), None
            found.tables[STATE].overwrite(_as_rows(noted))
        return []

    def places(self, table: Table) -> set[tuple[str | None, ...]]:
        """From the log."""
        with self._naming():
            self._read[table.name] = self._opened(table)
            return self._read[table.name].places

    def rows(self, table: Table, place: tuple[str | None, ...]) -> pa.Table:
        """From the files of the place, as the table was when its places were asked for."""
        with self._naming():
            opened = self._read.get(table.name) or self._opened(table)
            return pa.concat_tables([arrow_schema_of(table).empty_table(), *opened.rows(place)])

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """All of it."""
        return rows

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _look(self) -> _Found:
        found = _Found({table.name: opened for table in ALL_TABLES if (opened := self._open(table))})
        ids = {opened.dataset_id for opened in found.tables.values()}
        if len(ids) > 1:
            raise DestinationError(f"{self.where} holds tables of several datasets: name another [warehouse] url")
        found.dataset_id = next(iter(ids), None)
        noted: dict[str, _Items] = {}
        if STATE in found.tables:
            for row in (row for rows in found.tables[STATE].rows() for row in rows.to_pylist()):
                noted.setdefault(row["kind"], {})[row["item"]] = row["digest"], row["checksum"]
        found.shape = noted.get("dataset", {}).get(found.dataset_id or "", (None, None))[0]
        found.items = {group.kind: noted.get(group.kind, {}) for group in GROUPS}
        as_noted = {name: digest for name, (digest, _) in noted.get("table", {}).items()}
        # What somebody else wrote there proves nothing, nor that a table never was.
        is_ours = STATE in found.tables and as_noted.get(STATE) == str(found.tables[STATE].version)
        for group in GROUPS:
            tables = {table.name: found.tables.get(table.name) for table in group.tables}
            if not is_ours or any((opened and opened.note) != as_noted.get(name) for name, opened in tables.items()):
                found.items[group.kind] = _checked(group, found.items[group.kind], filter(None, tables.values()))
        return found

    def _open(self, table: Table) -> OneTable | None:
        url = f"{self.where}/{table.name}"
        if DeltaTable.is_deltatable(url, self._options):
            opened = OneTable(url, table, self._options)
            if opened.dataset_id is None:
                raise DestinationError(f"{url} was not made by metrics-etl: name another [warehouse] url, or remove it")
            return opened
        if self._has_files(url):
            raise DestinationError(f"{url} holds files that are not a Delta table: name another [warehouse] url")
        return None

    def _has_files(self, url: str) -> bool:
        try:
            storage = PyFileSystem(DeltaStorageHandler(url, self._options))
        except TableNotFoundError:
            return False
        found = storage.get_file_info(FileSelector("", allow_not_found=True))
        return any(entry.base_name != "_delta_log" for entry in found)

    def _opened(self, table: Table) -> OneTable:
        if opened := self._open(table):
            return opened
        raise DestinationError(f"{self.where} has no table {table.name}: run metrics-etl load")

    def _complete(self, found: _Found, dataset_id: str) -> None:
        """Make the tables that are not there, and add columns."""
        for table in ALL_TABLES:
            opened = found.tables.get(table.name)
            if opened is None:
                create(f"{self.where}/{table.name}", table, dataset_id, self._options)
            elif opened.lacking:
                opened.add_columns()
            else:
                continue
            found.tables[table.name] = self._opened(table)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except CommitFailedError as exc:
            text = "someone else wrote at the same time: load again"
            if "Unsupported" in str(exc):
                text = "somebody changed what a table needs, which this version cannot write: remove the table, and load again"
            raise DestinationError(f"{self.where}: {text} ({exc})") from exc
        except (DeltaError, OSError, pa.ArrowException) as exc:
            text = " ".join(_DECORATION.sub(" ", str(exc)).split())
            raise DestinationError(f"{self.where}: {text[:_MOST_CHARACTERS]}") from exc


def _checked(group: Group, noted: _Items, tables: Iterable[OneTable]) -> _Items:
    """Items that are noted or there, with what was noted of those whose rows are as they were loaded."""
    sums = dict[str, int]()
    for table in tables:
        for rows in table.rows():
            added(sums, checksums(rows, group.item))
    return {
        item: known if (known := noted.get(item, _UNKNOWN))[1] == _text(sums, item) else _UNKNOWN
        for item in noted.keys() | sums.keys()
    }


def _summed(pieces: Iterable[pa.Table], item: str, sums: dict[str, int]) -> Iterator[pa.Table]:
    for rows in pieces:
        added(sums, checksums(rows, item))
        yield rows


def _text(sums: Mapping[str, int], item: str) -> str | None:
    return f"{sums[item]:016x}" if item in sums else None


def _as_rows(noted: Mapping[str, _Items]) -> pa.Table:
    found = [(kind, item, *known) for kind, items in noted.items() for item, known in items.items()]
    return pa.table([*map(pa.array, zip(*found, strict=True))], schema=arrow_schema_of(STATE_TABLE))


def checksums(rows: pa.Table, item: str) -> dict[str, int]:
    """By value of the column ``item`` the sum of 64-bit hashes of its rows; sums of pieces may be added, see ``added``.

    The order of rows and columns does not matter, and a null adds nothing, so that a new column changes no checksum.
    """
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


def connect(url: str, _namespace: str, _on_wait: Callable[[], None] = do_nothing) -> DeltaWarehouse:
    """The tables below ``delta:///folder`` or ``delta+s3://bucket/prefix``, whose credentials are where every client has them.

    Raises:
        DestinationError: the folder has a name that deltalake does not take.
    """
    where = url.removeprefix("delta://").removeprefix("delta+").rstrip("/")
    if "://" not in where and (odd := _NOT_TAKEN.search(where)):
        raise DestinationError(f"{url}: Delta takes no path with {odd[0]!r}: name another folder as [warehouse] url")
    return DeltaWarehouse(where)
