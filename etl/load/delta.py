"""Delta Lake, by deltalake: one Delta table for each table of a warehouse, in a folder or bucket.

Delta has no transaction over several tables. So each table changes by one commit, calls and evals before their
executions; the table of what was loaded comes last, and names for each table the load that changed it. If another
writer, or a load that was cut off, has changed a table since, the next load replaces everything in that table.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, reduce
from itertools import chain
from operator import and_
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import ColumnProperties, CommitProperties, DeltaTable, Schema, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import PyFileSystem

from etl.errors import DestinationError, WarehouseUnavailableError
from etl.files.refusals import is_denied, refusal
from etl.load.delta_log import LOAD_ID, DeltaLog, files_below
from etl.load.drivers import do_nothing, failure, not_ours, streamed
from etl.load.interface import Loaded, LoadStep, noted_digests
from etl.load.tables import ALL_TABLES, GROUPS, STATE, STATE_TABLE, Place, arrow_schema_of, columns_of, needed_of, shape
from etl.load.texts import comment, sql_quoted
from etl.model.schema import Column, Table

_CHECKPOINT_COMMITS = "10"
"""After so many commits, the library sums up the log, which it reads from there on."""
_BATCH_ROWS = 10_000
_WRITER = WriterProperties(default_column_properties=ColumnProperties(dictionary_enabled=False))
"""The library writes the files of all partitions at once: with dictionaries, each would take 3 MB of memory."""
_STALE = ""
"""Digest of an item whose rows may have changed, see ``Loaded``."""
_ALLOW = "there is no permission. Allow reading, writing, listing and deleting there"
"""What to say of a bucket that refuses a request without another reason."""
_DECORATION = re.compile(r"\x1b\[\d*m|↳")
"""Colors and arrows in the library's messages."""


class DeltaWarehouse:
    """``Warehouse`` of the Delta tables below a URL. ``replace`` fails if a table changed after ``loaded``."""

    def __init__(self, url: str) -> None:
        self.where = url
        # Without this option, the commits of two concurrent writers could replace each other.
        self._options = {"conditional_put": "etag"} if url.startswith("s3://") else {}
        self._found: tuple[dict[str, _Table], Loaded] | None = None
        self._read: dict[str, _Table] = {}

    def loaded(self) -> Loaded:
        """See ``Warehouse``. Reads what was noted, and the items of tables that another writer has changed since."""
        with self._translated_errors():
            self._found = self._look()
        return self._found[1]

    def replace(self, step: LoadStep) -> list[str]:
        """See ``Warehouse``. One commit for each table that changes, then one for the table of what was loaded."""
        with self._translated_errors():
            tables, loaded = self._found or self._look()
            self._found = None
            load_id = uuid4().hex
            groups = [group for group in GROUPS if step.removed.get(group.kind) or step.places[group.kind]]
            self._complete(tables, {STATE, *(table.name for group in groups for table in group.tables)}, load_id)
            noted: dict[str, dict[str, str | None]] = {"dataset": {step.dataset_id: shape(ALL_TABLES)}, "table": {}}
            for group in GROUPS:
                removed = step.removed.get(group.kind, ())
                for table in group.tables:
                    opened = tables[table.name]
                    is_changed = opened.replace(group.item, removed, step.places[group.kind], step.rows(table), load_id)
                    noted["table"][table.name] = load_id if is_changed else opened.last_change
                kept = {item: digest for item, digest in loaded.digests[group.kind].items() if item not in removed}
                noted[group.kind] = {**kept, **step.arriving.get(group.kind, {})}
            noted["table"][STATE] = load_id
            rows = [(kind, item, digest, None) for kind, items in noted.items() for item, digest in items.items()]
            columns = map(pa.array, zip(*rows, strict=True))
            tables[STATE].overwrite([pa.table([*columns], schema=arrow_schema_of(STATE_TABLE))], load_id)
        return []

    def rehearse(self, _step: LoadStep) -> bool:
        """See ``Warehouse``. Writes a table of its own twice, and removes it: no commit can be undone."""
        with self._translated_errors(), ExitStack() as opened:
            tables, _ = self._found or self._look()
            self._refuse_append_only(tables, tables)
            name = f"metrics_etl_check_{uuid4().hex}"
            if "://" in self.where:
                trial = f"{self.where}/{name}"
                opened.callback(PyFileSystem(DeltaStorageHandler(trial, self._options)).delete_dir, "")
            else:
                folder = next(each for each in Path(self.where, name).absolute().parents if each.exists())
                trial = opened.enter_context(TemporaryDirectory(prefix=name, dir=folder))
            for _ in range(2):
                write_deltalake(trial, pa.table({"made_up": [1]}), mode="overwrite", storage_options=self._options)
        return True

    def places(self, table: Table) -> set[Place]:
        """See ``Warehouse``. Reads the table's log alone."""
        with self._translated_errors():
            self._read[table.name] = self._opened(table)
            return self._read[table.name].places

    def rows(self, table: Table, place: Place) -> pa.Table:
        """See ``Warehouse``. The table is read as it was when ``places`` was called."""
        with self._translated_errors():
            return (self._read.get(table.name) or self._opened(table)).rows(place)

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """The rows themselves: Delta can hold every value."""
        return rows

    def close(self) -> None:
        """See ``Warehouse``. No connection stays open between two calls."""

    def _look(self) -> "tuple[dict[str, _Table], Loaded]":
        """The tables that exist, by name, and what was loaded into them."""
        tables = {table.name: opened for table in ALL_TABLES if (opened := self._open(table))}
        if not tables:
            return {}, Loaded(None, {group.kind: {} for group in GROUPS})
        if STATE not in tables:
            raise not_ours(self.where, next(iter(tables)))
        noted = noted_digests(tables[STATE].rows().to_pylist())
        dataset_id, noted_shape = next(iter(noted["dataset"].items()), (None, None))
        # If another writer has changed this table, its rows prove nothing: not what was loaded, nor which load changed
        # a table.
        is_state_ours = tables[STATE].last_change == noted["table"].get(STATE)
        as_noted = {name for name, table in tables.items() if table.last_change == noted["table"].get(name)}
        for name in as_noted if is_state_ours and noted_shape == shape(ALL_TABLES) else ():
            tables[name].missing = []
        digests: dict[str, dict[str, str | None]] = {}
        for group in GROUPS:
            known = noted[group.kind] if is_state_ours else {}
            if not (is_state_ours and as_noted.issuperset(table.name for table in group.tables)):
                existing = (tables[table.name] for table in group.tables if table.name in tables)
                present = {item for table in existing for item in table.items(group.item)}
                known = {item: _STALE if item in known else None for item in known.keys() | present}
            digests[group.kind] = known
        is_whole = len(tables) == len(ALL_TABLES) and not any(table.missing for table in tables.values())
        return tables, Loaded(dataset_id, digests, is_outdated=not is_whole or noted_shape != shape(ALL_TABLES))

    def _open(self, table: Table) -> "_Table | None":
        """The table as it is now; None if it does not exist."""
        url = f"{self.where}/{table.name}"
        log = DeltaLog(url, self._options)
        if log.version >= 0:
            return _Table(log, table)
        # Such as those of a dataset, whose readers would read our rows, too.
        if any(file.base_name != "_delta_log" for file in files_below(url, "", self._options)):
            if any(DeltaTable.is_deltatable(f"{self.where}/{other.name}", self._options) for other in ALL_TABLES):
                raise DestinationError(f"the Delta log of {url} is gone. Remove the table, and run metrics-etl load")
            raise DestinationError(f"{url} holds files that are not a Delta table. Name another [warehouse] url")
        return None

    def _opened(self, table: Table) -> "_Table":
        """The table as it is now; DestinationError if it does not exist."""
        if opened := self._open(table):
            return opened
        raise DestinationError(f"{self.where} has no table {table.name}. Run metrics-etl load")

    def _complete(self, tables: "dict[str, _Table]", changing: set[str], load_id: str) -> None:
        """Create missing tables, add missing columns, and replace what was changed in ``tables``.

        Raises:
            DestinationError: a table that is ``changing`` takes no changes; or as ``Warehouse.replace``.
        """
        self._refuse_append_only(tables, changing & tables.keys())
        for table in ALL_TABLES:
            opened = tables.get(table.name)
            if opened is None:
                self._create(table)
            elif opened.missing:
                opened.add_columns(load_id)
            else:
                continue
            tables[table.name] = self._opened(table)

    def _refuse_append_only(self, tables: "dict[str, _Table]", names: Iterable[str]) -> None:
        """Raise DestinationError if a table of these names takes no changes."""
        for name in names:
            if tables[name].is_append_only:
                raise DestinationError(
                    f"the table {name} at {self.where} is append-only. Set delta.appendOnly to false on each table, "
                    "then run metrics-etl load"
                )

    def _create(self, table: Table) -> None:
        """Create the table, partitioned by the columns that stand in the dataset's paths."""
        DeltaTable.create(
            f"{self.where}/{table.name}",
            _delta_schema(table, columns_of(table)),
            partition_by=[column.name for column in table.partitions],
            description=f"One row per {table.one_row_per}.",
            configuration={
                "delta.dataSkippingStatsColumns": ",".join(needed_of(table) & {*table.names}),
                "delta.checkpointInterval": _CHECKPOINT_COMMITS,
            },
            storage_options=self._options,
        )

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raise an error of the library as one line that names the warehouse."""
        try:
            yield
        except CommitFailedError as exc:
            text = f"{self.where}: someone else wrote at the same time ({exc}). Load again"
            raise WarehouseUnavailableError(text) from exc
        except (DeltaError, OSError, pa.ArrowException) as exc:
            meaning = refusal(str(exc)) or (is_denied(str(exc)) and _ALLOW)
            raise failure(self.where, meaning or _DECORATION.sub(" ", str(exc))) from exc


class _Table:
    """A Delta table as it was when its log was listed. The library opens it only for what the log's end cannot tell."""

    def __init__(self, log: DeltaLog, table: Table) -> None:
        self.name = table.name
        self._table = table
        self._log = log
        self._partitions = [column.name for column in table.partitions]
        self.last_change = log.last_change
        """The id of the load that changed the table last; a text of its own for each change by another writer."""

    @cached_property
    def _handle(self) -> DeltaTable:
        """The table in the library; DestinationError if a column has another type."""
        handle = DeltaTable(self._log.url, version=self._log.version, storage_options=self._log.options)
        if "deletionVectors" in (handle.protocol().reader_features or ()):
            raise DestinationError(
                f"metrics-etl cannot read deletion vectors, which someone turned on for {self._log.url}. Either run "
                f"ALTER TABLE {self.name} DROP FEATURE deletionVectors in Spark, or remove metrics-etl's tables. Then, "
                "run metrics-etl load"
            )
        types = {field.name: field.type for field in handle.schema().fields}
        for declared in _delta_schema(self._table, columns_of(self._table)).fields:
            if types.get(declared.name, declared.type) != declared.type:
                raise DestinationError(
                    f"{self._log.url}: the column {self.name}.{declared.name} has the type {types[declared.name].type} "
                    f"instead of {declared.type.type}. Change the type, or remove metrics-etl's tables and load again"
                )
        return handle

    @cached_property
    def missing(self) -> list[Column]:
        """The columns that the table does not have; the table of what was loaded gets them when it is written."""
        names = {field.name for field in self._handle.schema().fields}
        return [column for column in columns_of(self._table) if column.name not in names and self.name != STATE]

    @property
    def is_append_only(self) -> bool:
        """Whether the table takes no changes of rows."""
        return bool(self._handle.metadata().configuration.get("delta.appendOnly") == "true")

    @cached_property
    def places(self) -> set[Place]:
        """The values of the partition columns that occur."""
        return {tuple(place[name] for name in self._partitions) for place in self._handle.partitions()}

    def items(self, item: str) -> set[str]:
        """The values of the column ``item``."""
        return {*self._dataset.to_table(columns=[item])[item].unique().to_pylist()}

    def rows(self, place: Place | None = None) -> pa.Table:
        """All rows, or those of one place, with the columns of ``tables.columns_of``."""
        where = [(name, [str(value)]) for name, value in zip(self._partitions, place or (), strict=False)]
        rows = None if place else self._log.rows()
        if rows is None:
            rows = self._dataset.to_table(filter=_is_at(where))
        return _with_columns(rows, arrow_schema_of(self._table))

    def add_columns(self, load_id: str) -> None:
        """Add the columns that are missing. Afterwards, the table must be opened again."""
        fields = list(_delta_schema(self._table, self.missing).fields)
        self._handle.alter.add_columns(fields, commit_properties=_of_load(load_id))

    def replace(
        self, item: str, removed: Collection[str], places: Collection[Place], arriving: Iterable[pa.Table], load_id: str
    ) -> bool:
        """Replace the rows of the removed items by those that arrive, in one commit; say whether anything changed.

        Rewrites the partitions of the removed items and those of ``places``, each as one file, and no others.

        Args:
            item: The column that holds ids of items.
            removed: The items whose rows are left out.
            places: The partitions of the rows that arrive.
            arriving: Those rows, in pieces.
            load_id: Noted in the commit.
        """
        if not (removed or places):
            return False
        # Not self._dataset, which would keep the footer of each file in memory.
        dataset = self._handle.to_pyarrow_dataset()
        ids = pa.array(sorted(removed), pa.string())
        touched = {*places}
        if removed:
            rows = dataset.to_table(columns=[*{item, *self._partitions}])
            emptied = rows.filter(pc.is_in(rows[item], ids)).group_by(self._partitions).aggregate([])
            touched |= {tuple(place[name] for name in self._partitions) for place in emptied.to_pylist()}
        if touched:
            where = [*zip(self._partitions, map(set, zip(*touched, strict=True)), strict=True)]
            if touched >= self.places:
                where = []  # the whole table
            # The filter names partitions alone: Arrow cannot compare statistics of texts that other writers store as
            # views.
            batches = dataset.scanner(
                filter=_is_at(where), batch_size=_BATCH_ROWS, batch_readahead=1, fragment_readahead=1, use_threads=False
            ).to_batches()
            stored = (pa.Table.from_batches([batch]) for batch in batches)
            kept = (rows.filter(pc.invert(pc.is_in(rows[item], ids))) for rows in stored)
            predicate = " AND ".join(f"{name} IN ({', '.join(map(sql_quoted, sorted(keys)))})" for name, keys in where)
            try:
                self.overwrite(chain(kept, arriving), load_id, predicate or None)
            finally:
                with suppress(OSError, pa.ArrowException):
                    deque(batches, maxlen=0)  # read to the end: a process that ends while Arrow reads ahead may hang
        return bool(touched)

    def overwrite(self, rows: Iterable[pa.Table], load_id: str, predicate: str | None = None) -> None:
        """Replace the rows for which the predicate is true, or all rows, by these, in one commit."""
        pieces = chain([self._schema.empty_table()], (_with_columns(piece, self._schema) for piece in rows))
        with streamed(pieces) as reader:
            write_deltalake(
                self._handle,
                reader,
                mode="overwrite",
                predicate=predicate,
                schema_mode="overwrite" if self.name == STATE else None,
                writer_properties=_WRITER,
                commit_properties=_of_load(load_id),
            )

    @cached_property
    def _dataset(self) -> ds.Dataset:
        return self._handle.to_pyarrow_dataset()

    @cached_property
    def _schema(self) -> pa.Schema:
        """The table's own columns and types, with columns that others have added, except to the state table."""
        is_state = self.name == STATE
        declared = _delta_schema(self._table, columns_of(self._table)) if is_state else self._handle.schema()
        return pa.schema(declared.to_arrow())


def _is_at(where: Iterable[tuple[str, Collection[str]]]) -> pc.Expression | None:
    """Whether a row has, in each of these columns, one of the column's values; None if there are no columns."""
    conditions = [pc.field(name).isin(sorted(values)) for name, values in where]
    return reduce(and_, conditions) if conditions else None


def _of_load(load_id: str) -> CommitProperties:
    """A commit of this load, which fails if another writer has committed since the table was opened."""
    return CommitProperties(custom_metadata={LOAD_ID: load_id}, max_commit_retries=0)


def _delta_schema(table: Table, columns: Iterable[Column]) -> Schema:
    """These columns of the table, with their comments, as Delta declares them."""
    needed = needed_of(table)
    fields = (
        pa.field(column.name, column.type, nullable=column.name not in needed, metadata={"comment": comment(column)})
        for column in columns
    )
    return Schema.from_arrow(pa.schema(fields))


def _with_columns(rows: pa.Table, declared: pa.Schema) -> pa.Table:
    """The rows with exactly the declared columns; one that they lack is null."""
    names = {*rows.column_names}
    columns = [rows[field.name] if field.name in names else pa.nulls(len(rows), field.type) for field in declared]
    return pa.table(columns, schema=declared)


def connect(url: str, _namespace: str, _on_wait: Callable[[], None] = do_nothing) -> DeltaWarehouse:
    """The tables below ``delta:///folder`` or ``delta+s3://bucket/prefix``.

    Credentials come from where every client of the bucket's provider finds them: the environment, a profile, the
    machine's role.
    """
    return DeltaWarehouse(url.removeprefix("delta://").removeprefix("delta+").rstrip("/"))
