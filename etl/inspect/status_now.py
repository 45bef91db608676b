"""``status`` by what a user gives: settings, the path of their file, or the dataset alone."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from etl.errors import ConfigurationError, DestinationError
from etl.inspect.status import Status, read_status
from etl.inspect.verdict import NIGHTLY_HOURS
from etl.load.files.contract import Files
from etl.load.files.open import open_files
from etl.model.locations import Options
from etl.settings import RunTest, Settings


def status(
    settings: Settings | str | os.PathLike[str] | None = None,
    *,
    max_age_hours: float = NIGHTLY_HOURS,
    options: Options | None = None,
) -> Status:
    """Whether all is well: a verdict with the next step, freshness, gaps, last runs.

    Reads the dataset alone, as ``metrics-etl status`` does: sends no request, needs no key and changes nothing. In place of
    settings it takes the path of their file (``.toml``), or of the dataset: its folder, or its URL in a bucket, with ``options`` as
    in ``[destination.options]``. The verdict is good if the last complete export is no older than ``max_age_hours``.

    Raises:
        ConfigurationError: a mistake in the settings.
        DestinationError: there is no dataset, or it cannot be read.
    """
    if settings is None or isinstance(settings, Settings):
        return status_by(settings, max_age_hours)
    path = os.fspath(settings)
    if path.endswith(".toml"):
        return status_by(Path(path), max_age_hours)
    return replace(read_status(open_files(path, options), now=datetime.now(UTC)), max_age_hours=max_age_hours)


def status_by(settings: Settings | Path | None, max_age_hours: float = NIGHTLY_HOURS) -> Status:
    """The status by these settings, with what would end an export now as far as reading tells: without API, keys or rows."""
    chosen, configured, problems = open_settings(settings)
    files, found = read_dataset(chosen, configured)
    if not problems:
        try:
            files.examine()
        except (ConfigurationError, DestinationError) as error:
            problems = str(error).split("\n")
    would_fail = configured is not None and bool(problems)
    return replace(found, problems_now=tuple(problems), would_fail=would_fail, max_age_hours=max_age_hours)


def open_settings(settings: Settings | Path | None) -> tuple[Settings, Sequence[RunTest] | None, list[str]]:
    """The settings, and the run tests that they name; None where they name none, and why: there the last run tells."""
    if isinstance(settings, Settings):
        return settings, settings.configured, []
    try:
        loaded = Settings.load(settings, needs_keys=False)
    except ConfigurationError as error:
        return Settings.load(settings, needs_keys=False, needs_run_tests=False), None, str(error).split("\n")
    return loaded, loaded.run_tests, []


def read_dataset(settings: Settings, configured: Sequence[RunTest] | None) -> tuple[Files, Status]:
    """The files of the dataset, and its status now; DestinationError when there is none, or it cannot be read."""
    files = open_files(settings.destination.path, settings.destination.options)
    return files, read_status(files, now=datetime.now(UTC), configured=configured, warehouse=settings.warehouse.place)
