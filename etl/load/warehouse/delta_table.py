"""One Delta table: what lies in it, and a change of its rows as one commit.

The files are written here, and the library commits them: its own writer keeps a file open for each partition until the last row has
come, which takes gigabytes for a year of many run tests.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, reduce
from itertools import chain
from operator import and_
from typing import Any, NamedTuple
from urllib.parse import quote, unquote
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction
from pyarrow.fs import PyFileSystem

from etl.errors import DestinationError
from etl.load.warehouse.dialect import comment
from etl.load.warehouse.tables import arrow_schema_of, columns_of, needed_of
from etl.model.digest import rows_digest
from etl.model.schema import Column, Table

Place = tuple[str | None, ...]
"""The values of the partition columns."""

_DATASET_ID = "metrics_etl.dataset_id"
_FULL_BYTES = 16 << 20
_BATCH_ROWS = 50_000
_IF_UNTOUCHED = CommitProperties(max_commit_retries=0)
"""Fails if somebody else has committed since the table was opened."""


class _File(NamedTuple):
    path: str
    size_bytes: int
    place: Place


def create(url: str, table: Table, dataset_id: str, options: Mapping[str, str]) -> None:
    """Make the table, without rows."""
    DeltaTable.create(
        url,
        _delta_schema(table, columns_of(table)),
        partition_by=[column.name for column in table.partitions],
        description=f"One row per {table.one_row_per}.",
        configuration={_DATASET_ID: dataset_id, "delta.dataSkippingStatsColumns": ",".join(_bounded(table))},
        storage_options=dict(options),
        raise_if_key_not_exists=False,
    )


class OneTable:
    """A table as it was when it was opened.

    Raises:
        DestinationError: a column has another type.
    """

    def __init__(self, url: str, table: Table, options: Mapping[str, str]) -> None:
        self._url = url
        self._table = table
        self._handle = DeltaTable(url, storage_options=dict(options))
        self._storage = PyFileSystem(DeltaStorageHandler(url, dict(options)))
        found = {field.name: field.type for field in self._handle.schema().fields}
        for field in _delta_schema(table, columns_of(table)).fields:
            if found.get(field.name, field.type) != field.type:
                raise DestinationError(
                    f"{url}: {table.name}.{field.name} is {found[field.name].type}, expected {field.type.type}: "
                    "give it that type, or remove the tables and load again"
                )
        self.lacking = [column for column in columns_of(table) if column.name not in found]

    @property
    def dataset_id(self) -> str | None:
        """The dataset that it was made for; None if somebody else made it."""
        return self._handle.metadata().configuration.get(_DATASET_ID)

    @property
    def version(self) -> int:
        """Counts commits."""
        return self._handle.version()

    @property
    def files(self) -> set[str]:
        """The paths of its files."""
        return {file.path for file in self._files}

    @property
    def note(self) -> str:
        """Another one once anybody has committed to the table."""
        return _note(self.version, self.files)

    @property
    def places(self) -> set[Place]:
        """Those that occur."""
        return {file.place for file in self._files}

    def rows(self, place: Place | None = None) -> Iterator[pa.Table]:
        """All rows, or those of a place, some at a time, with the columns of ``tables.columns_of``."""
        wanted = arrow_schema_of(self._table)
        for file in self._files:
            if place in (None, file.place):
                yield from (_with_columns(rows, wanted) for rows in self._rows_of(file))

    def add_columns(self) -> None:
        """Add what is lacking, after which the table must be opened again."""
        self._handle.alter.add_columns(
            list(_delta_schema(self._table, self.lacking).fields), commit_properties=_IF_UNTOUCHED
        )

    def replace(self, item: str, gone: Collection[str], arriving: Iterable[pa.Table]) -> str:
        """Put the rows that arrive in the place of those of the items that are gone, as one commit; returns the note of the result.

        Rows join a small file of their partition, so that a year of nights does not leave a year of files in it.
        """
        touched = {file: held for file in self._files if gone and (held := self._items(file, item).intersection(gone))}
        joinable = defaultdict[Place, list[_File]](list)
        for file in sorted(self._files, key=lambda file: (file in touched, -file.size_bytes)):
            if file in touched or file.size_bytes < _FULL_BYTES:
                joinable[file.place].append(file)
        version = self.version
        removed: list[_File] = []
        added: list[AddAction] = []

        def write(place: Place, before: Sequence[_File], rows: Iterable[pa.Table]) -> None:
            kept = (self._without(file, item, touched.get(file, ())) for file in before)
            removed.extend(before)
            added.extend(self._written(place, chain(chain.from_iterable(kept), rows)))

        for piece in arriving:
            for place, rows in self._by_place(piece):
                write(place, [joinable[place].pop()] if joinable[place] else [], [rows])
        for file in touched.keys() - {*removed}:
            write(file.place, [file], [])
        if added or removed:
            self._commit(added, removed)
        live = self.files - {file.path for file in removed} | {action.path for action in added}
        return _note(version + bool(added or removed), live)

    def overwrite(self, rows: pa.Table) -> None:
        """Make these all of its rows, as one commit."""
        write_deltalake(self._handle, rows.cast(self._schema), mode="overwrite", commit_properties=_IF_UNTOUCHED)

    @cached_property
    def _files(self) -> list[_File]:
        actions = pa.table(self._handle.get_add_actions(flatten=True))
        places = [actions[f"partition.{column.name}"].to_pylist() for column in self._table.partitions]
        columns = map(unquote, actions["path"].to_pylist()), actions["size_bytes"].to_pylist()
        return [_File(path, size, tuple(place)) for path, size, *place in zip(*columns, *places, strict=True)]

    @cached_property
    def _fragments(self) -> dict[str, ds.Fragment]:
        return {fragment.path: fragment for fragment in self._handle.to_pyarrow_dataset().get_fragments()}

    @cached_property
    def _schema(self) -> pa.Schema:
        """That of the table, with columns that others have added."""
        return pa.schema(self._handle.schema().to_arrow())

    def _items(self, file: _File, item: str) -> set[str]:
        return {*self._fragments[file.path].to_table(schema=self._schema, columns=[item])[item].unique().to_pylist()}

    def _rows_of(self, file: _File) -> Iterator[pa.Table]:
        for batch in self._fragments[file.path].to_batches(schema=self._schema, batch_size=_BATCH_ROWS):
            yield pa.Table.from_batches([batch])

    def _without(self, file: _File, item: str, gone: Collection[str]) -> Iterator[pa.Table]:
        values = pa.array(sorted(gone), pa.string())
        for rows in self._rows_of(file):
            yield rows.filter(pc.invert(pc.is_in(rows[item], values))) if gone else rows

    def _by_place(self, rows: pa.Table) -> Iterator[tuple[Place, pa.Table]]:
        names = [column.name for column in self._table.partitions]
        places = {*zip(*(rows[name].to_pylist() for name in names), strict=True)}
        for place in places:
            is_there = reduce(and_, (pc.field(name) == value for name, value in zip(names, place, strict=True)))
            yield place, rows.filter(is_there) if len(places) > 1 else rows

    def _written(self, place: Place, pieces: Iterable[pa.Table]) -> list[AddAction]:
        """The rows as one file of the partition, unless there are none."""
        values = dict(zip((column.name for column in self._table.partitions), place, strict=True))
        declared = pa.schema([field for field in self._schema if field.name not in values])
        filled = (_with_columns(rows, declared) for rows in pieces if len(rows))
        first = next(filled, None)
        if first is None:
            return []
        path = "/".join([*(f"{name}={quote(str(value))}" for name, value in values.items()), f"part-{uuid4()}.parquet"])
        footers: list[pq.FileMetaData] = []
        with self._storage.open_output_stream(path) as stream:
            with pq.ParquetWriter(stream, declared, compression="zstd", metadata_collector=footers) as writer:
                for rows in chain([first], filled):
                    writer.write_table(rows)
            size = stream.tell()
        return [
            AddAction(path, size, values, _now_ms(), data_change=True, stats=_stats(footers[0], _bounded(self._table)))
        ]

    def _commit(self, added: list[AddAction], removed: list[_File]) -> None:
        names = [column.name for column in self._table.partitions]
        removals = [
            RemoveAction(
                path,
                data_change=True,
                deletion_timestamp=_now_ms(),
                size=size,
                partition_values=dict(zip(names, place, strict=True)),
            )
            for path, size, place in removed
        ]
        self._handle.create_write_transaction(
            [*removals, *added], "append", self._handle.schema(), names, commit_properties=_IF_UNTOUCHED
        )


def _delta_schema(table: Table, columns: Sequence[Column]) -> Schema:
    needed = needed_of(table)
    fields = (
        pa.field(column.name, column.type, nullable=column.name not in needed, metadata={"comment": comment(column)})
        for column in columns
    )
    return Schema.from_arrow(pa.schema(fields))


def _bounded(table: Table) -> list[str]:
    """The columns by which readers may skip files."""
    wanted = {*table.key, "execution_id", table.start, "exported_at"}
    return [name for name in table.names if name in wanted]


def _note(version: int, paths: Iterable[str]) -> str:
    """Files are never changed, and each has a name of its own: the names say what the table holds."""
    return f"{version} {rows_digest(path.rpartition('/')[2] for path in paths)}"


def _with_columns(rows: pa.Table, declared: pa.Schema) -> pa.Table:
    columns = [
        rows[field.name] if field.name in rows.column_names else pa.nulls(len(rows), field.type) for field in declared
    ]
    return pa.table(columns, schema=declared)


def _stats(footer: pq.FileMetaData, bounded: Collection[str]) -> str:
    """What lets readers skip the file: its number of rows, and bounds of a few columns."""
    bounds: dict[str, dict[str, Any]] = {"minValues": {}, "maxValues": {}, "nullCount": {}}
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    for number, name in enumerate(footer.schema.names):
        if name in bounded:
            found = [group.column(number).statistics for group in groups]
            bounds["nullCount"][name] = sum(each.null_count for each in found)
            known = [each for each in found if each.has_min_max]
            if len(known) + sum(each.num_values == 0 for each in found) == len(found) and known:
                bounds["minValues"][name] = _as_json(min(each.min for each in known))
                bounds["maxValues"][name] = _as_json(max(each.max for each in known))
    return json.dumps({"numRecords": footer.num_rows, **bounds})


def _as_json(value: str | datetime) -> str:
    return value if isinstance(value, str) else value.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
