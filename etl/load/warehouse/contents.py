"""What a dataset holds for a warehouse: a digest of each item, and its rows, one part after the other.

An execution whose rows in the dataset are damaged is left out: what the warehouse has of it stays as it is until a run has repaired
the dataset.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from etl.errors import DestinationError, FileMissingError
from etl.load.dataset import Dataset, read_identity
from etl.load.files.contract import Entry, Files, data_files, read_each
from etl.load.index import Index, is_damaged, read_index, update_index
from etl.load.layout import Part, parse_part_path, parse_run_path, part_path
from etl.load.merge import is_of
from etl.load.parquet import UnreadableError, open_part
from etl.load.warehouse.tables import GROUPS, Group, Place, with_places
from etl.model import schema
from etl.model.digest import rows_digest

_DIGESTED = (
    "listed_calls", "exported_calls", "run_test_name", "export_state", "fingerprint", "calls_digest", "held_digest",
    "held_at", "verified_at", "exported_at", "export_run_id", "deleted_at",
)  # fmt: skip
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Contents:
    """Digests by kind and item (see ``tables.GROUPS``), but of ``damaged`` executions, and where the rows of the items lie."""

    dataset: Dataset
    dataset_id: str
    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    parts: dict[str, Part] = field(default_factory=dict)
    files: dict[str, dict[str, list[Entry]]] = field(default_factory=dict)

    def places(self, group: Group) -> dict[Place, set[str]]:
        """The items of a group by the values of its partition columns."""
        found: dict[Place, set[str]] = {}
        for item in self.digests[group.kind]:
            table = group.tables[0]
            paths = [entry.path for entry in self.files[table.name][item]] if table.name in self.files else []
            for path in paths or [part_path(table.name, self.parts[item])]:
                places = _places(path)
                found.setdefault(tuple(places[column.name] for column in table.partitions), set()).add(item)
        return found

    def pieces(self, table: schema.Table, items: Collection[str]) -> int:
        """How many pieces ``rows`` reads."""
        return len(self._wanted(table, items))

    def rows(self, table: schema.Table, items: Collection[str]) -> Iterator[pa.Table]:
        """The rows of these items of the table's group, with the columns of the warehouse, a file at a time."""
        return read_each(self.dataset.files, partial(self._read, table), self._wanted(table, items))

    def _wanted(self, table: schema.Table, items: Collection[str]) -> list[tuple[str, set[str] | None]]:
        """The files that hold rows of the items, and of which executions; None: all rows."""
        if table.name in self.files:
            return [(entry.path, None) for item in sorted(items) for entry in self.files[table.name][item]]
        in_parts: dict[Part, set[str]] = {}
        for execution_id in items:
            in_parts.setdefault(self.parts[execution_id], set()).add(execution_id)
        return [(part_path(table.name, part), ids) for part, ids in sorted(in_parts.items())]

    def _read(self, table: schema.Table, wanted: tuple[str, set[str] | None]) -> pa.Table:
        path, executions = wanted
        try:
            rows = open_part(self.dataset.files, table, path).read(table.names)
        except FileMissingError:  # the part has no rows of the table; where some are missing, the execution is damaged
            rows = table.no_rows
        except UnreadableError as exc:  # in a column that no run reads, so that none sets it aside
            raise DestinationError(f"{exc}: restore it, or move it out of the dataset; then metrics-etl run") from exc
        return with_places(rows if executions is None else rows.filter(is_of(rows, executions)), table, _places(path))


def read_contents(dataset: Dataset) -> Contents:
    """What the dataset holds now. Only files that the index does not know are opened."""
    files = dataset.files
    identity = read_identity(files)
    if identity is None:
        raise DestinationError(f"{files.where()}: no dataset to load: run metrics-etl run first")
    unreadable: list[str] = []
    index = update_index(dataset, read_index(files), unreadable)
    if unreadable:
        raise DestinationError(
            f"{files.where(unreadable[0])} cannot be read: metrics-etl run moves it to _state/quarantine and repairs what it can"
        )
    contents = Contents(dataset, identity.dataset_id)
    contents.damaged = index.damaged()
    contents.digests[GROUPS[0].kind] = _executions(index, contents)
    for group in GROUPS[1:]:
        (table,) = group.tables
        of_items = contents.files[table.name] = _files_by_item(files, table)
        contents.digests[group.kind] = {
            item: rows_digest(f"{entry.path} {entry.size_bytes} {entry.version}" for entry in entries)
            for item, entries in of_items.items()
        }
    return contents


def _executions(index: Index, contents: Contents) -> dict[str, str]:
    """The digest of each execution that has a row and all others that were exported; notes where it lies."""
    digests: dict[str, str] = {}
    for part, each in index.parts.items():
        places = [*_places(part_path(schema.EXECUTIONS.name, part)).values()]
        whole = each.rows.filter(pc.and_not(each.rows["is_here"], is_damaged(each.rows)))
        for row in whole.select(["execution_id", *_DIGESTED]).to_pylist():
            if (execution_id := row["execution_id"]) not in contents.damaged:
                contents.parts[execution_id] = part
                row["held_digest"] = row["calls_digest"]  # as ever, so that no warehouse is loaded anew
                digests[execution_id] = rows_digest([_encode([places, row]).decode()])
    return digests


def _files_by_item(files: Files, table: schema.Table) -> dict[str, list[Entry]]:
    """The files of export runs, each of one item, or of dead letters, by run test."""
    found: dict[str, list[Entry]] = {}
    for entry in data_files(files, table.name):
        if run := parse_run_path(entry.path):
            found[run[1]] = [entry]
        elif part := parse_part_path(entry.path):
            found.setdefault(part[1].run_test_key, []).append(entry)
    return found


def _places(path: str) -> Mapping[str, str]:
    """``run_test`` and ``month`` of a file."""
    return {"run_test": ""} | dict(folder.split("=", 1) for folder in path.split("/")[1:-1])
