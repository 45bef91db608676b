"""A warehouse that speaks SQL: the order in which the statements of a load become one transaction.

What an engine says differently stands in its ``Dialect``, what its driver does in its ``Session``.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import DestinationError
from etl.load.drivers import not_ours
from etl.load.interface import Loaded, LoadStep
from etl.load.statements import DATA, Dialect, Statements
from etl.load.tables import (
    ALL_TABLES,
    STATE,
    STATE_TABLE,
    VIEWS,
    Group,
    Place,
    arrow_schema_of,
    columns_of,
    shape,
    sql_quoted,
)
from etl.model.schema import Table
from etl.model.wording import first_few

_GONE, _ARRIVED = "metrics_etl_gone", "metrics_etl_arrived"
_NAMES = (*(table.name for table in ALL_TABLES), *(view.name for view in VIEWS))


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
        """The rows as the engine can hold them: as they are, unless it says otherwise."""
        return rows

    @property
    def notices(self) -> list[str]:
        """What ``as_stored`` had to change, for people."""
        return []


class SqlWarehouse:
    """``Warehouse`` on an SQL session."""

    def __init__(self, session: Session, dialect: Dialect, namespace: str) -> None:
        self._session = session
        self._dialect = dialect
        self._namespace = namespace
        self._sql = Statements(dialect, namespace)
        self.where = f"{session.where}, schema {namespace}"
        self.as_stored, self.close = session.as_stored, session.close

    def loaded(self) -> Loaded:
        """What is there, by one query; where that fails, the tables are looked at to say why."""
        with self._reading():
            try:
                rows = self._session.query(self._sql.loaded_if_whole()).to_pylist()
                existing = _columns([*row["item"].split("."), row["digest"]] for row in rows if row["kind"] == "column")
                lacking = self._lacking(existing)
            except DestinationError as failure:
                try:
                    self._session.rollback()
                    existing = self._existing()
                except DestinationError:
                    raise failure from None
                if not (lacking := self._lacking(existing)):
                    raise
                rows = self._session.query(self._sql.loaded(existing)).to_pylist() if existing else []
        digests = _digests(rows)
        altered_views = _altered_views(digests)
        dataset_id, noted = next(iter(digests.pop("dataset", {}).items()), (None, None))
        # Columns of a newer version are null in the dataset, too; others had values. And what was never counted may lack rows.
        if any("." in name for name in lacking) and (noted == shape(ALL_TABLES) or f"{STATE}.row_count" in lacking):
            digests = {kind: dict.fromkeys(items, "") for kind, items in digests.items()}
        is_outdated = bool(lacking or altered_views) or noted != shape(ALL_TABLES)
        return Loaded(dataset_id, digests, is_outdated=is_outdated, altered_views=altered_views)

    def replace(self, step: LoadStep) -> list[str]:
        """One transaction: tables, deletions, arrivals, and what was loaded."""
        session = self._session
        with self._transaction():
            self._prepare()
            self._execute(self._sql.begin(_GONE, _ARRIVED))
            self._fill(_GONE, ((kind, item, "", 0) for kind, items in step.removed.items() for item in items))
            self._note_dataset(step.dataset_id)
            if any(step.removed.values()):
                self._execute(self._sql.delete(_GONE))
            sent = Counter[tuple[str, str]]()
            for group, table in DATA:
                session.append(self._namespace, table.name, _counted(step.rows(table), group, sent))
            arrived = ((kind, item, digest) for kind, items in step.arriving.items() for item, digest in items.items())
            self._fill(_ARRIVED, ((kind, item, digest, sent[kind, item]) for kind, item, digest in arrived))
            self._execute([self._sql.note(_ARRIVED)])
            if partly := [f"{row['kind']} {row['item']}" for row in session.query(self._sql.not_noted()).to_pylist()]:
                raise DestinationError(
                    f"{self.where}: more or fewer rows arrived than were sent, for {first_few(partly)}: "
                    "drop the trigger or rule that adds or removes rows in these tables, and load again"
                )
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

    def _fill(self, name: str, items: Iterable[tuple[str, str, str, int]]) -> None:
        """Items of one of the temporary tables."""
        if found := [*items]:
            columns = [pa.array(column) for column in zip(*found, strict=True)]
            self._session.append("", name, [pa.table(columns, schema=arrow_schema_of(STATE_TABLE))])

    def _prepare(self) -> None:
        """Make or complete the tables and views."""
        existing = self._existing()
        lacking = self._lacking(existing)
        schema = [] if existing else self._sql.create_schema()
        # Who owns a schema may not be allowed to make one, not even if it is there.
        if schema and not len(self._session.query(self._dialect.schemas.format(schema=sql_quoted(self._namespace)))):
            self._make(f"schema {self._namespace}", schema)
        is_made = False
        for table in ALL_TABLES:
            if names := [name for name in lacking if name.partition(".")[0] == table.name]:
                columns = existing.get(table.name)
                made = [self._sql.create(table)] if columns is None else self._sql.add_columns(table, columns)
                self._make(first_few(names), made)
                is_made = True
        for table in ALL_TABLES if is_made else ():
            self._execute(self._sql.describe(table))
        altered = _altered_views(_digests(self._session.query(self._sql.views()).to_pylist()))
        for view in VIEWS:
            known = view.columns.keys() | existing.get(view.table.name, {}).keys()
            shown = [name for name in existing.get(view.name, {}) if name in known]
            if view.columns.keys() - {*shown} or view.name in altered or is_made:
                fix = f": if someone replaced it, drop {self._namespace}.{view.name}, then run metrics-etl load"
                self._make(view.name, self._sql.create_view(view, shown), fix)

    def _make(self, what: str, statements: Iterable[str], fix: str = "") -> None:
        try:
            self._execute(statements)
        except DestinationError as failure:
            raise DestinationError(f"{failure}: cannot create {what}{fix}") from failure

    def _note_dataset(self, dataset_id: str) -> None:
        self._execute([f"DELETE FROM {self._sql.name(STATE)} WHERE kind = 'dataset'", *self._sql.note_views()])
        noted = {"kind": ["dataset"], "item": [dataset_id], "digest": [shape(ALL_TABLES)], "row_count": [None]}
        self._session.append(self._namespace, STATE, [pa.table(noted, schema=arrow_schema_of(STATE_TABLE))])

    def _existing(self) -> dict[str, dict[str, str]]:
        """The columns of what has the name of a table or view of ours, with their types."""
        rows = self._session.query(self._dialect.columns.format(schema=sql_quoted(self._namespace))).to_pylist()
        return _columns(row.values() for row in rows)

    def _lacking(self, existing: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Which tables, views and columns are missing. Raises DestinationError for what is not ours, or of another type."""
        if existing and STATE not in existing:
            raise not_ours(self.where, next(iter(existing)))
        lacking = [name for name in _NAMES if name not in existing]
        for table in ALL_TABLES:
            for column in columns_of(table) if table.name in existing else ():
                type_ = existing[table.name].get(column.name)
                if type_ is None:
                    lacking.append(f"{table.name}.{column.name}")
                elif not self._dialect.takes(column, type_):
                    raise DestinationError(
                        f"{self.where}: {table.name}.{column.name} is {type_}, expected {self._dialect.type_of(column)}: "
                        "give it that type, or drop the tables and load again"
                    )
        return lacking


def _columns(found: Iterable[Iterable[str]]) -> dict[str, dict[str, str]]:
    """By table or view of ours its columns with their types, of such triples."""
    columns: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for table, column, type_ in found:
        if table in _NAMES:
            columns[table][column] = type_
    return dict(columns)


def _digests(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str | None]]:
    digests: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
    for row in rows:
        if row["kind"] != "column":
            digests[row["kind"]][row["item"]] = row["digest"]
    return dict(digests)


def _altered_views(digests: dict[str, dict[str, str | None]]) -> tuple[str, ...]:
    """Those that are not defined as was noted, if anything was; takes both out of the digests."""
    noted, defined = digests.pop("view", {}), digests.pop("defined", {})
    return tuple(view.name for view in VIEWS if view.name in noted and noted[view.name] != defined.get(view.name))


def _counted(pieces: Iterable[pa.Table], group: Group, sent: Counter[tuple[str, str]]) -> Iterator[pa.Table]:
    """The pieces, whose rows are counted by item."""
    for piece in pieces:
        for each in pc.value_counts(piece[group.item]).to_pylist():
            sent[group.kind, each["values"]] += each["counts"]
        yield piece
