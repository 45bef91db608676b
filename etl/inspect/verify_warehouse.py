"""Compare a warehouse with the dataset, cell by cell, one month of a run test at a time.

It reads all rows of both, and does not trust what a load has noted. Nothing is changed.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.parts import Dataset
from etl.inspect.read_tables import open_dataset
from etl.load.contents import Contents, read_contents
from etl.load.interface import Warehouse
from etl.load.open import open_warehouse
from etl.load.synchronize import refuse_another
from etl.load.tables import GROUPS, Group, Place, arrow_schema_of
from etl.model.arrow import is_of
from etl.model.findings import Finding, Kind
from etl.model.schema import Table
from etl.model.wording import counted, first_few
from etl.settings import Settings

Key = tuple[Any, ...]
"""The values of a row's key columns."""
Rows = list[tuple[Key, dict[str, Any]]]
"""The rows of one item, each with its key, which may stand there more than once."""


@dataclass(slots=True)
class WarehouseReport:
    """The result of a comparison with a warehouse."""

    warehouse: str
    """The warehouse, as messages call it."""
    rows: Counter[str] = field(default_factory=Counter)
    """By table, how many rows the dataset has, without those of damaged executions."""
    loaded_rows: Counter[str] = field(default_factory=Counter)
    """By table, how many rows the warehouse has, without those of damaged executions."""
    held_back: int = 0
    """How many executions were not compared, because rows of them are missing or altered in the dataset."""
    findings: list[Finding] = field(default_factory=list)
    """Items of which rows differ, and views that somebody has changed."""

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object, as ``verify --warehouse --json`` prints it."""
        return {
            "warehouse": self.warehouse,
            "tables": [
                {"name": name, "rows": count, "loaded_rows": self.loaded_rows[name]}
                for name, count in self.rows.items()
            ],
            "held_back": self.held_back,
        }


def verify_warehouse(settings: Settings) -> WarehouseReport:
    """Compare the warehouse that the settings name with their dataset, see ``verify_rows``.

    Raises:
        ConfigurationError: the warehouse's driver is not installed.
        DestinationError: the dataset or the warehouse cannot be read, or nothing was loaded yet.
    """
    section = settings.warehouse
    dataset = Dataset(open_dataset(settings.destination.path, settings.destination.options))
    with closing(open_warehouse(section.named_url, section.namespace, "read")) as warehouse:
        return verify_rows(read_contents(dataset), warehouse)


def verify_rows(contents: Contents, warehouse: Warehouse) -> WarehouseReport:
    """Compare all rows of both, and check that the views are as the last load noted them.

    Raises:
        DestinationError: the warehouse holds another dataset, a table or column is missing in it, or rows cannot be
            read.
    """
    loaded = warehouse.loaded()
    refuse_another(warehouse, loaded, contents.dataset_id)
    report = WarehouseReport(warehouse.where, held_back=len(contents.damaged))
    for group in GROUPS:
        different: defaultdict[str, list[str]] = defaultdict(list)
        for table in reversed(group.tables):
            items_at = contents.places(group)
            # A place may hold a null where somebody else has written, and does not sort but as text.
            for place in sorted({*items_at, *warehouse.places(table)}, key=str):
                ours = _ours(contents, warehouse, table, items_at.get(place, set()), place)
                theirs = warehouse.rows(table, place)
                if group is GROUPS[0]:
                    theirs = theirs.filter(pc.invert(is_of(theirs, contents.damaged)))
                report.rows[table.name] += len(ours)
                report.loaded_rows[table.name] += len(theirs)
                for item, text in _unequal_items(group, table, ours, theirs):
                    different[item].append(text)
        report.findings += [
            Finding(Kind.LOADED_WRONG, f"{group.kind} {item}", "; ".join(texts))
            for item, texts in sorted(different.items())
        ]
    report.findings += [
        Finding(Kind.LOADED_WRONG, f"view {name}", "somebody has changed the definition of this view")
        for name in loaded.altered_views
    ]
    return report


def _ours(contents: Contents, warehouse: Warehouse, table: Table, items: set[str], place: Place) -> pa.Table:
    """The rows of these items at this place, as the warehouse can hold them."""
    pieces = [warehouse.as_stored(piece) for piece in contents.rows(table, items)]
    rows = pa.concat_tables([arrow_schema_of(table).empty_table(), *pieces])
    # An item of errors, a run test, lies in many months.
    for column, value in zip(table.partitions, place, strict=True):
        rows = rows.filter(pc.equal(rows[column.name], value))
    return rows


def _unequal_items(group: Group, table: Table, ours: pa.Table, theirs: pa.Table) -> Iterator[tuple[str, str]]:
    """The items whose rows differ, each with how they differ."""
    order = [(name, "ascending") for name in table.key]
    ours, theirs = (_comparable(table, rows.sort_by(order)) for rows in (ours, theirs))
    if ours.equals(theirs):
        return
    our_items, their_items = (_by_item(group, table, rows) for rows in (ours, theirs))
    for item in sorted(our_items.keys() | their_items.keys()):
        if texts := list(_differences(our_items.get(item, []), their_items.get(item, []))):
            yield item, f"{table.name}: {', '.join(texts)}"


def _comparable(table: Table, rows: pa.Table) -> pa.Table:
    """The rows with equal texts for equal JSON, which an engine may spell in another way."""
    for column in table.columns:
        if column.is_json and rows[column.name].null_count < len(rows):
            texts = [text and _canonical(text) for text in rows[column.name].to_pylist()]
            rows = rows.set_column(rows.column_names.index(column.name), column.name, pa.array(texts, pa.string()))
    return rows


def _canonical(text: str) -> str:
    """The one text for all spellings of the same JSON; a text that is no JSON as it is."""
    try:
        value = json.loads(text, parse_int=Decimal, parse_float=Decimal)
    except ValueError:
        return text
    # Normalized, 1E+2 equals 100; plus zero, -0.0 equals 0.
    return json.dumps(value, sort_keys=True, default=lambda number: [str(number.normalize() + 0)])


def _by_item(group: Group, table: Table, rows: pa.Table) -> Mapping[str, Rows]:
    """The rows by item."""
    items: defaultdict[str, Rows] = defaultdict(list)
    # Times as numbers, since they are only compared: engines have times that Python's datetime cannot hold.
    columns = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in rows.columns]
    for row in pa.table(columns, names=rows.column_names).to_pylist():
        items[row[group.item]].append((tuple(row[name] for name in table.key), row))
    return items


def _differences(ours: Rows, theirs: Rows) -> Iterator[str]:
    """How the rows of one item differ, in words."""
    our_rows, their_rows = dict(ours), dict(theirs)
    both = our_rows.keys() & their_rows.keys()
    if missing := len(our_rows) - len(both):
        yield f"{counted(missing, 'row')} missing"
    if extra := len(theirs) - len(both):
        yield f"{counted(extra, 'row')} too many"
    if changed := [key for key in both if our_rows[key] != their_rows[key]]:
        columns = {name for key in changed for name, value in our_rows[key].items() if their_rows[key][name] != value}
        yield f"{counted(len(changed), 'row')} with different values in {first_few(sorted(columns))}"
