"""Paths in the settings: ``~`` and variables in them, and what a relative one is relative to.

A path in the settings file is relative to the file's folder, so that the file means the same dataset wherever a
command runs. A path in the environment is relative to the working directory. Nothing here looks at the file system.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etl.errors import ConfigurationError
from etl.model.locations import IN_FILES, has_few_slashes, scheme_of
from etl.settings.messages import variable_of

_PATHS = (("destination", "path"), ("api", "ca_file"), ("warehouse", "url"))
"""Section and key of each setting that is a path, or a URL that may hold one."""
_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def whole_paths(
    from_file: Mapping[str, Any], from_environment: Mapping[str, Any], file: Path, mistakes: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections from the file and those from the environment, with whole paths and a default place for the dataset.

    The default is ``data`` beside the settings file, or beside the folder ``config`` that holds it. A path with a
    mistake, such as a user or a variable that does not exist, is left out, and gets a line in ``mistakes``.
    """
    folder = Path(os.path.normpath(file.absolute().parent))
    from_file, from_environment = dict(from_file), dict(from_environment)
    for section, key in _PATHS:
        for sections, base, where in (
            (from_environment, Path.cwd(), f"environment: {variable_of(section, key)}"),
            (from_file, folder, f"{file}: [{section}] {key}"),
        ):
            try:
                _make_whole(sections, section, key, base, where)
            except ConfigurationError as error:
                mistakes.append(str(error))
                sections[section] = {name: value for name, value in sections[section].items() if name != key}
    destination, overriding = from_file.get("destination", {}), from_environment.get("destination")
    if isinstance(destination, dict) and not (isinstance(overriding, dict) and "path" in overriding):
        default = (folder.parent if folder.name == "config" else folder) / "data"
        from_file["destination"] = {"path": str(default)} | destination
    return from_file, from_environment


def _make_whole(sections: dict[str, Any], section: str, key: str, folder: Path, where: str) -> None:
    """Put the whole path in place of the setting, if the section has it and it is a text."""
    keys = sections.get(section)
    if isinstance(keys, dict) and isinstance(value := keys.get(key), str) and value:
        # A database in a file has a URL that holds its path: duckdb://metrics.duckdb.
        scheme = scheme_of(value)
        prefix = f"{scheme}://" if scheme in IN_FILES else ""
        path = value.removeprefix(prefix)
        sections[section] = keys | {key: prefix + (_whole(path, folder, where) if path else "")}


def _whole(path: str, folder: Path, where: str) -> str:
    """The path with the values of its variables, absolute unless it is a URL; a relative one is relative to ``folder``.

    Raises:
        ConfigurationError: the path has a mistake. The message begins with ``where``.
    """

    def value_of(match: re.Match[str]) -> str:
        if value := os.environ.get(match[1] or match[2] or ""):
            return value
        if "://" in path and "@" in path[match.end() :]:
            # The name of the variable is not repeated: it may be a part of a password.
            raise ConfigurationError(
                f"{where}: the user name or password names a variable that is not set. Set it, or write %24 for a $"
            )
        raise ConfigurationError(f"{where}: the variable {match[0]} is not set. Set it, or write the path in full")

    whole = _VARIABLE.sub(value_of, path)
    if whole != whole.strip() or whole.startswith(('"', "'")):
        # As docker run --env-file hands them on.
        raise ConfigurationError(f"{where} must not have spaces or quotes around it")
    if path.startswith("~"):
        try:
            whole = str(Path(whole).expanduser())
        except RuntimeError:
            user = path.partition("/")[0]
            raise ConfigurationError(f"{where}: this machine has no user {user}. Write the path in full") from None
    is_url = "://" in whole or has_few_slashes(whole)
    return whole if is_url or Path(whole).is_absolute() else os.path.normpath(folder / whole)
