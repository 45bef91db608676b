"""What a dataset holds for a warehouse: a digest for each item, and the rows of items, one part at a time.

It reads the dataset and knows no warehouse. An execution whose rows in the dataset are damaged is left out: the
warehouse keeps what it has of it until a run has repaired the dataset.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.index import Index, is_damaged, read_index, update_index
from etl.dataset.last_run import read_last_run
from etl.dataset.layout import Part, parse_part_path, part_path
from etl.dataset.parquet import OpenPart, UnreadableError
from etl.dataset.parts import Dataset, read_identity
from etl.errors import DestinationError, FileMissingError
from etl.files.interface import Entry, data_files, read_each
from etl.load.tables import GROUPS, Group, Place, with_places
from etl.model import schema
from etl.model.arrow import is_of
from etl.model.digest import rows_digest

_STATE = ("listed_calls", "exported_calls", "run_test_name", "export_state", "fingerprint", "calls_digest")
_DIGESTED = (*_STATE, "held_digest", "held_at", "verified_at", "exported_at", "export_run_id", "deleted_at")
"""What of an execution's row in the index goes into its digest: it changes whenever any row of the execution does.

The order matters: with another one, every warehouse would be loaded anew.
"""
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Contents:
    """What a dataset holds for a warehouse, by kind and item (see ``tables.GROUPS``), and how to read it."""

    dataset: Dataset
    """Where the rows are read."""
    dataset_id: str
    """The id that the warehouse notes, so that no other dataset is loaded over this one."""
    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    """By kind and item, a digest that changes with any row of the item; without damaged executions."""
    damaged: set[str] = field(default_factory=set)
    """Ids of the executions of which rows are missing or altered in the dataset."""
    parts: dict[str, dict[str, list[Part]]] = field(default_factory=dict)
    """By kind and item, the parts where rows of the item lie."""
    complete_at: datetime | None = None
    """When a run last left nothing out of what it was configured for; None if none ever did."""

    def places(self, group: Group) -> dict[Place, set[str]]:
        """The items of a group at each place, that is, by the values of the partition columns of its tables."""
        items_at: dict[Place, set[str]] = {}
        for item, parts in self.parts[group.kind].items():
            for part in parts:
                place = tuple(_path_columns(part)[column.name] for column in group.tables[0].partitions)
                items_at.setdefault(place, set()).add(item)
        return items_at

    def pieces(self, table: schema.Table, items: Collection[str]) -> int:
        """How many pieces ``rows`` yields for the same arguments."""
        return len(self._wanted(table, items))

    def rows(self, table: schema.Table, items: Collection[str]) -> Iterator[pa.Table]:
        """The rows of these items in one table, with the columns of the warehouse, one piece per part.

        Raises:
            DestinationError: a file cannot be read, or is of a newer version.
        """
        return read_each(self.dataset.files, partial(self._read, table), self._wanted(table, items))

    def _wanted(self, table: schema.Table, items: Collection[str]) -> list[tuple[Part, set[str]]]:
        """The parts that hold rows of the items, each with those of the items that it holds."""
        (parts,) = (self.parts[group.kind] for group in GROUPS if table in group.tables)
        items_in: dict[Part, set[str]] = {}
        for item in items:
            for part in parts[item]:
                items_in.setdefault(part, set()).add(item)
        return sorted(items_in.items())

    def _read(self, table: schema.Table, wanted: tuple[Part, set[str]]) -> pa.Table:
        """The rows of the wanted items in one part."""
        part, items = wanted
        try:
            rows = OpenPart(self.dataset.files, table, part_path(table.name, part)).read(table.names)
        except FileMissingError:
            # The part has no rows of this table: an execution whose rows are missing is damaged, and not wanted.
            rows = table.no_rows
        except UnreadableError as exc:
            # The damage is in a column that no run reads, so no run moves the file to the quarantine.
            raise DestinationError(f"{exc}. Restore the file or move it out. Then run metrics-etl run") from exc
        if table in GROUPS[0].tables:  # a part holds many executions, but only one run, or one run test's dead letters
            rows = rows.filter(is_of(rows, items))
        return with_places(rows, table, _path_columns(part))


def read_contents(dataset: Dataset) -> Contents:
    """What the dataset holds now. Opens only the files that the index does not know.

    Raises:
        DestinationError: there is no dataset, it has no id yet, or a file cannot be read.
    """
    files = dataset.files
    identity = read_identity(files)
    if identity is None:
        raise DestinationError(f"there is no dataset at {files.where()} to load. Run metrics-etl run first")
    unreadable: list[str] = []
    index = update_index(dataset, read_index(files), unreadable)
    if unreadable:
        raise DestinationError(
            f"{files.where(unreadable[0])} cannot be read. "
            "Run metrics-etl run, which moves the file to _state/quarantine and repairs what it can"
        )
    complete_at = read_last_run(files, note=lambda _: None).complete_at
    contents = Contents(dataset, identity.dataset_id, damaged=index.damaged(), complete_at=complete_at)
    _add_executions(contents, index)
    for group in GROUPS[1:]:
        _add_others(contents, group)
    return contents


def _add_executions(contents: Contents, index: Index) -> None:
    """Add the executions that have a row, except damaged ones."""
    digests = contents.digests.setdefault("execution", {})
    parts = contents.parts.setdefault("execution", {})
    for part, part_index in index.parts.items():
        places = [*_path_columns(part).values()]
        whole = part_index.rows.filter(pc.and_not(part_index.rows["is_here"], is_damaged(part_index.rows)))
        for row in whole.select(["execution_id", *_DIGESTED]).to_pylist():
            execution_id = row["execution_id"]
            if execution_id not in contents.damaged:
                parts[execution_id] = [part]
                # Earlier versions digested this value: with another one, every warehouse would be loaded anew.
                row["held_digest"] = row["calls_digest"]
                digests[execution_id] = rows_digest([_encode([places, row]).decode()])


def _add_others(contents: Contents, group: Group) -> None:
    """Add the items of another group, export runs or run tests with dead letters: they are digested by their files."""
    files_of = defaultdict[str, list[tuple[Part, Entry]]](list)
    for entry in data_files(contents.dataset.files, group.tables[0].name):
        if parsed := parse_part_path(entry.path):
            _, part = parsed
            files_of[part.run_test_key or part.place.partition("/")[2]].append((part, entry))
    contents.parts[group.kind] = {item: [part for part, _ in files] for item, files in files_of.items()}
    contents.digests[group.kind] = {
        item: rows_digest(f"{entry.path} {entry.size_bytes} {entry.version}" for _, entry in files)
        for item, files in files_of.items()
    }


def _path_columns(part: Part) -> Mapping[str, str]:
    """The columns that stand in the path of the part's files, and not in their rows."""
    return {"run_test": part.run_test_key, "month": part.month}
