"""Paths in the settings: ``~`` and variables in them, and what a relative one is relative to.

One in the settings file is relative to the file's folder, so that a file means the same dataset wherever a command is run; one in
the environment is relative to the working directory.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etl.errors import ConfigurationError
from etl.model.locations import IN_FILES, has_few_slashes, scheme_of, without_secrets
from etl.settings.messages import ENV_PREFIX

_PATHS = (("destination", "path"), ("api", "ca_file"), ("warehouse", "url"))
_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def working_folder() -> Path:
    """The folder that the command was run in.

    Raises:
        ConfigurationError: it was removed.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigurationError("the working directory was removed: change to one that exists") from None


def whole_paths(
    from_file: Mapping[str, Any], from_environment: Mapping[str, Any], file: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same sections, from the file and from the environment, with whole paths, and with a default place for the dataset.

    The default is ``data`` beside the settings file, or beside the folder ``config`` that holds it.

    Raises:
        ConfigurationError: a path names a user or a variable that does not exist, or the working directory was removed.
    """
    here = working_folder()
    folder = Path(os.path.normpath(file.absolute().parent))
    above, below = dict(from_environment), dict(from_file)
    for section, key in _PATHS:
        _make_whole(above, section, key, here, f"environment: {ENV_PREFIX}{section.upper()}__{key.upper()}")
        _make_whole(below, section, key, folder, f"{file}: [{section}] {key}")
    given, overriding = below.get("destination", {}), above.get("destination")
    if isinstance(given, dict) and not (isinstance(overriding, dict) and "path" in overriding):
        default = (folder.parent if folder.name == "config" else folder) / "data"
        below["destination"] = {"path": str(default)} | given
    return below, above


def _make_whole(sections: dict[str, Any], section: str, key: str, folder: Path, where: str) -> None:
    keys = sections.get(section)
    if isinstance(keys, dict) and isinstance(value := keys.get(key), str) and value:
        # A database in a file has a URL that holds its path: duckdb://metrics.duckdb.
        scheme, path = (
            (f"{found}://", value.partition("://")[2]) if (found := scheme_of(value)) in IN_FILES else ("", value)
        )
        sections[section] = keys | {key: scheme + (_whole(path, folder, where) if path else "")}


def _refuse_odd(path: str, where: str) -> None:
    """Not where the folder comes first that it is relative to, which may have any name."""
    if not path.isprintable():
        raise ConfigurationError(f"{where} must be a path without control characters, got {without_secrets(path)}")
    if path != path.strip() or path.startswith(('"', "'")):  # as a file of variables hands them on
        raise ConfigurationError(f"{where} must have no blanks or quotes around it")


def _whole(path: str, folder: Path, where: str) -> str:
    _refuse_odd(path, where)

    def value_of(match: re.Match[str]) -> str:
        name = match[2] if match[1] is None else match[1]
        if not (value := os.environ.get(name)):
            if "://" in path and "@" in path[match.end() :]:  # what follows may be a part of a password
                raise ConfigurationError(
                    f"{where}: the user name or password names a variable that is not set: set it, or write %24 for a $"
                )
            raise ConfigurationError(f"{where}: the variable {match[0]} is not set: set it, or write the path in full")
        return value

    whole = _VARIABLE.sub(value_of, path)
    _refuse_odd(whole, where)
    if path.startswith("~"):
        whole = os.path.expanduser(whole)  # noqa: PTH111 that of pathlib raises, and takes "./~" for a home
        user = path.partition("/")[0]
        if whole.startswith("~") or (user == "~" and os.environ.get("HOME") == ""):
            raise ConfigurationError(f"{where}: {user} has no home here: write the path in full")
    is_url = "://" in whole or has_few_slashes(whole)
    return whole if is_url or Path(whole).is_absolute() else os.path.normpath(folder / whole)
