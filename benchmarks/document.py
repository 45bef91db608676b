"""Write tables into a document: each between two markers, ``<!-- name -->`` and ``<!-- end of name -->``."""

import os
import platform
import re
import subprocess
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import ROOT


def publish(document: Path, tables: Mapping[str, str]) -> None:
    """Put each table between its two markers in the document.

    Raises:
        SystemExit: the document has no such markers.
    """
    text = document.read_text()
    for name, content in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        if begin not in text or end not in text:
            raise SystemExit(f"{document}: no place for {name}")
        text = f"{text[: text.index(begin)]}{begin}{content}\n{text[text.index(end) :]}"
    document.write_text(text)


def check_places(document: Path, names: Collection[str]) -> None:
    """Compare the document's places with the names of the tables.

    Raises:
        SystemExit: a table has no place in the document, or a place has no table.
    """
    places = set(re.findall(r"<!-- end of (.+) -->", document.read_text()))
    if without_place := set(names) - places:
        raise SystemExit(f"{document}: no place for {', '.join(sorted(without_place))}")
    if without_table := places - set(names):
        raise SystemExit(f"{document}: nothing measures {', '.join(sorted(without_table))}")


def load() -> str:
    """How many processes have been running, on the average of a minute."""
    return f"{os.getloadavg()[0]:.2f}"


def machine() -> str:
    """What all figures depend on: commit, day, processors, system and Python."""
    commit = _git("rev-parse", "--short=10", "HEAD") + (" with changes" if _git("status", "--porcelain") else "")
    models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = models[0] if models else platform.machine()
    return (
        f"Commit {commit}, measured on {datetime.now(UTC):%Y-%m-%d} with {os.cpu_count()} processors ({processor}), "
        f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}, Python {platform.python_version()}"
    )


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S607
