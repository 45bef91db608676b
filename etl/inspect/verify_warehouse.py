"""Compare a warehouse with the dataset, cell by cell, a month of a run test at a time: not what a load noted. Changes nothing."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
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


@dataclass(frozen=True, slots=True)
class Day:
    """How many rows of a table began on a UTC day, where that differs; ``run_test`` is empty for ``runs``."""

    table: str
    run_test: str
    day: str
    rows: int
    loaded_rows: int


@dataclass(slots=True)
class WarehouseReport:
    """``rows`` and ``loaded_rows`` by table, of the dataset and of the warehouse; ``held_back`` executions were not compared."""

    warehouse: str
    rows: Counter[str] = field(default_factory=Counter)
    loaded_rows: Counter[str] = field(default_factory=Counter)
    days: list[Day] = field(default_factory=list)
    held_back: int = 0
    findings: list[Finding] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "warehouse": self.warehouse,
            "tables": [
                {"name": name, "rows": count, "loaded_rows": self.loaded_rows[name]}
                for name, count in self.rows.items()
            ],
            "days": msgspec.to_builtins(self.days),
            "held_back": self.held_back,
        }


def verify_warehouse(settings: Settings) -> WarehouseReport:
    """Whether the warehouse of the settings holds the rows of the dataset."""
    destination, section = settings.destination, settings.warehouse
    dataset = Dataset(open_dataset(destination.path, destination.options))
    with closing(open_warehouse(section.named_url, section.namespace, is_read_only=True)) as warehouse:
        return verify_rows(read_contents(dataset), warehouse)


def verify_rows(contents: Contents, warehouse: Warehouse) -> WarehouseReport:
    """Compare every row of the one with every row of the other, and whether views are as a load made them."""
    loaded = warehouse.loaded()
    refuse_another(warehouse, loaded, contents.dataset_id)
    report = WarehouseReport(warehouse.where, held_back=len(contents.damaged))
    days, loaded_days = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
    for group in GROUPS:
        different: defaultdict[str, list[str]] = defaultdict(list)
        for table in reversed(group.tables):
            items_at = contents.places(group)
            for place in sorted({*items_at, *warehouse.places(table)}, key=str):  # null where somebody has written
                ours = _ours(contents, warehouse, table, items_at.get(place, set()), place)
                theirs = warehouse.rows(table, place)
                if group is GROUPS[0]:
                    theirs = theirs.filter(pc.invert(is_of(theirs, contents.damaged)))
                report.rows[table.name] += len(ours)
                report.loaded_rows[table.name] += len(theirs)
                days.update(_days(table, ours))
                loaded_days.update(_days(table, theirs))
                for item, text in _unequal_items(group, table, ours, theirs):
                    different[item].append(text)
        report.findings += [
            Finding(Kind.LOADED_WRONG, f"{group.kind} {item}", "; ".join(texts))
            for item, texts in sorted(different.items())
        ]
    report.findings += [
        Finding(Kind.LOADED_WRONG, f"view {name}", "somebody has changed its definition")
        for name in loaded.altered_views
    ]
    differing = (each for each in sorted(days.keys() | loaded_days.keys()) if days[each] != loaded_days[each])
    report.days = [Day(*each, days[each], loaded_days[each]) for each in differing]
    return report


def _ours(contents: Contents, warehouse: Warehouse, table: Table, items: set[str], place: Place) -> pa.Table:
    pieces = [warehouse.as_stored(piece) for piece in contents.rows(table, items)]
    rows = pa.concat_tables([arrow_schema_of(table).empty_table(), *pieces])
    for column, value in zip(table.partitions, place, strict=True):  # dead letters of a run test lie in many months
        rows = rows.filter(pc.equal(rows[column.name], value))
    return rows


def _days(table: Table, rows: pa.Table) -> Iterator[tuple[str, str, str]]:
    """Table, run test and UTC day of each row."""
    days = pc.fill_null(pc.strftime(rows[table.start], format="%Y-%m-%d"), "unknown").to_pylist()
    run_tests = pc.fill_null(rows["run_test"], "").to_pylist() if "run_test" in rows.column_names else [""] * len(days)
    return ((table.name, run_test, day) for run_test, day in zip(run_tests, days, strict=True))


def _unequal_items(group: Group, table: Table, ours: pa.Table, theirs: pa.Table) -> Iterator[tuple[str, str]]:
    """Items of which the rows differ, and how."""
    order = [(name, "ascending") for name in table.key]
    ours, theirs = _comparable(table, ours.sort_by(order)), _comparable(table, theirs.sort_by(order))
    if ours.equals(theirs):
        return
    here, there = (_by_item(group, table, rows) for rows in (ours, theirs))
    for item in sorted(here.keys() | there.keys()):
        if texts := list(_differences(here.get(item, []), there.get(item, []))):
            yield item, f"{table.name}: {', '.join(texts)}"


def _comparable(table: Table, rows: pa.Table) -> pa.Table:
    """With equal texts for equal JSON: an engine may spell it otherwise."""
    for column in table.columns:
        if column.is_json and rows[column.name].null_count < len(rows):
            texts = [text and _canonical(text) for text in rows[column.name].to_pylist()]
            rows = rows.set_column(rows.column_names.index(column.name), column.name, pa.array(texts, pa.string()))
    return rows


def _canonical(text: str) -> str:
    try:
        said = json.loads(text, parse_int=Decimal, parse_float=Decimal)
    except ValueError:
        return text
    # 1E+2 is 100, and -0.0 is 0.
    return json.dumps(said, sort_keys=True, default=lambda number: [str(number.normalize() + 0)])


def _by_item(group: Group, table: Table, rows: pa.Table) -> Mapping[str, list[tuple[Key, dict[str, Any]]]]:
    items: defaultdict[str, list[tuple[Key, dict[str, Any]]]] = defaultdict(list)
    # Only compared: engines have times that Python has not.
    columns = [each.cast(pa.int64()) if pa.types.is_timestamp(each.type) else each for each in rows.columns]
    for row in pa.table(columns, names=rows.column_names).to_pylist():
        items[row[group.item]].append((tuple(row[name] for name in table.key), row))
    return items


def _differences(ours: list[tuple[Key, dict[str, Any]]], theirs: list[tuple[Key, dict[str, Any]]]) -> Iterator[str]:
    here, there = dict(ours), dict(theirs)
    both = here.keys() & there.keys()
    if missing := len(here) - len(both):
        yield f"{counted(missing, 'row')} missing"
    if extra := len(theirs) - len(both):
        yield f"{counted(extra, 'row')} too many"
    if changed := [key for key in both if here[key] != there[key]]:
        columns = {name for key in changed for name, value in here[key].items() if there[key][name] != value}
        yield f"{counted(len(changed), 'row')} with different values ({first_few(sorted(columns))})"
