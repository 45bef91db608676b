"""What a dataset holds for a warehouse: a digest of each item, and its rows, one part after the other.

An execution whose rows in the dataset are damaged is left out: what the warehouse has of it stays as it is until a run has repaired
the dataset.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.index import Index, is_damaged, read_index, update_index
from etl.dataset.layout import Part, parse_part_path, part_path
from etl.dataset.parquet import OpenPart, UnreadableError
from etl.dataset.parts import Dataset, read_identity
from etl.errors import DestinationError, FileMissingError
from etl.files.interface import Entry, data_files, read_each
from etl.load.tables import GROUPS, Group, Place, with_places
from etl.model import schema
from etl.model.arrow import is_of
from etl.model.digest import rows_digest

_DIGESTED = (
    "listed_calls", "exported_calls", "run_test_name", "export_state", "fingerprint", "calls_digest", "held_digest",
    "held_at", "verified_at", "exported_at", "export_run_id", "deleted_at",
)  # fmt: skip
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Contents:
    """Digests by kind and item (see ``tables.GROUPS``), but of ``damaged`` executions, and the parts where the items lie."""

    dataset: Dataset
    dataset_id: str
    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    parts: dict[str, dict[str, list[Part]]] = field(default_factory=dict)

    def places(self, group: Group) -> dict[Place, set[str]]:
        """The items of a group by the values of its partition columns."""
        found: dict[Place, set[str]] = {}
        for item, parts in self.parts[group.kind].items():
            for part in parts:
                place = tuple(_columns_of(part)[column.name] for column in group.tables[0].partitions)
                found.setdefault(place, set()).add(item)
        return found

    def pieces(self, table: schema.Table, items: Collection[str]) -> int:
        """How many pieces ``rows`` reads."""
        return len(self._wanted(table, items))

    def rows(self, table: schema.Table, items: Collection[str]) -> Iterator[pa.Table]:
        """The rows of these items of the table's group, with the columns of the warehouse, a file at a time."""
        return read_each(self.dataset.files, partial(self._read, table), self._wanted(table, items))

    def _wanted(self, table: schema.Table, items: Collection[str]) -> list[tuple[Part, set[str]]]:
        """The parts that hold rows of the items, each with these."""
        (parts,) = (self.parts[group.kind] for group in GROUPS if table in group.tables)
        found: dict[Part, set[str]] = {}
        for item in items:
            for part in parts[item]:
                found.setdefault(part, set()).add(item)
        return sorted(found.items())

    def _read(self, table: schema.Table, wanted: tuple[Part, set[str]]) -> pa.Table:
        part, items = wanted
        try:
            rows = OpenPart(self.dataset.files, table, part_path(table.name, part)).read(table.names)
        except FileMissingError:  # the part has no rows of the table; where some are missing, the execution is damaged
            rows = table.no_rows
        except UnreadableError as exc:  # in a column that no run reads, so that none sets it aside
            raise DestinationError(f"{exc}; restore it, or move it out of the dataset; then metrics-etl run") from exc
        is_shared = table in GROUPS[0].tables  # by executions that are not wanted; others have a part of their own
        return with_places(rows.filter(is_of(rows, items)) if is_shared else rows, table, _columns_of(part))


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
    _add_executions(contents, index)
    for group in GROUPS[1:]:
        _add_others(contents, group)
    return contents


def _add_executions(contents: Contents, index: Index) -> None:
    """Each execution that has a row and all others that were exported."""
    digests, parts = contents.digests.setdefault("execution", {}), contents.parts.setdefault("execution", {})
    for part, each in index.parts.items():
        places = [*_columns_of(part).values()]
        whole = each.rows.filter(pc.and_not(each.rows["is_here"], is_damaged(each.rows)))
        for row in whole.select(["execution_id", *_DIGESTED]).to_pylist():
            if (execution_id := row["execution_id"]) not in contents.damaged:
                parts[execution_id] = [part]
                row["held_digest"] = row["calls_digest"]  # as ever, so that no warehouse is loaded anew
                digests[execution_id] = rows_digest([_encode([places, row]).decode()])


def _add_others(contents: Contents, group: Group) -> None:
    """The export runs, and the dead letters of each run test, by their files."""
    found = defaultdict[str, list[tuple[Part, Entry]]](list)
    for entry in data_files(contents.dataset.files, group.tables[0].name):
        if parsed := parse_part_path(entry.path):
            found[parsed[1].run_test_key or parsed[1].place.partition("/")[2]].append((parsed[1], entry))
    contents.parts[group.kind] = {item: [part for part, _ in of_item] for item, of_item in found.items()}
    contents.digests[group.kind] = {
        item: rows_digest(f"{entry.path} {entry.size_bytes} {entry.version}" for _, entry in of_item)
        for item, of_item in found.items()
    }


def _columns_of(part: Part) -> Mapping[str, str]:
    """What the path of its files says of all of its rows."""
    return {"run_test": part.run_test_key, "month": part.month}
