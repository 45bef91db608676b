"""Where the dataset is, of settings that may have mistakes elsewhere."""

import os
import tomllib
from pathlib import Path

from pydantic import ValidationError

from etl.errors import ConfigurationError
from etl.settings.messages import ENV_PREFIX
from etl.settings.paths import whole_paths
from etl.settings.read import DEFAULT_PATH, Environment, Settings, merged
from etl.settings.sections import Destination


def find_destination(path: str | Path | None = None) -> Destination | None:
    """The section ``[destination]``, as ``Settings.load(path)`` would have it; None when neither file nor environment tell."""
    file = Path(path or os.environ.get(f"{ENV_PREFIX}CONFIG") or DEFAULT_PATH)
    try:
        named = Environment(Settings)().get("destination", {})
    except ConfigurationError:
        named = {}
    try:
        from_file = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        from_file = None
    if from_file is None:
        if "path" not in named:
            return None
        from_file = {}
    from_file = {"destination": from_file.get("destination", {})}
    try:
        below, above = whole_paths(from_file, {"destination": named}, file)
        return Destination.model_validate(merged(below, above)["destination"])
    except (ConfigurationError, ValidationError, TypeError):
        return None
