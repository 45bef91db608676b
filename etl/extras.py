"""Say which command adds an extra to this installation, whether uv, pipx, pip, or make in a checkout made it.

Reads what the installer left beside the installed package. Installs nothing.
"""

import json
import re
import sys
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from etl.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_NAME = "simulation-metrics-etl"
_TOOLS = {"uv-receipt.toml": ["uv", "tool", "install"], "pipx_metadata.json": ["pipx", "install", "--force"]}
"""By the file that marks an environment of uv or pipx: the command that makes it anew, with the extras it is given."""


def needs_extra(what: str, extra: str, missing: ImportError) -> ConfigurationError:
    """The error to raise where a package of the extra is not installed; its message ends with the command that adds it.

    ``what`` names the feature in the message, ``missing`` is the failed import.
    """
    from importlib.metadata import Distribution, distributions  # noqa: PLC0415 slow to import, and rarely needed

    # A copy that runs without being installed has no metadata: an empty distribution stands for it.
    installed = next(iter(distributions(name=_NAME)), Distribution.at(sys.prefix))
    command = install_command(extra, installed, Path(sys.prefix), sys.executable)
    return ConfigurationError(f'{what} needs the "{extra}" extra ({missing.name} is not installed): {command}')


def install_command(extra: str, installed: "Distribution", prefix: Path, python: str) -> str:
    """The command that adds the extra to the installation under ``prefix``, and keeps its other extras and its source.

    ``python`` is the interpreter of the environment, for pip and ``uv pip``. Text in the command is quoted for a shell.
    """
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    is_by_uv = (installed.read_text("INSTALLER") or "").strip() == "uv"
    command = ["uv", "pip", "install", "--python", python] if is_by_uv else [python, "-m", "pip", "install"]
    source = origin.get("url", "")
    if origin.get("dir_info", {}).get("editable"):
        checkout = unquote(urlsplit(source).path)
        if prefix == Path(checkout, ".venv"):
            return join(["make", "-C", checkout, "install", f"EXTRAS={extra}"])
        return join([*command, "--editable", f"{checkout}[{extra}]"])
    if vcs := origin.get("vcs_info"):
        source = f"{vcs['vcs']}+{source}@{vcs['commit_id']}"
    for mark, command_of_tool in _TOOLS.items():
        if (prefix / mark).exists():
            command = command_of_tool
            extra = ",".join(sorted({extra, *_extras_of(installed)}))
    return join([*command, f"{_NAME}[{extra}] @ {source}" if source else f"{_NAME}[{extra}]"])


def _extras_of(installed: "Distribution") -> set[str]:
    """The extras of which every package is installed."""
    from importlib.metadata import distributions  # noqa: PLC0415 as above

    needed = re.findall(r"^([\w.-]+).*extra == ['\"](\w+)", "\n".join(installed.requires or ()), re.MULTILINE)
    lacking = {extra for package, extra in needed if not any(distributions(name=package))}
    return {extra for _, extra in needed} - lacking
