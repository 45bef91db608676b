"""The status of what a user gives: settings, the path of a settings file, or the dataset alone.

It finds the dataset and reads the clock; ``read_status.py`` reads the dataset.
"""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from etl.errors import ConfigurationError, DestinationError
from etl.files.interface import Files
from etl.files.open import open_files
from etl.inspect.read_status import read_status
from etl.inspect.status import NIGHTLY_HOURS, Status
from etl.model.locations import Options
from etl.settings import Settings

_Given = Settings | str | os.PathLike[str] | None


def status(settings: _Given = None, *, max_age_hours: float = NIGHTLY_HOURS, options: Options | None = None) -> Status:
    """Whether all is well, and what to do next.

    Reads only the dataset, as ``metrics-etl status`` does: needs no key and changes nothing. ``settings`` may also be
    the path of a settings file (``.toml``) or of the dataset: its folder, or its URL in a bucket, with ``options`` as
    in ``[destination.options]``. The verdict is good only if the last complete export is at most ``max_age_hours`` old.

    Raises:
        ConfigurationError: a mistake in the settings.
        DestinationError: there is no dataset, or it cannot be read.
    """
    if isinstance(settings, str | os.PathLike) and not os.fspath(settings).endswith(".toml"):
        of_dataset = read_status(open_files(os.fspath(settings), options), now=datetime.now(UTC))
        return replace(of_dataset, max_age_hours=max_age_hours)
    return read_now(settings, max_age_hours)[2]


def read_now(given: _Given, max_age_hours: float = NIGHTLY_HOURS) -> tuple[Settings, Files, Status]:
    """The settings, the files of their dataset, and its status with ``problems_now``.

    ``given`` are settings or the path of their file; None for where the file is by default. Problems are found by
    reading alone, without the API, the keys or the rows. If the settings name no run tests, those that the last run
    knew count as configured.

    Raises:
        ConfigurationError: a mistake in the settings that hides where the dataset is.
        DestinationError: there is no dataset, or it cannot be read.
    """
    path = None if given is None or isinstance(given, Settings) else Path(given)
    configured = None
    problems = list[str]()
    try:
        settings = given if isinstance(given, Settings) else Settings.load(path, needs_keys=False)
        configured = settings.configured
    except ConfigurationError as error:
        problems = str(error).split("\n")
        settings = Settings.load(path, needs_keys=False, needs_run_tests=False)
    files = open_files(settings.destination.path, settings.destination.options)
    of_dataset = read_status(files, now=datetime.now(UTC), configured=configured, warehouse=settings.warehouse.place)
    try:
        files.examine()
    except (ConfigurationError, DestinationError) as error:
        problems += str(error).split("\n")
    would_fail = configured is not None and bool(problems)
    now = replace(of_dataset, max_age_hours=max_age_hours, sweep_days=settings.export.sweep_days)
    return settings, files, replace(now, problems_now=tuple(problems), would_fail=would_fail)
