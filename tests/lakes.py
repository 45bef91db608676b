"""Delta tables in a folder, with what tests do to them by hand; see ``tests.warehouses.Place``."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import CommitProperties, DeltaTable, Field, write_deltalake
from deltalake.schema import PrimitiveType

from etl.load import delta
from etl.load.delta import DeltaWarehouse, connect
from etl.load.delta_log import LOAD_ID
from etl.load.tables import ALL_TABLES, STATE
from etl.model import schema
from etl.model.arrow import with_column
from tests.warehouses import Died, Row, by_key, load_into


class Lake:
    """The tables below a folder."""

    has_views = is_atomic = has_keys = counts_rows = False
    can_rehearse = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url, self.namespace = f"delta://{folder}", ""

    def open(self) -> DeltaWarehouse:
        return connect(self.url, self.namespace)

    def close(self) -> None:
        pass

    def table(self, name: str = "calls") -> DeltaTable:
        return DeltaTable(self.folder / name)

    def versions(self) -> dict[str, int]:
        return {table.name: self.table(table.name).version() for table in ALL_TABLES}

    def files(self) -> int:
        return sum(path.is_file() for path in self.folder.rglob("*"))

    def rows(self, table: schema.Table) -> list[Row]:
        """As somebody else reads them."""
        return by_key(table, self.table(table.name).to_pyarrow_table().to_pylist())

    def delete(self, table: str, where: str = "TRUE") -> None:
        self.table(table).delete(where)

    def update(self, table: str, column: str, value: str, where: str = "TRUE") -> None:
        self.table(table).update(updates={column: value}, predicate=where)

    def copy(self, table: str, where: str = "TRUE", **changes: str | None) -> None:
        rows = self.table(table).to_pyarrow_table()
        if where != "TRUE":
            column, _, text = where.partition(" = ")
            rows = rows.filter(pc.equal(rows[column], text.strip("'")))
        for name, value in changes.items():
            number = rows.schema.get_field_index(name)
            rows = rows.set_column(number, name, pa.array([value] * len(rows), rows.schema.field(name).type))
        write_deltalake(self.table(table), rows, mode="append")

    def remove(self, table: str) -> None:
        shutil.rmtree(self.folder / table)

    def add_column(self, table: str, name: str) -> None:
        self.table(table).alter.add_columns([Field(name, PrimitiveType("string"), nullable=True)])

    def drop_column(self, table: str, name: str) -> None:
        self._write_without(table, name, "of somebody else")

    def make_older(self, table: str, column: str) -> None:
        """As if a version had loaded the table that did not have the column yet."""
        self._write_without(table, column)
        rows = self.table(STATE).to_pyarrow_table()
        older = pc.if_else(pc.equal(rows["kind"], "dataset"), "of an older version", rows["digest"])
        by = CommitProperties(custom_metadata={LOAD_ID: self._last_load(STATE)})
        write_deltalake(self.table(STATE), with_column(rows, "digest", older), mode="overwrite", commit_properties=by)

    def _last_load(self, table: str) -> str:
        return str(self.table(table).history(1)[0][LOAD_ID])

    def _write_without(self, table: str, column: str, load_id: str = "") -> None:
        opened = self.table(table)
        by = CommitProperties(custom_metadata={LOAD_ID: load_id or self._last_load(table)})
        rows = opened.to_pyarrow_table().drop_columns([column])
        partitions = opened.metadata().partition_columns
        shutil.rmtree(self.folder / table)
        write_deltalake(self.folder / table, rows, partition_by=partitions, commit_properties=by)

    def make_texts(self, table: str, name: str) -> None:
        rows = self.table(table).to_pyarrow_table()
        texts = rows.set_column(rows.column_names.index(name), name, rows[name].cast("string"))
        write_deltalake(self.table(table), texts, mode="overwrite", schema_mode="overwrite")

    def dump(self) -> Path:
        """A copy of the tables."""
        return Path(shutil.copytree(self.folder, self.folder.with_name("backup"), dirs_exist_ok=True))

    def restore(self, dump: Path) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(dump, self.folder)

    def die(self, data: Path, *, nth: int) -> bool:
        """One load that dies when it has written so many commits; whether it got so far."""
        with pytest.MonkeyPatch.context() as patch:
            self._record(patch, [], nth)
            try:
                load_into(self, data)
            except Died:
                return True
        return False

    def asked_by(self, data: Path) -> list[str]:
        """The commits that a load writes."""
        asked: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            self._record(patch, asked, 1_000)
            load_into(self, data)
        return asked

    def _record(self, patch: pytest.MonkeyPatch, asked: list[str], most: int) -> None:
        def recorded(work: Any) -> Any:
            def step(*arguments: Any, **options: Any) -> Any:
                asked.append(work.__name__)
                if len(asked) > most:
                    raise Died
                return work(*arguments, **options)

            return step

        patch.setattr(delta, "write_deltalake", recorded(write_deltalake))
        patch.setattr(DeltaWarehouse, "_create", recorded(DeltaWarehouse._create))
