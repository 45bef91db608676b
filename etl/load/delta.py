"""Delta Lake: a table for each of ours in a folder or bucket, by deltalake.

There is no transaction over several tables. Each table changes by one commit, calls and evals before their executions, and what was
loaded is noted last, with the load that changed each table. Where somebody else did, or a load that was cut off, the next one
brings everything in that table anew.
"""

import re
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, reduce
from itertools import chain
from operator import and_
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import ColumnProperties, CommitProperties, DeltaTable, Schema, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, PyFileSystem

from etl.errors import DestinationError
from etl.load.drivers import do_nothing, not_ours, streamed
from etl.load.interface import Loaded, LoadStep
from etl.load.tables import (
    ALL_TABLES,
    GROUPS,
    STATE,
    STATE_TABLE,
    Place,
    arrow_schema_of,
    columns_of,
    comment,
    needed_of,
    shape,
    sql_quoted,
)
from etl.model.schema import Column, Table

_LOAD_ID = "metrics_etl.load_id"
"""Stands in the commits of a load."""
_MAINTENANCE = ("OPTIMIZE", "VACUUM")
"""How the names of operations begin that change no row."""
_MOST_MAINTENANCE = 50
_BATCH_ROWS = 10_000
_WRITER = WriterProperties(default_column_properties=ColumnProperties(dictionary_enabled=False))
"""The library writes a file for each partition at once: with dictionaries, each takes three megabytes of memory."""
_STALE = ""
"""Digest of an item whose rows may be other ones now, see ``Loaded``."""
_DECORATION = re.compile(r"\x1b\[\d*m|↳")
_MOST_CHARACTERS = 500


class DeltaWarehouse:
    """``Warehouse`` of the Delta tables below a URL. A change is made to what ``loaded`` found, or fails."""

    def __init__(self, url: str) -> None:
        self.where = url
        # Without it the commits of two writers at once could replace each other.
        self._options = {"conditional_put": "etag"} if url.startswith("s3://") else {}
        self._found: tuple[dict[str, _Table], Loaded] | None = None
        self._read: dict[str, _Table] = {}

    def loaded(self) -> Loaded:
        """From what was noted; of tables that somebody else has changed since, the items are read."""
        with self._naming():
            self._found = self._look()
        return self._found[1]

    def replace(self, step: LoadStep) -> list[str]:
        """A commit for each table that changes, and one to note it."""
        with self._naming():
            tables, loaded = self._found or self._look()
            self._found = None
            load_id = uuid4().hex
            self._complete(tables, load_id)
            noted: dict[str, dict[str, str | None]] = {"dataset": {step.dataset_id: shape(ALL_TABLES)}, "table": {}}
            for group in GROUPS:
                gone, arriving = step.removed.get(group.kind, ()), step.arriving.get(group.kind, {})
                for table in group.tables:
                    opened = tables[table.name]
                    is_changed = opened.replace(group.item, gone, step.places[group.kind], step.rows(table), load_id)
                    noted["table"][table.name] = load_id if is_changed else opened.last_change
                kept = {item: known for item, known in loaded.digests[group.kind].items() if item not in gone}
                noted[group.kind] = {**kept, **arriving}
            noted["table"][STATE] = load_id
            rows = [(kind, item, digest, None) for kind, items in noted.items() for item, digest in items.items()]
            columns = map(pa.array, zip(*rows, strict=True))
            tables[STATE].overwrite([pa.table([*columns], schema=arrow_schema_of(STATE_TABLE))], load_id)
        return []

    def places(self, table: Table) -> set[Place]:
        """From the log."""
        with self._naming():
            self._read[table.name] = self._opened(table)
            return self._read[table.name].places

    def rows(self, table: Table, place: Place) -> pa.Table:
        """From the files of the place, as the table was when its places were asked for."""
        with self._naming():
            return (self._read.get(table.name) or self._opened(table)).rows(place)

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """All of it."""
        return rows

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _look(self) -> "tuple[dict[str, _Table], Loaded]":
        tables = {table.name: opened for table in ALL_TABLES if (opened := self._open(table))}
        if not tables:
            return {}, Loaded(None, {group.kind: {} for group in GROUPS})
        if STATE not in tables:
            raise not_ours(self.where, next(iter(tables)))
        noted: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
        for row in tables[STATE].rows().to_pylist():
            noted[row["kind"]][row["item"]] = row["digest"]
        # What somebody else wrote there proves nothing, nor that a table never was.
        is_ours = tables[STATE].last_change == noted["table"].get(STATE)
        digests: dict[str, dict[str, str | None]] = {}
        for group in GROUPS:
            known = noted[group.kind] if is_ours else {}
            found = [tables[table.name] for table in group.tables if table.name in tables]
            is_as_noted = all(each.last_change == noted["table"].get(each.name) for each in found)
            if not (is_ours and is_as_noted and len(found) == len(group.tables)):
                there = {item for each in found for item in each.items(group.item)}
                known = {item: _STALE if item in known else None for item in known.keys() | there}
            digests[group.kind] = known
        dataset_id, its_shape = next(iter(noted["dataset"].items()), (None, None))
        is_whole = len(tables) == len(ALL_TABLES) and not any(each.lacking for each in tables.values())
        return tables, Loaded(dataset_id, digests, is_outdated=not is_whole or its_shape != shape(ALL_TABLES))

    def _open(self, table: Table) -> "_Table | None":
        url = f"{self.where}/{table.name}"
        if DeltaTable.is_deltatable(url, self._options):
            return _Table(url, table, self._options)
        if self._has_files(url):
            raise DestinationError(f"{url} holds files that are not a Delta table: name another [warehouse] url")
        return None

    def _has_files(self, url: str) -> bool:
        """As the folder of a dataset does, whose readers would take the rows twice."""
        try:
            storage = PyFileSystem(DeltaStorageHandler(url, self._options))
        except TableNotFoundError:
            return False
        found = storage.get_file_info(FileSelector("", allow_not_found=True))
        return any(entry.base_name != "_delta_log" for entry in found)

    def _opened(self, table: Table) -> "_Table":
        if opened := self._open(table):
            return opened
        raise DestinationError(f"{self.where} has no table {table.name}: run metrics-etl load")

    def _complete(self, tables: "dict[str, _Table]", load_id: str) -> None:
        """Make the tables that are not there, and add columns."""
        for table in ALL_TABLES:
            if (opened := tables.get(table.name)) is None:
                self._create(table)
            elif opened.is_append_only:
                raise DestinationError(
                    f"{self.where}: {table.name} is append-only: set delta.appendOnly to false on the tables there, "
                    "then run metrics-etl load"
                )
            elif opened.lacking:
                opened.add_columns(load_id)
            else:
                continue
            tables[table.name] = self._opened(table)

    def _create(self, table: Table) -> None:
        DeltaTable.create(
            f"{self.where}/{table.name}",
            _delta_schema(table, columns_of(table)),
            partition_by=[column.name for column in table.partitions],
            description=f"One row per {table.one_row_per}.",
            configuration={"delta.dataSkippingStatsColumns": ",".join(needed_of(table) & {*table.names})},
            storage_options=self._options,
        )

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except CommitFailedError as exc:
            raise DestinationError(f"{self.where}: someone else wrote at the same time: load again ({exc})") from exc
        except (DeltaError, OSError, pa.ArrowException) as exc:
            text = " ".join(_DECORATION.sub(" ", str(exc)).split())
            raise DestinationError(f"{self.where}: {text[:_MOST_CHARACTERS]}") from exc


class _Table:
    """A table as it was when it was opened; DestinationError when a column has another type."""

    def __init__(self, url: str, table: Table, options: dict[str, str]) -> None:
        self.name = table.name
        self._table = table
        self._handle = DeltaTable(url, storage_options=options)
        self._partitions = [column.name for column in table.partitions]
        self.is_append_only = self._handle.metadata().configuration.get("delta.appendOnly") == "true"
        found = {field.name: field.type for field in self._handle.schema().fields}
        for wanted in _delta_schema(table, columns_of(table)).fields:
            if found.get(wanted.name, wanted.type) != wanted.type:
                raise DestinationError(
                    f"{url}: {table.name}.{wanted.name} is {found[wanted.name].type}, expected {wanted.type.type}: "
                    "give it that type, or remove the tables and load again"
                )
        self.lacking = [column for column in columns_of(table) if column.name not in found]

    @cached_property
    def last_change(self) -> str:
        """The load that was the last to change the table; where it was none, another text for each change."""
        for commit in self._handle.history(_MOST_MAINTENANCE):
            if not commit["operation"].startswith(_MAINTENANCE):
                return str(commit.get(_LOAD_ID, commit["version"]))
        return f"before {self._handle.version()}"

    @cached_property
    def places(self) -> set[Place]:
        """Those that occur."""
        return {tuple(place[name] for name in self._partitions) for place in self._handle.partitions()}

    def items(self, item: str) -> set[str]:
        """Those that have rows."""
        return {*self._dataset.to_table(columns=[item])[item].unique().to_pylist()}

    def rows(self, place: Place | None = None) -> pa.Table:
        """All rows, or those of a place, with the columns of ``tables.columns_of``."""
        at = [(name, [str(value)]) for name, value in zip(self._partitions, place or (), strict=False)]
        return _with_columns(self._dataset.to_table(filter=_is_at(at)), arrow_schema_of(self._table))

    def add_columns(self, load_id: str) -> None:
        """Add what is lacking, after which the table must be opened again."""
        fields = list(_delta_schema(self._table, self.lacking).fields)
        self._handle.alter.add_columns(fields, commit_properties=_of_load(load_id))

    def replace(
        self, item: str, gone: Collection[str], places: Collection[Place], arriving: Iterable[pa.Table], load_id: str
    ) -> bool:
        """Put the rows that arrive where the items that are gone were, each place as one file; returns whether any did."""
        held = self._handle.to_pyarrow_dataset()  # not kept afterwards: it remembers the footer of each file
        values = pa.array(sorted(gone), pa.string())
        touched = {*places}
        if gone:
            there = held.to_table(columns=[*{item, *self._partitions}])
            left = there.filter(pc.is_in(there[item], values)).group_by(self._partitions).aggregate([])
            touched |= {tuple(row[name] for name in self._partitions) for row in left.to_pylist()}
        if touched:
            at = [*zip(self._partitions, map(set, zip(*touched, strict=True)), strict=True)]
            at = [] if touched >= self.places else at
            # Filters name partitions alone: Arrow compares no statistics of texts that other writers have stored as views.
            batches = held.scanner(
                filter=_is_at(at), batch_size=_BATCH_ROWS, batch_readahead=1, fragment_readahead=1, use_threads=False
            ).to_batches()
            stored = (pa.Table.from_batches([batch]) for batch in batches)
            kept = (rows.filter(pc.invert(pc.is_in(rows[item], values))) for rows in stored)
            predicate = " AND ".join(f"{name} IN ({', '.join(map(sql_quoted, sorted(each)))})" for name, each in at)
            try:
                self.overwrite(chain(kept, arriving), load_id, predicate or None)
            finally:
                with suppress(OSError, pa.ArrowException):
                    deque(batches, maxlen=0)  # else Arrow still reads ahead, where a process may hang at its end
        return bool(touched)

    def overwrite(self, rows: Iterable[pa.Table], load_id: str, predicate: str | None = None) -> None:
        """Make these the rows of which the predicate is true, or all rows, as one commit."""
        pieces = chain([self._schema.empty_table()], (_with_columns(each, self._schema) for each in rows))
        with streamed(pieces) as reader:
            if reader is not None:
                write_deltalake(
                    self._handle,
                    reader,
                    mode="overwrite",
                    predicate=predicate,
                    writer_properties=_WRITER,
                    commit_properties=_of_load(load_id),
                )

    @cached_property
    def _dataset(self) -> ds.Dataset:
        return self._handle.to_pyarrow_dataset()

    @cached_property
    def _schema(self) -> pa.Schema:
        """That of the table, with columns that others have added."""
        return pa.schema(self._handle.schema().to_arrow())


def _is_at(at: Iterable[tuple[str, Collection[str]]]) -> pc.Expression | None:
    """Whether a row has one of the values in each of these columns."""
    each = [pc.field(name).isin(sorted(values)) for name, values in at]
    return reduce(and_, each) if each else None


def _of_load(load_id: str) -> CommitProperties:
    """Fails if somebody else has committed since the table was opened."""
    return CommitProperties(custom_metadata={_LOAD_ID: load_id}, max_commit_retries=0)


def _delta_schema(table: Table, columns: Iterable[Column]) -> Schema:
    needed = needed_of(table)
    fields = (
        pa.field(column.name, column.type, nullable=column.name not in needed, metadata={"comment": comment(column)})
        for column in columns
    )
    return Schema.from_arrow(pa.schema(fields))


def _with_columns(rows: pa.Table, declared: pa.Schema) -> pa.Table:
    columns = [rows[one.name] if one.name in rows.column_names else pa.nulls(len(rows), one.type) for one in declared]
    return pa.table(columns, schema=declared)


def connect(url: str, _namespace: str, _on_wait: Callable[[], None] = do_nothing) -> DeltaWarehouse:
    """The tables below ``delta:///folder`` or ``delta+s3://bucket/prefix``, whose credentials are where every client has them."""
    return DeltaWarehouse(url.removeprefix("delta://").removeprefix("delta+").rstrip("/"))
