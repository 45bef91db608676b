"""Which command adds an extra to this installation, however it was made: by uv, pipx, pip, or make in a checkout."""

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
"""By the file that marks their environments, what makes these anew with the extras that are named."""


def needs_extra(what: str, extra: str, missing: ImportError) -> ConfigurationError:
    """What to raise where a package of the extra is not installed."""
    from importlib.metadata import Distribution, distributions  # noqa: PLC0415 it takes a while, and few need it

    # Of a copy that only runs nothing is installed, and nothing is told.
    installed = next(iter(distributions(name=_NAME)), Distribution.at(sys.prefix))
    command = install_command(extra, installed, Path(sys.prefix), sys.executable)
    return ConfigurationError(f'{what} needs the "{extra}" extra ({missing.name} is not installed): {command}')


def install_command(extra: str, installed: "Distribution", prefix: Path, python: str) -> str:
    """The command that adds the extra to what is installed under the prefix; it keeps the extras and the source of that."""
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
    for mark, tool in _TOOLS.items():
        if (prefix / mark).exists():
            command, extra = tool, ",".join(sorted({extra, *_extras_of(installed)}))
    return join([*command, f"{_NAME}[{extra}]{source and f' @ {source}'}"])


def _extras_of(installed: "Distribution") -> set[str]:
    """The extras of which every package is installed."""
    from importlib.metadata import distributions  # noqa: PLC0415 as above

    found = re.findall(r"^([\w.-]+).*extra == ['\"](\w+)", "\n".join(installed.requires or ()), re.MULTILINE)
    return {extra for _, extra in found} - {extra for name, extra in found if not any(distributions(name=name))}
