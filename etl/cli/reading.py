"""The dataset of the settings and its status, for commands of a machine that only reads."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from etl.errors import ConfigurationError
from etl.inspect.status import Status, read_status
from etl.load.files.contract import Files
from etl.load.files.open import open_files
from etl.settings import RunTest, Settings


def open_settings(config: Path | None) -> tuple[Settings, Sequence[RunTest] | None]:
    """The settings, and the run tests that they name; None where they name none: there the last run tells.

    Raises:
        ConfigurationError: something in them is wrong.
    """
    try:
        settings = Settings.load(config, needs_keys=False)
    except ConfigurationError:
        return Settings.load(config, needs_keys=False, needs_run_tests=False), None
    return settings, settings.run_tests


def read_dataset(settings: Settings, configured: Sequence[RunTest] | None) -> tuple[Files, Status]:
    """The files of the dataset, and its status now.

    Raises:
        DestinationError: there is no dataset, or it cannot be read.
    """
    files = open_files(settings.destination.path, settings.destination.options)
    status = read_status(files, now=datetime.now(UTC), configured=configured, warehouse=settings.warehouse.place)
    return files, status
