"""Make a warehouse equal to the dataset: compare digests, replace items that differ, remove those that are gone.

It decides what a load does, and records how it went. How a kind of warehouse does it is not decided here.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import backoff
import pyarrow as pa
from msgspec.structs import replace

from etl.dataset.last_run import LastLoad, last_load_into, update_last_run
from etl.dataset.parts import Dataset
from etl.errors import DestinationError, ExporterError, WarehouseUnavailableError
from etl.load.contents import Contents, read_contents
from etl.load.drivers import do_nothing
from etl.load.interface import Loaded, LoadStep, Warehouse
from etl.load.open import open_warehouse
from etl.load.tables import GROUPS, arrow_schema_of, columns_of
from etl.model.digest import rows_digest
from etl.model.schema import STRING, Table
from etl.model.values import fields_of
from etl.model.wording import counted, first_few
from etl.settings.sections import WarehouseSettings

EXPERIMENTAL = "support for this warehouse is experimental. After the first load, run metrics-etl verify --warehouse"
"""What ``check`` and the first load say about a kind of warehouse that was never tried on the real service."""
RETRY_SECONDS = 120
"""How long after its first failure a load is tried again, if what ended it passes by itself."""
_PAUSE_MAX_SECONDS = 4
"""The longest pause between two tries; an interruption is noticed after it."""
_MADE_UP = "made up by metrics-etl check"
_MADE_UP_JSON = '"\\u65e5"'
"""No encoding of a database but UTF8 takes it."""


@dataclass(frozen=True, slots=True)
class PendingItems:
    """The items of one kind that differ between the dataset and the warehouse."""

    new: AbstractSet[str]
    """The dataset has them, and the warehouse does not."""
    changed: AbstractSet[str]
    """Both have them, with different digests; in a full load, all that both have, except ``altered`` ones."""
    altered: AbstractSet[str]
    """The warehouse has more or fewer rows of them than were loaded."""
    deleted: AbstractSet[str]
    """The warehouse has them, and the dataset does not."""

    @property
    def arriving(self) -> AbstractSet[str]:
        """The items whose rows the warehouse gets from the dataset."""
        return self.new | self.changed | self.altered

    @property
    def removed(self) -> AbstractSet[str]:
        """The items whose rows in the warehouse are removed, or replaced."""
        return self.changed | self.altered | self.deleted


@dataclass(slots=True)
class LoadResult:
    """What a load did, or what a dry run found that it would do."""

    warehouse: str
    """The warehouse, as messages call it."""
    new: int = 0
    """How many executions were new in the warehouse."""
    changed: int = 0
    """How many executions both had with different digests; in a full load, all that both had, except altered ones."""
    altered: int = 0
    """How many executions had more or fewer rows in the warehouse than were loaded."""
    removed: int = 0
    """How many executions were removed from the warehouse."""
    damaged: int = 0
    """How many executions were not loaded, because rows of them are missing or altered in the dataset."""
    missing: tuple[str, ...] = ()
    """Ids of the executions that stay in the warehouse although the dataset has nothing of them any more."""
    rows: Counter[str] = field(default_factory=Counter)
    """By table, how many rows were written; none in a dry run."""
    notices: list[str] = field(default_factory=list)
    """What else people should know, one line each."""
    is_changed: bool = False
    """Whether the load changed anything, or would."""

    @property
    def problems(self) -> list[str]:
        """Why the warehouse does not equal the dataset after the load, one line per reason."""
        lines = []
        if self.damaged:
            lines.append(
                f"{counted(self.damaged, 'execution')} could not be loaded, because rows in the dataset are damaged. "
                "Run metrics-etl run, which exports these rows again"
            )
        if self.missing:
            lines.append(
                f"the warehouse has {counted(len(self.missing), 'execution')} that the dataset does not have: "
                f"{first_few(self.missing)}. To remove what is not in the dataset, run metrics-etl load --full"
            )
        return lines

    @property
    def in_words(self) -> str:
        """What the load changed, in a few words."""
        counts = fields_of(self, "new", "changed") | {"changed in the warehouse": self.altered, "removed": self.removed}
        if texts := [f"{count:,} {name}" for name, count in counts.items() if count]:
            return f"executions: {', '.join(texts)}"
        return "already up to date"

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object, as ``load --json`` prints it."""
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
    """What differs, by kind. With ``is_full``, all that both have counts as changed, except altered items.

    Executions that are ``held_back`` are not removed from the warehouse, although the dataset has no digest of them.
    """
    pending = {}
    for group in GROUPS:
        ours = contents.digests[group.kind]
        theirs = loaded.digests.get(group.kind, {})
        both = ours.keys() & theirs.keys()
        altered = {item for item in both if theirs[item] is None}
        changed = {item for item in both - altered if is_full or theirs[item] != ours[item]}
        deleted = theirs.keys() - ours.keys() - (held_back if group.kind == "execution" else frozenset())
        new = ours.keys() - theirs.keys()
        pending[group.kind] = PendingItems(new=new, changed=changed, altered=altered, deleted=deleted)
    return pending


def missing_executions(contents: Contents, loaded: Loaded) -> set[str]:
    """The executions that the warehouse has as they were loaded, and of which the dataset has nothing any more.

    A deletion at the source is no reason: the dataset keeps deleted rows. So somebody took their files away.
    """
    known = contents.digests["execution"].keys() | contents.damaged
    theirs = loaded.digests.get("execution", {})
    return {item for item, digest in theirs.items() if digest is not None and item not in known}


def refuse_another(warehouse: Warehouse, loaded: Loaded, dataset_id: str) -> None:
    """Raise DestinationError if another dataset was loaded into the warehouse."""
    if loaded.dataset_id not in (None, dataset_id):
        raise DestinationError(
            f"{warehouse.where} holds the dataset {loaded.dataset_id}, but this one is {dataset_id}. "
            "Name another [warehouse] schema or url"
        )


def refuse_another_copy(warehouse: Warehouse, loaded: Loaded, export_runs: AbstractSet[str], runs_left: str) -> None:
    """Raise DestinationError if another copy of the dataset was loaded since this one.

    The sign is a run in the warehouse that is not in ``export_runs``. Exception: the warehouse still holds exactly the
    runs that this copy's last load left (their digest is ``runs_left``). Then this copy has lost runs since, and no
    other copy was loaded.
    """
    theirs = {item for item, digest in loaded.digests.get("run", {}).items() if digest is not None}
    others = theirs - export_runs
    if others and rows_digest(theirs) != runs_left:
        raise DestinationError(
            f"{warehouse.where} was last loaded from another copy of this dataset, with {counted(len(others), 'run')} "
            f"that this one lacks, such as {max(others)}. Load from one copy only. To use this one, run "
            "metrics-etl load --full"
        )


def synchronize(
    contents: Contents,
    warehouse: Warehouse,
    *,
    runs_left: str | None = None,
    is_full: bool = False,
    is_dry_run: bool = False,
    on_progress: Callable[[int, int], None] = do_nothing,
) -> LoadResult:
    """Make the warehouse equal to the dataset. If it fails, the next call repairs the rest.

    Two kinds of executions are held back, that is, left in the warehouse as they are: those that are damaged in the
    dataset and, unless ``is_full``, those that are missing from it.

    Args:
        contents: What the dataset holds.
        warehouse: Connected, and not opened to be read unless ``is_dry_run``.
        runs_left: Digest of the export runs that this dataset's last load left in the warehouse; empty if it was never
            loaded. With it, another copy of the dataset is refused, unless ``is_full``. None skips this check.
        is_full: Load everything anew, and remove executions that are missing from the dataset.
        is_dry_run: Find out what a load would do, and change nothing.
        on_progress: Called before each file with how many were read, of how many. An exception that it raises ends the
            load.

    Raises:
        DestinationError: the warehouse holds another dataset or another copy; or reading or writing failed, see
            ``Warehouse``.
    """
    loaded = warehouse.loaded()
    refuse_another(warehouse, loaded, contents.dataset_id)
    if runs_left is not None and not is_full:
        refuse_another_copy(warehouse, loaded, contents.digests["run"].keys(), runs_left)
    missing = set[str]() if is_full else missing_executions(contents, loaded)
    pending = find_pending(contents, loaded, held_back=contents.damaged | missing, is_full=is_full)
    of_executions = pending["execution"]
    result = LoadResult(
        warehouse.where,
        new=len(of_executions.new),
        changed=len(of_executions.changed),
        altered=len(of_executions.altered),
        removed=len(of_executions.deleted),
        damaged=len(contents.damaged),
        missing=tuple(sorted(missing)),
        is_changed=loaded.is_outdated or any(due.arriving or due.removed for due in pending.values()),
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
        removed={kind: due.removed for kind, due in pending.items()},
        arriving={kind: {item: contents.digests[kind][item] for item in due.arriving} for kind, due in pending.items()},
        times={"loaded_at": datetime.now(UTC), "complete_at": contents.complete_at},
        places={
            group.kind: {place for place, ids in contents.places(group).items() if ids & pending[group.kind].arriving}
            for group in GROUPS
        },
        rows=rows,
    )
    result.notices = warehouse.replace(step)
    return result


def load_warehouse(
    settings: WarehouseSettings,
    dataset: Dataset,
    now: datetime,
    *,
    is_full: bool = False,
    on_progress: Callable[[int, int], None] = do_nothing,
    on_wait: Callable[[], None] = do_nothing,
    on_retry: Callable[[str], None] = do_nothing,
) -> LoadResult:
    """Load the dataset into the warehouse of the settings, and record in the dataset how that went.

    What passes by itself is retried as a whole, from a new connection; what an earlier try has done, the next one sees.

    Call it only while holding the dataset's lock. See ``synchronize`` for ``is_full`` and ``on_progress``,
    ``open_warehouse`` for ``on_wait``. ``on_retry`` is called with the reason before each further try.

    Every ``ExporterError`` that ends the load, including one raised by ``on_progress`` or ``on_wait``, is recorded
    first as the load's problem.

    Raises:
        ConfigurationError: the warehouse's driver is not installed.
        DestinationError: the dataset cannot be read, or the warehouse cannot be loaded.
    """
    place = settings.place or ""
    last = last_load_into(dataset.files, place, now)

    def load_once() -> LoadResult:
        with closing(open_warehouse(settings.named_url, settings.namespace, on_wait=on_wait)) as warehouse:
            runs_left = last.runs_digest
            return synchronize(contents, warehouse, runs_left=runs_left, is_full=is_full, on_progress=on_progress)

    try:
        contents = read_contents(dataset)
        result = _until_it_passes(load_once, on_wait, on_retry)
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


def _until_it_passes(
    load_once: Callable[[], LoadResult], on_wait: Callable[[], None], on_retry: Callable[[str], None]
) -> LoadResult:
    """Load, and retry a load that is unavailable: at once, and then for ``RETRY_SECONDS``."""

    def tell(error: object) -> None:
        on_wait()
        on_retry(str(error))

    try:
        return load_once()
    except WarehouseUnavailableError as error:
        tell(error)
    retried = backoff.on_exception(
        backoff.expo,
        WarehouseUnavailableError,
        max_time=RETRY_SECONDS,
        max_value=_PAUSE_MAX_SECONDS,
        on_backoff=lambda failed: tell(failed["exception"]),
        logger=None,
    )
    return retried(load_once)()


def preview_load(settings: WarehouseSettings, dataset: Dataset, *, is_full: bool = False) -> LoadResult:
    """What ``load_warehouse`` would do; needs no lock, changes and records nothing.

    Errors as for ``load_warehouse``.
    """
    runs_left = last_load_into(dataset.files, settings.place or "", datetime.now(UTC)).runs_digest
    with closing(open_warehouse(settings.named_url, settings.namespace, "read")) as warehouse:
        return synchronize(read_contents(dataset), warehouse, runs_left=runs_left, is_full=is_full, is_dry_run=True)


def made_up_load(dataset_id: str) -> LoadStep:
    """The load that ``check`` has a warehouse rehearse, so that whatever a load needs shows.

    One item of each kind, with one row in each table, replaces the same item: nobody has such ids.
    """

    def row(table: Table) -> Iterator[pa.Table]:
        texts = [column for column in columns_of(table) if column.type == STRING]
        values = {column.name: _MADE_UP_JSON if column.is_json else _MADE_UP for column in texts}
        yield pa.Table.from_pylist([values], schema=arrow_schema_of(table))

    items = {group.kind: {_MADE_UP: "made up"} for group in GROUPS}
    return LoadStep(dataset_id, removed=items, arriving=items, times={}, places={}, rows=row)
