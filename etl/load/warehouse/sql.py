"""A warehouse that speaks SQL: the order in which the statements of a load become one transaction.

What an engine says differently stands in its ``Dialect``, what its driver does in its ``Session``.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import pyarrow as pa

from etl.errors import DestinationError
from etl.load.warehouse.dialect import sql_quoted
from etl.load.warehouse.statements import ANY_DATASET, DATA, MARK, Dialect, Statements
from etl.load.warehouse.tables import (
    ALL_TABLES,
    STATE,
    STATE_TABLE,
    VIEWS,
    arrow_schema_of,
    columns_of,
    shape,
)
from etl.load.warehouse.target import Loaded, LoadStep, another_dataset
from etl.model.schema import STRING, Table
from etl.model.wording import first_few

_GONE, _ARRIVED = "metrics_etl_gone", "metrics_etl_arrived"


class Session(Protocol):
    """One connection, in a transaction from the first statement on. Errors of the driver become DestinationErrors."""

    where: str

    def query(self, sql: str) -> pa.Table:
        """The rows of a SELECT."""

    def execute(self, sql: str) -> None:
        """Run a statement."""

    def append(self, namespace: str, table: str, pieces: Iterable[pa.Table]) -> None:
        """Add the rows in bulk, columns by name, no more than a piece in memory; an empty namespace is that of temporary tables."""

    def commit(self) -> None:
        """End the transaction; what it did stands."""

    def rollback(self) -> None:
        """End the transaction; what it did is undone."""

    def close(self) -> None:
        """End the connection."""

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """The rows as the engine can hold them."""

    @property
    def notices(self) -> list[str]:
        """What ``as_stored`` had to step."""


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


class SqlWarehouse:
    """``Warehouse`` on an SQL session."""

    def __init__(self, session: Session, dialect: Dialect, namespace: str) -> None:
        self._session = session
        self._dialect = dialect
        self._namespace = namespace
        self._sql = Statements(dialect, namespace)
        self.where = f"{session.where}, schema {namespace}"

    def loaded(self, *, would_load: bool = False) -> Loaded:
        """What is there, by one query; where that fails, the tables are looked at to say why."""
        is_lacking = False
        with self._reading():
            if would_load:
                self._refuse_foreign(self._existing())
                self._require_rights()
            try:
                rows = self._session.query(self._sql.loaded_if_whole()).to_pylist()
            except DestinationError as failure:
                try:
                    self._session.rollback()
                    existing = self._existing()
                except DestinationError:
                    raise failure from None
                if not (is_lacking := self._refuse_foreign(existing)):
                    raise
                query = self._sql.loaded_of({name: found.columns for name, found in existing.items()})
                rows = self._session.query(query).to_pylist() if query else []
        digests: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
        for row in rows:
            digests[row["kind"]][row["item"]] = row.get("digest")
        known = [*digests.pop("dataset", {}).items()]
        dataset_id, is_same = (known[0][0], known[0][1] == shape(ALL_TABLES)) if len(known) == 1 else (None, False)
        return Loaded(dataset_id, digests, is_outdated=is_lacking or not is_same)

    def replace(self, step: LoadStep) -> list[str]:
        """One transaction: tables, deletions, arrivals, and what was loaded; once for a connection, which ends temporary tables."""
        session = self._session
        with self._transaction():
            late = self._prepare(step.dataset_id)
            self._execute(self._sql.begin(_GONE, _ARRIVED))
            self._fill(_GONE, {kind: dict.fromkeys(items, "") for kind, items in step.removed.items()})
            self._fill(_ARRIVED, step.arriving)
            self._note_dataset(step.dataset_id)
            if any(step.removed.values()):
                self._execute(self._sql.delete(_GONE))
            for _, table in DATA:
                session.append(self._namespace, table.name, step.rows(table))
            self._execute([*late, self._sql.note(_ARRIVED)])
        return session.notices

    def places(self, table: Table) -> set[tuple[str | None, ...]]:
        """By one query."""
        names = self._sql.names(table.partitions)
        with self._reading():
            if (existing := self._existing().get(table.name)) is None:
                raise DestinationError(f"{self.where} has no table {table.name}: run metrics-etl load")
            if lacking := [each.name for each in columns_of(table) if each.name not in existing.columns]:
                raise DestinationError(f"{self.where}: {table.name} has no {first_few(lacking)}: run metrics-etl load")
            found = self._session.query(f"SELECT DISTINCT {names} FROM {self._sql.name(table.name)}")
        return {tuple(row.values()) for row in found.to_pylist()}

    def rows(self, table: Table, place: tuple[str | None, ...]) -> pa.Table:
        """By one query."""
        names = self._sql.names(columns_of(table))
        is_there = " AND ".join(
            f"{self._dialect.quoted(column.name)} "
            + ("IS NULL" if value is None else f"= {self._dialect.literal(value)}")
            for column, value in zip(table.partitions, place, strict=True)
        )
        with self._reading():
            found = self._session.query(f"SELECT {names} FROM {self._sql.name(table.name)} WHERE {is_there}")
        return found.cast(arrow_schema_of(table)).replace_schema_metadata()

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """See ``Session``."""
        return self._session.as_stored(rows)

    def close(self) -> None:
        """End the connection."""
        self._session.close()

    def _execute(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._session.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            yield
            self._session.commit()
        except BaseException:
            with suppress(DestinationError):  # the connection may be gone: what is told is why
                self._session.rollback()
            raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        finally:
            with suppress(DestinationError):
                self._session.rollback()

    def _fill(self, name: str, items: Mapping[str, Mapping[str, str]]) -> None:
        """Items of one of the temporary tables."""
        found = [(kind, item, digest) for kind, of_kind in items.items() for item, digest in of_kind.items()]
        if found:
            columns = (pa.array(column, STRING) for column in zip(*found, strict=True))
            self._session.append("", name, [pa.table(dict(zip(("kind", "item", "digest"), columns, strict=True)))])

    def _prepare(self, dataset_id: str) -> list[str]:
        """Make or complete the tables and views; returns the statements that are left for when the rows are there.

        Raises:
            DestinationError: a table is another dataset's or somebody else's, or has a column of another type.
        """
        existing = self._existing()
        self._refuse_foreign(existing, dataset_id)
        schema = [] if existing else self._sql.create_schema()
        if schema and not self._has_schema():
            self._execute(schema)
        late: list[str] = []
        added: list[str] = []
        for table in ALL_TABLES:
            if found := existing.get(table.name):
                added += self._sql.add_columns(table, found.columns)
            else:
                self._execute(self._sql.create(table, dataset_id))
                constraints = self._dialect.constraints(self._sql.name(table.name), table)
                if table is STATE_TABLE:  # rows go from it at once, for which a server may need its key
                    self._execute(constraints)
                else:
                    late += constraints
        if STATE in existing and any(table.name not in existing for _, table in DATA):
            # What was loaded is unknown then, see ``loaded_of``: all of it arrives.
            self._execute([f"DELETE FROM {self._sql.name(STATE)} WHERE kind <> 'dataset'"])
        if added:
            as_they_are = {name: found.columns for name, found in existing.items()}
            self._execute([self._sql.distrust(as_they_are), *added])
            late.append(self._sql.note_again())
        astray = self._views_astray()
        for view in VIEWS:
            shown = existing[view.name].columns if view.name in existing else {}
            if view.columns.keys() - shown.keys() or view.reads - existing.keys() or added or view.name in astray:
                try:
                    self._execute(self._sql.create_view(view, shown, dataset_id))
                except DestinationError as error:
                    raise DestinationError(
                        f"{error}; drop the view {view.name}, or make it as metrics-etl schema --ddl does, and load again"
                    ) from error
        return late

    def _views_astray(self) -> set[str]:
        """Those that read what was renamed, and not what has the name now; what they read beside that is for whoever changed it."""
        sql = self._dialect.astray.format(schema=sql_quoted(self._namespace))
        return {*self._session.query(sql)["view_name"].to_pylist()} if sql else set()

    def _has_schema(self) -> bool:
        """Who owns a schema may not be allowed to make one, not even if it is there."""
        return len(self._session.query(self._dialect.schemas.format(schema=sql_quoted(self._namespace)))) > 0

    def _require_rights(self) -> None:
        """Raise DestinationError if the server says that a load would not be allowed to write."""
        sql = self._dialect.denied.format(schema=sql_quoted(self._namespace))
        if sql and (denied := self._session.query(sql)["denied"].to_pylist()):
            raise DestinationError(f"{self.where}: a load needs more rights than this user has: {', '.join(denied)}")

    def _note_dataset(self, dataset_id: str) -> None:
        self._execute([f"DELETE FROM {self._sql.name(STATE)} WHERE kind = 'dataset'"])
        self._session.append(
            self._namespace,
            STATE,
            [
                pa.table(
                    {"kind": ["dataset"], "item": [dataset_id], "digest": [shape(ALL_TABLES)], "checksum": [None]},
                    schema=arrow_schema_of(STATE_TABLE),
                )
            ],
        )

    def _existing(self) -> dict[str, "_Existing"]:
        """The tables and views of ours, by name, as far as something of their names is there."""
        columns, marks = (
            self._session.query(sql.format(schema=sql_quoted(self._namespace)))
            for sql in (self._dialect.columns, self._dialect.comments)
        )
        comments = {row["table_name"]: row["comment"] or "" for row in marks.to_pylist()}
        names = {*(view.name for view in VIEWS), *(table.name for table in ALL_TABLES)}
        existing: dict[str, _Existing] = {}
        for row in columns.to_pylist():
            if (name := row["table_name"]) in names:
                found = existing.setdefault(
                    name, _Existing({}, comments.get(name, "").partition(MARK)[2].partition(".")[0])
                )
                found.columns[row["column_name"]] = row["data_type"]
        return existing

    def _refuse_foreign(self, existing: Mapping[str, "_Existing"], dataset_id: str | None = None) -> bool:
        """Raise DestinationError for what is not this dataset's; returns whether tables or columns are missing."""
        for name, found in existing.items():
            if not found.dataset_id:
                raise DestinationError(
                    f"{self.where}: {name} was not made by metrics-etl: name another [warehouse] schema, or drop it; if it was, "
                    f'its comment must say "{MARK}{ANY_DATASET}."'
                )
            if dataset_id not in (None, found.dataset_id) and found.dataset_id != ANY_DATASET:
                raise another_dataset(self.where, found.dataset_id, dataset_id)
        is_lacking = any(view.name not in existing for view in VIEWS)
        for table in ALL_TABLES:
            columns = existing[table.name].columns if table.name in existing else {}
            for column in columns_of(table):
                type_ = columns.get(column.name)
                is_lacking |= type_ is None
                if type_ not in (None, self._dialect.type_of(column)):
                    raise DestinationError(
                        f"{self.where}: {table.name}.{column.name} is {type_}, expected {self._dialect.type_of(column)}: "
                        "give it that type, or drop the tables and load again"
                    )
        return is_lacking


@dataclass(frozen=True, slots=True)
class _Existing:
    """A table or view that is there: its columns with their types, and the dataset of its mark, empty without one."""

    columns: dict[str, str]
    dataset_id: str
