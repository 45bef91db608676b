"""Whether each row lies beside its execution, and each execution in one part with all the rows that its own row counts.

Parts are added one by one; then rows are compared across them. Of a part in which all is well, little is kept.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from etl.errors import DestinationError
from etl.inspect.inventory import Inventory
from etl.inspect.rules import Finding, KeyedHashes, Kind, damage, hashes_by_execution, other_executions
from etl.load.files.contract import Files
from etl.load.index import read_index
from etl.load.layout import Part, part_path
from etl.load.parquet import open_part
from etl.load.part_index import hash_ids
from etl.model import schema
from etl.model.digest import rows_digest
from etl.model.wording import counted, first_few

_COUNTED = ("execution_id", "export_state", "calls_digest", "listed_calls", "exported_calls")
_OF_EXECUTIONS = (schema.CALLS.name, schema.EVALS.name, schema.ERRORS.name)
_NOTHING: pa.Table = schema.EXECUTIONS.no_rows


class Placement:
    """Where the rows of each execution lie: ``add`` each part, then read the ``findings``."""

    def __init__(self, files: Files, inventory: Inventory) -> None:
        self._files = files
        self._inventory = inventory
        self._homes: dict[str, list[Part]] = defaultdict(list)
        self._suspects: list[tuple[Part, dict[str, Any], KeyedHashes]] = []
        self._strays: dict[str, dict[str, KeyedHashes]] = {}
        self._accepted = read_index(files).accepted
        self._digests: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._hashes: dict[str, list[Any]] = defaultdict(list)

    def add(self, part: Part, rows: Mapping[str, pa.Table]) -> None:
        """Add the rows of the part, by table.

        Where a file could not be read, missing rows are no finding: the file is one already.
        """
        paths = self._inventory.parts[part]
        is_hidden = self._inventory.is_hidden(part)
        executions = rows.get(schema.EXECUTIONS.name, _NOTHING).select(_COUNTED).to_pylist()
        hashes = hashes_by_execution(rows)
        for row in executions:
            self._homes[row["execution_id"]].append(part)
            own = hashes.get(row["execution_id"], KeyedHashes())
            if len(rows) == len(paths) and not is_hidden and damage(row, own.held(row["listed_calls"])):
                self._suspects.append((part, row, own))
        if schema.EXECUTIONS.name in paths.keys() - rows.keys() or is_hidden:
            return
        ids = [row["execution_id"] for row in executions]
        for execution_id in hashes.keys() - {*ids}:
            self._digests[part.run_test_key, execution_id].append(hashes[execution_id].held(None).calls_digest)
        for name in _OF_EXECUTIONS:
            if name in rows:
                others = other_executions(rows[name], ids)
                self._strays[paths[name]] = {each: hashes.get(each, KeyedHashes()).of(name) for each in others}
                if name != schema.ERRORS.name:
                    self._hashes[name].append(hash_ids(_call_ids(rows[name], except_of=others)))

    @property
    def incomplete(self) -> set[Part]:
        """The parts in which rows of their executions are missing, wherever these lie."""
        return {part for part, _, _ in self._suspects}

    def findings(self) -> Iterator[Finding]:
        """All rows that are not where they should be."""
        yield from self._spread()
        yield from self._misplaced()
        yield from self._damaged()
        yield from self._doubled()

    def _spread(self) -> Iterator[Finding]:
        places: dict[tuple[Part, ...], list[str]] = defaultdict(list)
        for execution_id in self._spread_executions():
            places[tuple(dict.fromkeys(self._homes[execution_id]))].append(execution_id)
        for (first, *others), ids in places.items():
            where = first_few([_executions_path(other) for other in others])
            yield Finding(Kind.SPREAD, _executions_path(first), f"{_executions(ids)} also in {where}")

    def _spread_executions(self) -> set[str]:
        return {execution_id for execution_id, homes in self._homes.items() if len(set(homes)) > 1}

    def _misplaced(self) -> Iterator[Finding]:
        wanted = {each for strays in self._strays.values() for each in strays} - self._homes.keys()
        homes = self._homes_outside() if wanted else {}
        homes |= {execution_id: parts[0] for execution_id, parts in self._homes.items()}
        for path, strays in self._strays.items():
            if away := [each for each in strays if each in homes]:
                text = f"holds rows of {_executions(away)}, whose own rows are in {_executions_path(homes[away[0]])}"
                yield Finding(Kind.MISPLACED, path, text)
            orphaned = [each for each in strays if each not in homes and not self._is_accepted(path, each)]
            if orphaned and not path.startswith(f"{schema.ERRORS.name}/"):
                yield Finding(
                    Kind.NO_EXECUTION, path, f"holds rows of {_executions(orphaned)} without a row of their own"
                )

    def _is_accepted(self, path: str, execution_id: str) -> bool:
        """Whether calls and evals were to stay without a row of their own, as they are."""
        key = Path(path).parts[1].removeprefix("run_test=")
        return rows_digest(self._digests[key, execution_id]) == self._accepted.get(key, {}).get(execution_id)

    def _homes_outside(self) -> dict[str, Part]:
        """Where the executions out of the scope lie, as far as their files can be read."""
        homes: dict[str, Part] = {}
        for path, part in self._inventory.outside.items():
            try:
                ids = self._columns(path, "execution_id")["execution_id"].to_pylist()
            except DestinationError:
                continue  # a finding only where that part is in the scope
            homes |= dict.fromkeys(ids, part)
        return homes

    def _damaged(self) -> Iterator[Finding]:
        elsewhere: dict[str, KeyedHashes] = defaultdict(KeyedHashes)
        for strays in self._strays.values():
            for execution_id, hashes in strays.items():
                elsewhere[execution_id] |= hashes
        found: dict[Part, list[str]] = defaultdict(list)
        for part, row, own in self._suspects:
            # Rows that only lie in the wrong place are a finding there.
            if what := damage(row, (own | elsewhere[row["execution_id"]]).held(row["listed_calls"])):
                found[part].append(f"{row['execution_id']} ({what})")
        for part, texts in found.items():
            text = f"{counted(len(texts), 'execution')}: {first_few(texts)}"
            yield Finding(Kind.DAMAGED, _executions_path(part), text)

    def _doubled(self) -> Iterator[Finding]:
        """Calls that stand in several files, each time beside the execution that they name."""
        for name, hashes in self._hashes.items():
            distinct, counts = np.unique(np.concatenate(hashes), return_counts=True)
            if suspicious := set(distinct[counts > 1].tolist()):
                yield from self._doubled_of(name, suspicious)

    def _doubled_of(self, name: str, suspicious: Collection[int]) -> Iterator[Finding]:
        spread = self._spread_executions()
        places: dict[str, list[str]] = defaultdict(list)
        for path in (paths[name] for paths in self._inventory.parts.values() if name in paths):
            if path not in self._strays:
                continue
            rows = self._columns(path, "execution_id", "call_execution_id")
            ids = list(_call_ids(rows, except_of={*spread, *self._strays[path]}))
            for call_id, hashed in zip(ids, hash_ids(ids), strict=True):
                if hashed in suspicious:
                    places[call_id].append(path)
        doubled: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for call_id, paths in places.items():
            if len(paths) > 1:
                doubled[tuple(paths)].append(call_id)
        for (first, *others), calls in doubled.items():
            text = f"{counted(len(calls), 'call')} also in {first_few(others)}: {first_few(calls)}"
            yield Finding(Kind.DOUBLED, first, text)

    def _columns(self, path: str, *names: str) -> pa.Table:
        table = schema.TABLES[path.partition("/")[0]]
        return open_part(self._files, table, path).read(names, may_be_newer=True)


def _call_ids(rows: pa.Table, *, except_of: Collection[str]) -> set[str]:
    pairs = zip(rows["call_execution_id"].to_pylist(), rows["execution_id"].to_pylist(), strict=True)
    return {call_id for call_id, execution_id in pairs if execution_id not in except_of}


def _executions_path(part: Part) -> str:
    return part_path(schema.EXECUTIONS.name, part)


def _executions(ids: Collection[str]) -> str:
    return f"{counted(len(ids), 'execution')} ({first_few(list(ids))})"
