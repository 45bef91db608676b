"""A warehouse that speaks SQL: which statements a load runs, in which order, in one transaction.

The statements themselves stand in ``statements.py``. What an engine says differently is its ``Dialect``; what its
driver does differently is its ``Session``.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import DestinationError
from etl.load.drivers import not_ours
from etl.load.interface import Loaded, LoadStep, noted_digests
from etl.load.statements import DATA, Dialect, Statements, row_counts
from etl.load.tables import ALL_TABLES, STATE, STATE_TABLE, VIEWS, Group, Place, arrow_schema_of, columns_of, shape
from etl.load.texts import sql_quoted
from etl.model.schema import Table
from etl.model.wording import first_few

_GONE = "metrics_etl_gone"
"""The temporary table of the items that are removed."""
_ARRIVED = "metrics_etl_arrived"
"""The temporary table of the items that arrived, each with its digest and with how many rows were sent."""
_NAMES = (*(table.name for table in ALL_TABLES), *(view.name for view in VIEWS))
"""The names of all tables and views."""


class Session(Protocol):
    """One connection to an engine, in a transaction from the first statement on. It raises DestinationErrors."""

    where: str
    """What messages call the database; without credentials."""

    def query(self, sql: str) -> pa.Table:
        """The rows of a SELECT; begins a transaction if none is open."""

    def execute(self, sql: str) -> None:
        """Run a statement; begins a transaction if none is open."""

    def append(self, namespace: str, table: str, pieces: Iterable[pa.Table]) -> None:
        """Add rows in bulk, at least one piece, columns by name; an empty namespace means a temporary table.

        One piece is in memory at a time.
        """

    def commit(self) -> None:
        """End the transaction and keep what it did."""

    def rollback(self) -> None:
        """End the transaction and undo what it did; nothing to do if none is open."""

    def close(self) -> None:
        """End the connection; an open transaction is undone."""

    def as_stored(self, rows: pa.Table) -> pa.Table:
        """The rows as the engine can hold them; as they are, unless the session overrides this."""
        return rows

    @property
    def notices(self) -> list[str]:
        """What ``as_stored`` has replaced so far, one line for people each."""
        return []


class SqlWarehouse:
    """``Warehouse`` on an SQL session: a load is one transaction."""

    def __init__(self, session: Session, dialect: Dialect, namespace: str) -> None:
        self._session = session
        self._dialect = dialect
        self._namespace = namespace
        self._sql = Statements(dialect, namespace)
        self.where = f"{session.where}, schema {namespace}"
        self.as_stored = session.as_stored
        self.close = session.close

    def loaded(self) -> Loaded:
        """See ``Warehouse``. Two queries: for the columns, then for what was loaded into them."""
        with self._reading():
            existing = self._existing()
            missing = self._missing(existing)
            rows = self._session.query(self._sql.loaded(existing)).to_pylist() if existing else []
        digests: dict[str, dict[str, str | None]] = noted_digests(rows)
        altered_views = _altered_views(digests)
        dataset_id, noted_shape = next(iter(digests.pop("dataset", {}).items()), (None, None))
        is_new_shape = noted_shape != shape(ALL_TABLES)
        # A column that this version adds is null in the dataset, too, so no row is outdated. A column that somebody
        # dropped had values; and without row counts, rows may be missing unnoticed.
        is_column_missing = any("." in name for name in missing)
        if is_column_missing and (not is_new_shape or f"{STATE}.row_counts" in missing):
            digests = {kind: dict.fromkeys(items, "") for kind, items in digests.items()}
        is_outdated = bool(missing or altered_views) or is_new_shape
        return Loaded(dataset_id, digests, is_outdated=is_outdated, altered_views=altered_views)

    def replace(self, step: LoadStep, *, is_rehearsal: bool = False) -> list[str]:
        """See ``Warehouse``. One transaction; where DDL would end it, the tables are made before it begins."""
        session = self._session
        with self._transaction(is_undone=is_rehearsal):
            if is_rehearsal:
                self._execute(self._dialect.rehearsal or ())
            self._prepare()
            self._execute(self._sql.begin(_GONE, _ARRIVED))
            self._fill(_GONE, ((kind, item, "", "") for kind, items in step.removed.items() for item in items))
            self._note_dataset(step)
            if any(step.removed.values()):
                self._execute(self._sql.delete(_GONE))
            sent = defaultdict[tuple[str, str], Counter[str]](Counter)
            for group, table in DATA:
                pieces = _counted(step.rows(table), group, table, sent)
                if (first := next(pieces, None)) is not None:
                    session.append(self._namespace, table.name, chain([first], pieces))
            arrived = ((kind, item, digest) for kind, items in step.arriving.items() for item, digest in items.items())
            self._fill(_ARRIVED, ((kind, item, digest, row_counts(sent[kind, item])) for kind, item, digest in arrived))
            self._execute([self._sql.note(_ARRIVED)])
            if incomplete := session.query(self._sql.not_noted()).to_pylist():
                items = first_few([f"{row['kind']} {row['item']}" for row in incomplete])
                raise DestinationError(
                    f"{self.where}: more or fewer rows arrived than were sent for {items}. "
                    "Drop the trigger or rule that adds or removes rows in the warehouse's tables, and load again"
                )
        return session.notices

    def rehearse(self, step: LoadStep) -> bool:
        """See ``Warehouse``. The transaction is rolled back; where DDL would end it, nothing is done."""
        if self._dialect.rehearsal is None:
            return False
        self.replace(step, is_rehearsal=True)
        return True

    def places(self, table: Table) -> set[Place]:
        """See ``Warehouse``. Two queries: for the columns, then for the places."""
        names = self._sql.names(table.partitions)
        with self._reading():
            columns = self._existing().get(table.name)
            if columns is None:
                raise DestinationError(f"{self.where} has no table {table.name}. Run metrics-etl load")
            if missing := [column.name for column in columns_of(table) if column.name not in columns]:
                raise DestinationError(
                    f"{self.where}: {table.name} has no column {first_few(missing)}. Run metrics-etl load"
                )
            places = self._session.query(f"SELECT DISTINCT {names} FROM {self._sql.name(table.name)}")
        return {tuple(row.values()) for row in places.to_pylist()}

    def rows(self, table: Table, place: Place) -> pa.Table:
        """See ``Warehouse``. One query."""
        names = self._sql.names(columns_of(table))
        is_there = " AND ".join(
            f"{self._dialect.quoted(column.name)} "
            + ("IS NULL" if value is None else f"= {self._dialect.literal(value)}")
            for column, value in zip(table.partitions, place, strict=True)
        )
        with self._reading():
            rows = self._session.query(f"SELECT {names} FROM {self._sql.name(table.name)} WHERE {is_there}")
        return rows.cast(arrow_schema_of(table)).replace_schema_metadata()

    def _execute(self, statements: Iterable[str]) -> None:
        """Run statements one after the other."""
        for statement in statements:
            self._session.execute(statement)

    @contextmanager
    def _transaction(self, *, is_undone: bool = False) -> Iterator[None]:
        """Commit at the end of the block, or roll back what an exception ended, or is to be undone."""
        try:
            yield
            (self._session.rollback if is_undone else self._session.commit)()
        except BaseException:
            with suppress(DestinationError):  # the connection may be lost; the first error says why
                self._session.rollback()
            raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """End the transaction of the block's queries, so that no lock outlives them."""
        try:
            yield
        finally:
            with suppress(DestinationError):
                self._session.rollback()

    def _fill(self, name: str, items: Iterable[tuple[str, str, str, str]]) -> None:
        """Add items, each with kind, item, digest and row counts, to a temporary table."""
        if rows := [*items]:
            columns = [pa.array(column) for column in zip(*rows, strict=True)]
            self._session.append("", name, [pa.table(columns, schema=arrow_schema_of(STATE_TABLE))])

    def _prepare(self) -> None:
        """Make or complete the schema, the tables and the views."""
        existing = self._existing()
        missing = self._missing(existing)
        schema = [] if existing else self._sql.create_schema()
        # The owner of a schema may not be allowed to create one, not even with IF NOT EXISTS.
        if schema and not len(self._session.query(self._dialect.schemas.format(schema=sql_quoted(self._namespace)))):
            self._make(f"schema {self._namespace}", schema)
        self._execute(self._sql.drop_unknown(existing.get(STATE, ())))
        is_made = False
        for table in ALL_TABLES:
            if names := [name for name in missing if name.partition(".")[0] == table.name]:
                columns = existing.get(table.name)
                made = [self._sql.create(table)] if columns is None else self._sql.add_columns(table, columns)
                self._make(first_few(names), made)
                is_made = True
        if is_made:
            for table in ALL_TABLES:
                self._execute(self._sql.describe(table))
        altered_views = _altered_views(noted_digests(self._session.query(self._sql.views()).to_pylist()))
        for view in VIEWS:
            known = view.columns.keys() | existing.get(view.table.name, {}).keys()
            kept = [name for name in existing.get(view.name, {}) if name in known]
            if view.columns.keys() - {*kept} or view.name in altered_views or is_made:
                fix = f". If someone replaced the view, drop {self._namespace}.{view.name}, then run metrics-etl load"
                self._make(view.name, self._sql.create_view(view, kept), fix if view.name in existing else "")

    def _make(self, what: str, statements: Iterable[str], fix: str = "") -> None:
        """Run statements that create something; an error says what could not be created, and the fix."""
        try:
            self._execute(statements)
        except DestinationError as error:
            raise type(error)(f"cannot create {what}: {error}{fix}") from error

    def _note_dataset(self, step: LoadStep) -> None:
        """Note the dataset, the shape of the tables, the times of the load, and how the views are defined."""
        gone = f"DELETE FROM {self._sql.name(STATE)} WHERE kind IN ('dataset', 'load')"
        self._execute([gone, *self._sql.note_views()])
        noted = [{"kind": "dataset", "item": step.dataset_id, "digest": shape(ALL_TABLES)}]
        noted += [{"kind": "load", "item": name, "digest": str(at)} for name, at in step.times.items() if at]
        self._session.append(self._namespace, STATE, [pa.Table.from_pylist(noted, schema=arrow_schema_of(STATE_TABLE))])

    def _existing(self) -> dict[str, dict[str, str]]:
        """The columns, with their types, of each table and view that has one of our names."""
        columns: defaultdict[str, dict[str, str]] = defaultdict(dict)
        rows = self._session.query(self._dialect.columns.format(schema=sql_quoted(self._namespace))).to_pylist()
        for table, column, type_ in (row.values() for row in rows):
            if table in _NAMES:
                columns[table][column] = type_
        return dict(columns)

    def _missing(self, existing: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Names of the tables, views and columns (``table.column``) that are missing.

        Raises:
            DestinationError: a table or view may be somebody else's, or a column has another type.
        """
        if existing and STATE not in existing:
            raise not_ours(self.where, next(iter(existing)))
        missing = [name for name in _NAMES if name not in existing]
        for table in ALL_TABLES:
            if table.name not in existing:
                continue
            for column in columns_of(table):
                type_ = existing[table.name].get(column.name)
                if type_ is None:
                    missing.append(f"{table.name}.{column.name}")
                elif not self._dialect.takes(column, type_):
                    raise DestinationError(
                        f"{self.where}: the column {table.name}.{column.name} has the type {type_} instead of "
                        f"{self._dialect.type_of(column)}. Change the type, or drop metrics-etl's tables and load again"
                    )
        return missing


def _altered_views(digests: dict[str, dict[str, str | None]]) -> tuple[str, ...]:
    """The views whose definition is not the one that was noted. Takes both definitions out of the digests."""
    noted = digests.pop("view", {})
    defined = digests.pop("defined", {})
    return tuple(view.name for view in VIEWS if view.name in noted and noted[view.name] != defined.get(view.name))


def _counted(
    pieces: Iterable[pa.Table], group: Group, table: Table, sent: defaultdict[tuple[str, str], Counter[str]]
) -> Iterator[pa.Table]:
    """The pieces as they are; adds their rows to the counts in ``sent``, by kind and item, and there by table."""
    for piece in pieces:
        for count in pc.value_counts(piece[group.item]).to_pylist():
            sent[group.kind, count["values"]][table.name] += count["counts"]
        yield piece
