"""Bring the warehouse of the settings up to date with the dataset, and note how that went for ``status``."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

from msgspec.structs import replace

from etl.errors import ExporterError
from etl.load.dataset import Dataset
from etl.load.warehouse.contents import read_contents
from etl.load.warehouse.last_load import LastLoad, last_load_into, note_load
from etl.load.warehouse.load import Result, load
from etl.load.warehouse.target import NotEnoughMemoryError, do_nothing, open_warehouse
from etl.model.digest import rows_digest
from etl.settings.sections import Warehouse


def load_warehouse(
    settings: Warehouse,
    dataset: Dataset,
    now: datetime,
    *,
    is_full: bool = False,
    accept_deletions: bool = False,
    on_progress: Callable[[int, int], None] = do_nothing,
    on_wait: Callable[[], None] = do_nothing,
) -> Result:
    """Load what differs, as ``load`` says; ``on_wait`` as ``open_warehouse`` says. Only for the holder of the dataset's lock.

    Raises:
        ConfigurationError: no warehouse is configured, or its package is not installed.
        DestinationError: the dataset cannot be read, or the warehouse failed; the next load makes up for it.
    """
    place = settings.place or ""
    last = last_load_into(dataset.files, place, now)
    try:
        contents = read_contents(dataset)
        with closing(open_warehouse(settings.named_url, settings.namespace, on_wait=on_wait)) as warehouse:
            work = partial(
                load,
                contents,
                warehouse,
                runs_left=last.runs_digest,
                is_full=is_full,
                accept_deletions=accept_deletions,
                on_progress=on_progress,
            )
            try:
                result = work()
            except NotEnoughMemoryError:
                result = work()
    except ExporterError as error:
        note_load(dataset.files, replace(last, tried_at=now, problem=str(error)))
        raise
    note_load(
        dataset.files,
        LastLoad(
            warehouse=place,
            tried_at=now,
            export_run_id=max(contents.digests["run"], default=None),
            runs_digest=rows_digest(contents.digests["run"]),
            problem="; ".join(result.problems) or None,
            loaded_at=last.loaded_at if result.problems else now,
        ),
    )
    return result


def preview_load(settings: Warehouse, dataset: Dataset, *, is_full: bool = False) -> Result:
    """What ``load_warehouse`` would do; changes nothing. Errors as there."""
    left = last_load_into(dataset.files, settings.place or "", datetime.now(UTC)).runs_digest
    with closing(open_warehouse(settings.named_url, settings.namespace, is_read_only=True)) as warehouse:
        return load(read_contents(dataset), warehouse, runs_left=left, is_full=is_full, is_dry_run=True)
