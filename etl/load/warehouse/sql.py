"""A warehouse that speaks SQL: the order in which the statements of a load become one transaction.

What an engine says differently stands in its ``Dialect``, what its driver does in its ``Session``.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol

import pyarrow as pa

from etl.errors import DestinationError
from etl.load.warehouse.statements import DATA, Dialect, Statements
from etl.load.warehouse.tables import (
    ALL_TABLES,
    STATE,
    STATE_TABLE,
    VIEWS,
    Place,
    arrow_schema_of,
    columns_of,
    shape,
    sql_quoted,
)
from etl.load.warehouse.target import Loaded, LoadStep, not_ours
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
        """What ``as_stored`` had to change, for people."""


class SqlWarehouse:
    """``Warehouse`` on an SQL session."""

    def __init__(self, session: Session, dialect: Dialect, namespace: str) -> None:
        self._session = session
        self._dialect = dialect
        self._namespace = namespace
        self._sql = Statements(dialect, namespace)
        self.where = f"{session.where}, schema {namespace}"

    def loaded(self) -> Loaded:
        """What is there, by one query; where that fails, the tables are looked at to say why."""
        is_lacking = False
        with self._reading():
            try:
                rows = self._session.query(self._sql.loaded_if_whole()).to_pylist()
            except DestinationError as failure:
                try:
                    self._session.rollback()
                    existing = self._existing()
                except DestinationError:
                    raise failure from None
                if not (is_lacking := self._is_lacking(existing)):
                    raise
                rows = self._session.query(self._sql.loaded(existing)).to_pylist() if existing else []
        digests: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
        for row in rows:
            digests[row["kind"]][row["item"]] = row["digest"]
        dataset_id, noted = next(iter(digests.pop("dataset", {}).items()), (None, None))
        return Loaded(dataset_id, digests, is_outdated=is_lacking or noted != shape(ALL_TABLES))

    def replace(self, step: LoadStep) -> list[str]:
        """One transaction: tables, deletions, arrivals, and what was loaded; once for a connection, which ends temporary tables."""
        session = self._session
        with self._transaction():
            late = self._prepare()
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

    def places(self, table: Table) -> set[Place]:
        """By one query."""
        names = self._sql.names(table.partitions)
        with self._reading():
            if (columns := self._existing().get(table.name)) is None:
                raise DestinationError(f"{self.where} has no table {table.name}: run metrics-etl load")
            if lacking := [each.name for each in columns_of(table) if each.name not in columns]:
                raise DestinationError(f"{self.where}: {table.name} has no {first_few(lacking)}: run metrics-etl load")
            found = self._session.query(f"SELECT DISTINCT {names} FROM {self._sql.name(table.name)}")
        return {tuple(row.values()) for row in found.to_pylist()}

    def rows(self, table: Table, place: Place) -> pa.Table:
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

    def _prepare(self) -> list[str]:
        """Make or complete the tables and views; returns the statements that are left for when the rows are there.

        Raises:
            DestinationError: a table is somebody else's, or has a column of another type.
        """
        existing = self._existing()
        self._is_lacking(existing)
        schema = [] if existing else self._sql.create_schema()
        if schema and not self._has_schema():
            self._execute(schema)
        added: list[str] = []
        for table in ALL_TABLES:
            if table.name in existing:
                added += self._sql.add_columns(table, existing[table.name])
            else:
                self._execute(self._sql.create(table))
        if added:
            self._execute([self._sql.distrust(existing), *added])
        for view in VIEWS:
            shown = existing.get(view.name, {})
            if view.columns.keys() - shown.keys() or view.reads - existing.keys() or added:
                self._execute(self._sql.create_view(view, shown))
        return [self._sql.note_again()] if added else []

    def _has_schema(self) -> bool:
        """Who owns a schema may not be allowed to make one, not even if it is there."""
        return len(self._session.query(self._dialect.schemas.format(schema=sql_quoted(self._namespace)))) > 0

    def _note_dataset(self, dataset_id: str) -> None:
        self._execute([f"DELETE FROM {self._sql.name(STATE)} WHERE kind = 'dataset'"])
        noted = {"kind": ["dataset"], "item": [dataset_id], "digest": [shape(ALL_TABLES)], "checksum": [None]}
        self._session.append(self._namespace, STATE, [pa.table(noted, schema=arrow_schema_of(STATE_TABLE))])

    def _existing(self) -> dict[str, dict[str, str]]:
        """The columns of what has the name of a table or view of ours, with their types."""
        names = {*(view.name for view in VIEWS), *(table.name for table in ALL_TABLES)}
        existing: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for row in self._session.query(self._dialect.columns.format(schema=sql_quoted(self._namespace))).to_pylist():
            if row["table_name"] in names:
                existing[row["table_name"]][row["column_name"]] = row["data_type"]
        return dict(existing)

    def _is_lacking(self, existing: Mapping[str, Mapping[str, str]]) -> bool:
        """Whether tables, views or columns are missing. Raises DestinationError for what is not ours, or of another type."""
        if existing and STATE not in existing:
            raise not_ours(self.where, next(iter(existing)))
        is_lacking = any(view.name not in existing for view in VIEWS)
        for table in ALL_TABLES:
            columns = existing.get(table.name, {})
            for column in columns_of(table):
                type_ = columns.get(column.name)
                is_lacking |= type_ is None
                if type_ not in (None, self._dialect.type_of(column)):
                    raise DestinationError(
                        f"{self.where}: {table.name}.{column.name} is {type_}, expected {self._dialect.type_of(column)}: "
                        "give it that type, or drop the tables and load again"
                    )
        return is_lacking
