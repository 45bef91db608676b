"""Make a warehouse equal to the dataset: compare digests, replace what differs as a whole, remove what is not in the dataset."""

from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from msgspec.structs import replace

from etl.dataset.last_run import LastLoad, last_load_into, update_last_run
from etl.dataset.parts import Dataset
from etl.errors import DestinationError, ExporterError
from etl.load.contents import Contents, read_contents
from etl.load.drivers import do_nothing
from etl.load.interface import Loaded, LoadStep, Warehouse
from etl.load.open import open_warehouse
from etl.load.tables import GROUPS
from etl.model.digest import rows_digest
from etl.model.schema import Table
from etl.model.values import fields_of
from etl.model.wording import counted, first_few
from etl.settings.sections import WarehouseSettings as Section

EXPERIMENTAL = "experimental: tested with an emulator only; after the first load, run metrics-etl verify --warehouse"
"""What ``check`` and the first load say of a warehouse whose kind was never tried on the real service."""


@dataclass(frozen=True, slots=True)
class PendingItems:
    """What a load has to do with the items of a kind.

    ``new`` are not in the warehouse, ``deleted`` are there alone; ``changed`` are other ones in the dataset than when they were
    loaded, and ``altered`` in the warehouse.
    """

    new: AbstractSet[str]
    changed: AbstractSet[str]
    altered: AbstractSet[str]
    deleted: AbstractSet[str]

    @property
    def arriving(self) -> AbstractSet[str]:
        """The items of which the warehouse needs the dataset's rows."""
        return self.new | self.changed | self.altered

    @property
    def removed(self) -> AbstractSet[str]:
        """The items whose rows in the warehouse go."""
        return self.changed | self.altered | self.deleted


@dataclass(slots=True)
class Result:
    """What a load did, or would do: executions by what was the matter with them, and rows written by table.

    ``damaged`` executions were left alone, since the dataset does not have all of their rows, and so were the ``missing`` ones, of
    which it has nothing any more.
    """

    warehouse: str
    new: int = 0
    changed: int = 0
    altered: int = 0
    removed: int = 0
    damaged: int = 0
    missing: tuple[str, ...] = ()
    rows: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)
    is_changed: bool = False

    @property
    def problems(self) -> list[str]:
        """One line for each thing that is missing from the warehouse."""
        lines = []
        if self.damaged:
            lines.append(
                f"{counted(self.damaged, 'execution')} not loaded, because rows in the dataset are damaged: "
                "metrics-etl run exports them again"
            )
        if self.missing:
            lines.append(
                f"{counted(len(self.missing), 'execution')} in the warehouse but not in the dataset: "
                f"{first_few(self.missing)}; metrics-etl load --full removes them there"
            )
        return lines

    @property
    def in_words(self) -> str:
        """What the load was about, in a few words."""
        told = fields_of(self, "new", "changed") | {"changed in the warehouse": self.altered, "removed": self.removed}
        counts = ", ".join(f"{count:,} {name}" for name, count in told.items() if count)
        nothing = "no executions" if self.is_changed else "nothing: it is up to date"
        return f"executions: {counts}" if counts else nothing

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return {
            "warehouse": self.warehouse,
            "executions": fields_of(self, "new", "changed", "altered", "removed", "damaged")
            | {"missing": len(self.missing)},
            "rows": dict(self.rows),
            **fields_of(self, "is_changed", "problems", "notices"),
        }


def find_pending(
    contents: Contents, loaded: Loaded, *, held_back: AbstractSet[str], is_full: bool = False
) -> dict[str, PendingItems]:
    """By kind what differs, but for executions that are held back; with ``is_full`` everything that both have counts as changed."""
    pending = {}
    for group in GROUPS:
        ours, theirs = contents.digests[group.kind], loaded.digests.get(group.kind, {})
        left_alone = held_back if group.kind == "execution" else frozenset()
        both = ours.keys() & theirs.keys()
        altered = {item for item in both if theirs[item] is None}
        changed = {item for item in both - altered if is_full or theirs[item] != ours[item]}
        new, deleted = ours.keys() - theirs.keys(), theirs.keys() - ours.keys() - left_alone
        pending[group.kind] = PendingItems(new, changed, altered, deleted)
    return pending


def missing_executions(contents: Contents, loaded: Loaded) -> set[str]:
    """Those that are as they were loaded, and of which the dataset has nothing any more: deleted ones keep their rows there."""
    known = contents.digests["execution"].keys() | contents.damaged
    there = loaded.digests.get("execution", {})
    return {item for item, digest in there.items() if digest is not None and item not in known}


def refuse_another(warehouse: Warehouse, loaded: Loaded, dataset_id: str) -> None:
    """Raise DestinationError if what is loaded is of another dataset than this one."""
    if loaded.dataset_id not in (None, dataset_id):
        raise DestinationError(
            f"{warehouse.where} holds another dataset ({loaded.dataset_id}; this one is {dataset_id}): "
            "name another [warehouse] schema or url"
        )


def refuse_another_copy(warehouse: Warehouse, loaded: Loaded, export_runs: AbstractSet[str], left: str) -> None:
    """Raise DestinationError if there are runs that this dataset does not have, and others than its own last load left there.

    ``export_runs`` are the dataset's; ``left`` is the digest of those that the load left: some may have been removed since.
    """
    there = {item for item, digest in loaded.digests.get("run", {}).items() if digest is not None}
    if (others := there - export_runs) and rows_digest(there) != left:
        raise DestinationError(
            f"{warehouse.where}: another copy of this dataset has been loaded there since this one ({counted(len(others), 'run')}, "
            f"such as {max(others)}): load from one copy only; to keep using this one, run metrics-etl load --full"
        )


def synchronize(
    contents: Contents,
    warehouse: Warehouse,
    *,
    runs_left: str | None = None,
    is_full: bool = False,
    is_dry_run: bool = False,
    on_progress: Callable[[int, int], None] = do_nothing,
) -> Result:
    """Make the warehouse equal to the dataset, except for executions that are held back. The next load heals one that failed.

    Those that are missing from the dataset are held back, too, unless ``is_full``. ``runs_left``: the digest of the runs that the
    dataset's last load left there, empty where it left none; None where nobody is to know. ``on_progress`` is told how many files
    were read, of how many; what it raises ends the load.
    """
    loaded = warehouse.loaded()
    refuse_another(warehouse, loaded, contents.dataset_id)
    if runs_left is not None and not is_full:
        refuse_another_copy(warehouse, loaded, contents.digests["run"].keys(), runs_left)
    missing = set[str]() if is_full else missing_executions(contents, loaded)
    pending = find_pending(contents, loaded, held_back=contents.damaged | missing, is_full=is_full)
    of_executions = pending["execution"]
    result = Result(
        warehouse.where,
        new=len(of_executions.new),
        changed=len(of_executions.changed),
        altered=len(of_executions.altered),
        removed=len(of_executions.deleted),
        damaged=len(contents.damaged),
        missing=tuple(sorted(missing)),
        is_changed=loaded.is_outdated or any(each.arriving or each.removed for each in pending.values()),
    )
    if is_dry_run or not result.is_changed:
        return result
    wanted = {table.name: pending[group.kind].arriving for group in GROUPS for table in group.tables}
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
        removed={kind: items.removed for kind, items in pending.items()},
        arriving={kind: {item: contents.digests[kind][item] for item in due.arriving} for kind, due in pending.items()},
        places={
            group.kind: {place for place, ids in contents.places(group).items() if ids & pending[group.kind].arriving}
            for group in GROUPS
        },
        rows=rows,
    )
    result.notices = warehouse.replace(step)
    return result


def load_warehouse(
    settings: Section,
    dataset: Dataset,
    now: datetime,
    *,
    is_full: bool = False,
    on_progress: Callable[[int, int], None] = do_nothing,
    on_wait: Callable[[], None] = do_nothing,
) -> Result:
    """Load what differs, as ``load`` says; only for the holder of the dataset's lock. ``on_wait`` as ``open_warehouse`` says."""
    place = settings.place or ""
    last = last_load_into(dataset.files, place, now)
    try:
        contents = read_contents(dataset)
        with closing(open_warehouse(settings.named_url, settings.namespace, on_wait=on_wait)) as warehouse:
            result = synchronize(
                contents, warehouse, runs_left=last.runs_digest, is_full=is_full, on_progress=on_progress
            )
    except ExporterError as error:
        update_last_run(dataset.files, {"loads": {place: replace(last, tried_at=now, problem=str(error))}})
        raise
    if settings.is_experimental and last.loaded_at is None:
        result.notices = [*result.notices, EXPERIMENTAL]
    done = LastLoad(
        warehouse=place,
        tried_at=now,
        export_run_id=max(contents.digests["run"], default=None),
        runs_digest=rows_digest(contents.digests["run"]),
        problem="; ".join(result.problems) or None,
        loaded_at=last.loaded_at if result.problems else now,
    )
    update_last_run(dataset.files, {"loads": {place: done}})
    return result


def preview_load(settings: Section, dataset: Dataset, *, is_full: bool = False) -> Result:
    """What ``load_warehouse`` would do; changes nothing. Errors as there."""
    left = last_load_into(dataset.files, settings.place or "", datetime.now(UTC)).runs_digest
    with closing(open_warehouse(settings.named_url, settings.namespace, is_read_only=True)) as warehouse:
        return synchronize(read_contents(dataset), warehouse, runs_left=left, is_full=is_full, is_dry_run=True)
