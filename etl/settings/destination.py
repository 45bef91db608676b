"""Where the dataset is, of settings that may have mistakes elsewhere."""

import os
import tomllib
from pathlib import Path

from pydantic import ValidationError

from etl.errors import ConfigurationError
from etl.settings.load import DEFAULT_PATH
from etl.settings.messages import ENV_PREFIX
from etl.settings.paths import whole_paths
from etl.settings.sections import Destination


def find_destination(path: str | Path | None = None) -> str | None:
    """The path of the dataset, as ``Settings.load(path)`` would have it; None when neither file nor environment tell."""
    file = Path(path or os.environ.get(f"{ENV_PREFIX}CONFIG") or DEFAULT_PATH)
    named = os.environ.get(f"{ENV_PREFIX}DESTINATION__PATH")
    try:
        from_file = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        from_file = None
    if from_file is None:
        if not named:
            return None
        from_file = {}
    from_file = {"destination": from_file.get("destination", {})}
    try:
        below, above = whole_paths(from_file, {"destination": {"path": named}} if named else {}, file)
        return Destination.model_validate(below["destination"] | above.get("destination", {})).path
    except (ConfigurationError, ValidationError, TypeError):
        return None
