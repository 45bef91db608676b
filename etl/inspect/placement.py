"""Whether each row lies beside its execution, and each execution in one part with all the rows that its own row counts.

Parts are added one by one; then rows are compared across them. Of a part in which all is well, little is kept.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.inspect.inventory import Inventory
from etl.inspect.rules import damage, other_executions
from etl.load.layout import Part, part_path
from etl.load.merge import is_of
from etl.load.part_index import held_rows
from etl.model import schema
from etl.model.findings import Finding, Kind
from etl.model.wording import counted, first_few

_COUNTED = ("execution_id", "export_state", "calls_digest", "listed_calls", "exported_calls", "deleted_at")
_BESIDE = (schema.CALLS, schema.EVALS, schema.ERRORS)


class Placement:
    """Where the rows of each execution lie: ``add`` each part, then read the ``findings``."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._homes: dict[str, list[Part]] = defaultdict(list)
        self._damaged: list[Finding] = []
        self._others: dict[str, dict[str, bool]] = {}
        self._calls: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}

    def add(self, part: Part, rows: Mapping[str, pa.Table]) -> None:
        """Add the rows of the part, by table.

        Where a file could not be read, missing rows are no finding: the file is one already.
        """
        paths = self._inventory.parts[part]
        executions = rows.get(schema.EXECUTIONS.name, schema.EXECUTIONS.no_rows).select(_COUNTED).to_pylist()
        ids = list(dict.fromkeys(row["execution_id"] for row in executions))
        for execution_id in ids:
            self._homes[execution_id].append(part)
        if self._inventory.is_hidden(part) or schema.EXECUTIONS.name in paths.keys() - rows.keys():
            return
        if len(rows) == len(paths):
            beside = (rows.get(table.name, table.no_rows) for table in (schema.CALLS, schema.EVALS))
            held = held_rows(dict.fromkeys(ids), *beside)
            found = ((row["execution_id"], damage(row, held[row["execution_id"]])) for row in executions)
            if texts := [f"{execution_id} ({what})" for execution_id, what in found if what]:
                text = f"{counted(len(texts), 'execution')}: {first_few(texts)}"
                self._damaged.append(Finding(Kind.DAMAGED, _executions_path(part), text))
        for table in _BESIDE:
            if table.name in rows:
                self._add_beside(table, paths[table.name], rows[table.name], ids)

    def _add_beside(self, table: schema.Table, path: str, rows: pa.Table, ids: Collection[str]) -> None:
        others = other_executions(rows, ids)
        if table is schema.ERRORS:
            living = others
        else:
            of_living = rows.filter(pc.is_null(rows["deleted_at"]))
            living = other_executions(of_living, ids)
        if others:
            self._others[path] = {each: each in {*living} for each in others}
        if table is schema.CALLS:
            calls = of_living.filter(is_of(of_living, ids))["call_execution_id"].to_pylist()
            self._calls[path] = np.unique(np.fromiter(map(hash, calls), np.int64, len(calls)))

    def findings(self) -> Iterator[Finding]:
        """All rows that are not where they should be, or not as they should be there."""
        yield from self._damaged
        yield from self._in_two_parts()
        yield from self._without_execution()
        yield from self._calls_in_two_files()

    def _in_two_parts(self) -> Iterator[Finding]:
        places: dict[tuple[Part, ...], list[str]] = defaultdict(list)
        for execution_id, homes in self._homes.items():
            if len(homes) > 1:
                places[tuple(homes)].append(execution_id)
        for (first, *others), ids in places.items():
            where = first_few([_executions_path(other) for other in others])
            yield Finding(Kind.MISPLACED, _executions_path(first), f"{_executions(ids)} also in {where}")

    def _without_execution(self) -> Iterator[Finding]:
        """Rows that are all marked as deleted need no execution."""
        for path, others in self._others.items():
            if away := [each for each in others if each in self._homes]:
                where = _executions_path(self._homes[away[0]][0])
                text = f"holds rows of {_executions(away)}, whose own rows are in {where}"
                yield Finding(Kind.MISPLACED, path, text)
            alone = [each for each, is_living in others.items() if is_living and each not in self._homes]
            if alone and not path.startswith(f"{schema.ERRORS.name}/"):
                yield Finding(Kind.DAMAGED, path, f"holds rows of {_executions(alone)} without a row of their own")

    def _calls_in_two_files(self) -> Iterator[Finding]:
        if not self._calls:
            return
        distinct, counts = np.unique(np.concatenate([*self._calls.values()]), return_counts=True)
        twice = distinct[counts > 1]
        found = {path: int(np.isin(calls, twice).sum()) for path, calls in self._calls.items()} if len(twice) else {}
        if paths := [path for path, count in found.items() if count]:
            text = f"{counted(found[paths[0]], 'call')} also in {first_few(paths[1:])}"
            yield Finding(Kind.MISPLACED, paths[0], text)


def _executions_path(part: Part) -> str:
    return part_path(schema.EXECUTIONS.name, part)


def _executions(ids: Collection[str]) -> str:
    return f"{counted(len(ids), 'execution')} ({first_few(list(ids))})"
