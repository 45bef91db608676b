"""Make a warehouse equal to the dataset: compare digests, replace what differs as a whole, remove what the dataset lacks."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from etl.errors import DestinationError
from etl.load.warehouse.contents import Contents
from etl.load.warehouse.tables import GROUPS
from etl.load.warehouse.target import Loaded, LoadStep, Warehouse, another_dataset, do_nothing
from etl.model.digest import rows_digest
from etl.model.schema import Table
from etl.model.wording import counted


@dataclass(frozen=True, slots=True)
class PendingItems:
    """What a load has to do: items by kind.

    ``new`` are not in the warehouse, ``surplus`` are there alone; ``changed`` are other ones in the dataset than when they were
    loaded, and ``altered`` in the warehouse.
    """

    new: Mapping[str, frozenset[str]]
    changed: Mapping[str, frozenset[str]]
    altered: Mapping[str, frozenset[str]]
    surplus: Mapping[str, frozenset[str]]

    @property
    def is_empty(self) -> bool:
        """Whether the warehouse has what the dataset has."""
        return not any(any(items.values()) for items in (self.new, self.changed, self.altered, self.surplus))

    def arriving(self, kind: str) -> frozenset[str]:
        """The items of which the warehouse needs the dataset's rows."""
        return self.new[kind] | self.changed[kind] | self.altered[kind]

    def removed(self, kind: str) -> frozenset[str]:
        """The items whose rows in the warehouse go."""
        return self.changed[kind] | self.altered[kind] | self.surplus[kind]


@dataclass(slots=True)
class Result:
    """What a load did, or would do: executions by what was the matter with them, and rows written by table.

    ``damaged`` and ``lost`` are executions that were left alone, since the dataset does not have all of their rows, and so are
    those ``vanished``, which it once had and knows nothing of.
    """

    warehouse: str
    new: int = 0
    changed: int = 0
    altered: int = 0
    removed: int = 0
    damaged: int = 0
    lost: int = 0
    vanished: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)
    is_changed: bool = False

    @property
    def problems(self) -> list[str]:
        """One line for each thing that is missing from the warehouse."""
        lines = []
        if self.damaged:
            lines.append(
                f"{counted(self.damaged, 'execution')} not loaded, because their rows in the dataset are not those that "
                "were exported: metrics-etl run exports them again"
            )
        if self.lost:
            lines.append(
                f"{counted(self.lost, 'execution')} whose rows the dataset has lost: what the warehouse has of them is kept; "
                "metrics-etl status says more"
            )
        if self.vanished:
            lines.append(
                f"{counted(self.vanished, 'execution')} that the dataset no longer knows: the warehouse keeps them; "
                "if they were removed on purpose, run metrics-etl load --full"
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return {
            "warehouse": self.warehouse,
            "executions": {
                "new": self.new,
                "changed": self.changed,
                "altered": self.altered,
                "removed": self.removed,
                "damaged": self.damaged,
                "lost": self.lost,
                "vanished": self.vanished,
            },
            "rows": dict(self.rows),
            "is_changed": self.is_changed,
            "problems": self.problems,
            "notices": self.notices,
        }


def find_pending(
    contents: Contents, loaded: Loaded, *, held_back: AbstractSet[str], is_full: bool = False
) -> PendingItems:
    """What differs, but for executions that are held back; with ``is_full`` everything that both have counts as changed."""
    new, changed, altered, surplus = {}, {}, {}, {}
    for group in GROUPS:
        ours, theirs = contents.digests[group.kind], loaded.digests.get(group.kind, {})
        left_alone = held_back if group.kind == "execution" else frozenset()
        both = ours.keys() & theirs.keys()
        altered[group.kind] = frozenset(item for item in both if theirs[item] is None)
        changed[group.kind] = frozenset(
            item for item in both if theirs[item] is not None and (is_full or theirs[item] != ours[item])
        )
        new[group.kind] = frozenset(ours.keys() - theirs.keys())
        surplus[group.kind] = frozenset(theirs.keys() - ours.keys() - left_alone)
    return PendingItems(new, changed, altered, surplus)


def vanished_executions(contents: Contents, loaded: Loaded) -> set[str]:
    """Those that are as they were loaded, and of which the dataset knows nothing: deleted ones keep their rows there."""
    known = contents.digests["execution"].keys() | contents.held_back
    there = loaded.digests.get("execution", {})
    return {item for item, digest in there.items() if digest is not None and item not in known}


def refuse_another(warehouse: Warehouse, loaded: Loaded, dataset_id: str) -> None:
    """Raise DestinationError if what is loaded is of another dataset than this one."""
    if loaded.dataset_id not in (None, dataset_id):
        raise another_dataset(warehouse.where, loaded.dataset_id, dataset_id)


def refuse_another_copy(warehouse: Warehouse, loaded: Loaded, export_runs: AbstractSet[str], left: str) -> None:
    """Raise DestinationError if there are runs that this dataset does not have, and others than its own last load left there.

    ``export_runs`` are the dataset's; ``left`` is the digest of those that the load left: some may have been removed since.
    """
    there = {item for item, digest in loaded.digests.get("run", {}).items() if digest is not None}
    if (others := there - export_runs) and rows_digest(there) != left:
        raise DestinationError(
            f"{warehouse.where}: another copy of this dataset was loaded there since, with {counted(len(others), 'run')} such as "
            f"{max(others)}: let only one copy load, and run metrics-etl load --full if it is this one"
        )


def load(
    contents: Contents,
    warehouse: Warehouse,
    *,
    runs_left: str | None = None,
    is_full: bool = False,
    is_dry_run: bool = False,
    accept_deletions: bool = False,
    on_progress: Callable[[int, int], None] = do_nothing,
) -> Result:
    """Make the warehouse equal to the dataset, except for executions that are held back.

    Those that have vanished from the dataset are held back, too, unless ``is_full`` or ``accept_deletions``. ``runs_left``: the
    digest of the runs that the dataset's last load left there, empty where it left none; None where nobody is to know.
    ``on_progress`` is told how many files were read, of how many; what it raises ends the load.

    Raises:
        DestinationError: it failed; the warehouse is as it was, or the next load heals it. Or another copy of the dataset was
            loaded since, and this is not to replace it.
    """
    loaded = warehouse.loaded(would_load=is_dry_run)
    refuse_another(warehouse, loaded, contents.dataset_id)
    if runs_left is not None and not is_full:
        refuse_another_copy(warehouse, loaded, contents.digests["run"].keys(), runs_left)
    vanished = set[str]() if is_full or accept_deletions else vanished_executions(contents, loaded)
    pending = find_pending(contents, loaded, held_back=contents.held_back | vanished, is_full=is_full)
    new, changed, altered, removed = (
        len(each["execution"]) for each in (pending.new, pending.changed, pending.altered, pending.surplus)
    )
    result = Result(
        warehouse.where, new, changed, altered, removed, len(contents.damaged), len(contents.lost), len(vanished)
    )
    result.is_changed = loaded.is_outdated or not pending.is_empty
    if is_dry_run or not result.is_changed:
        return result
    wanted = {table.name: pending.arriving(group.kind) for group in GROUPS for table in group.tables}
    total = sum(contents.pieces(table, wanted[table.name]) for group in GROUPS for table in group.tables)
    done = 0

    def rows(table: Table) -> Iterator[pa.Table]:
        nonlocal done
        for piece in contents.rows(table, wanted[table.name]):
            on_progress(done, total)
            done += 1
            if len(piece):
                result.rows[table.name] += len(piece)
                yield warehouse.as_stored(piece)

    step = LoadStep(
        contents.dataset_id,
        removed={group.kind: pending.removed(group.kind) for group in GROUPS},
        arriving={
            kind: {item: digests[item] for item in pending.arriving(kind)} for kind, digests in contents.digests.items()
        },
        rows=rows,
    )
    result.notices = warehouse.replace(step)
    return result
