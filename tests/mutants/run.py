"""Take a guard away, and see who notices: ``python -m tests.mutants.run NAME``, with any part of the guard's name.

The killer is what the mutant names, or else the tests of its module: files of tests, or ``MACHINE``, the random
histories of ``tests/machine``. With ``--machine`` they are the killer of any mutant. A history counts only if it is
green with the guard: so this works while some law is broken.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.test_mutants import MACHINE, MUTANTS, ROOT, Mutant

HISTORIES, STEPS = 300, 30
_REPLAY = re.compile(r"replay: python -m (tests\.machine --seed (\d+) .*)")


@dataclass(frozen=True, slots=True)
class Verdict:
    is_killed: bool
    text: str


def spoiled(mutant: Mutant, folder: Path) -> Path:
    """A copy of the project without the guard."""
    for name in ("etl", "tests", "config", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    path = folder / mutant.path
    text = path.read_text()
    assert text.count(mutant.text) == 1, f"the guard stands {text.count(mutant.text)} times in {mutant.path}"
    path.write_text(text.replace(mutant.text, mutant.without))
    return folder


def by_machine(folder: Path, *, ignored: str = "", histories: int = HISTORIES) -> Verdict:
    """Tell histories against the copy until one breaks a law there that holds here."""
    first = 0
    while first < histories:
        told = _machine(folder, "--first", str(first), "--histories", str(histories - first), "--ignore", ignored)
        found = _REPLAY.search(told.stdout)
        if told.returncode == 0:
            break
        if found is None:
            return Verdict(is_killed=False, text=f"the machine itself fails: {told.stdout[-500:]}{told.stderr[-1500:]}")
        if _machine(ROOT, *found[1].split()[1:], "--ignore", ignored).returncode == 0:
            law = next((line for line in told.stdout.splitlines()[1:] if line), "")
            return Verdict(is_killed=True, text=f"{law}\n  {found[0]}")
        first = int(found[2]) + 1
    return Verdict(
        is_killed=False, text=f"{histories} histories of {STEPS} steps are green, or red with the guard, too"
    )


def pytest_in(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of the copy against the copy's code."""
    return _python("pytest", "-q", "-x", "-p", "no:cacheprovider", *tests, folder=folder)


def _machine(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _python("tests.machine", "--steps", str(STEPS), *arguments, folder=folder)


def _python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def verdict_on(mutant: Mutant, folder: Path, *, by: tuple[str, ...] | None = None, ignored: str = "") -> Verdict:
    """Whether its killers, or these ones, notice that the guard is gone."""
    copy, killers = spoiled(mutant, folder), by or mutant.killers
    if MACHINE in killers:
        return by_machine(copy, ignored=ignored)
    result = pytest_in(copy, *killers)
    last = (result.stdout.splitlines() or [""])[-1]
    return Verdict(is_killed=result.returncode == 1 and " failed" in last, text=last)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants.run", description="Take guards away, and see who notices."
    )
    parser.add_argument("name", nargs="?", default="", help="a part of the guard's name; all of them by default")
    parser.add_argument("--machine", action="store_true", help="whatever kills them usually, try the random histories")
    parser.add_argument("--ignore", default="", help="laws that the histories do not judge, as L7,L10")
    options = parser.parse_args()
    chosen = [each for each in MUTANTS if options.name in each.guard]
    if not chosen:
        sys.exit(f"no guard is called {options.name}")
    survivors = 0
    for mutant in chosen:
        with tempfile.TemporaryDirectory() as folder:
            verdict = verdict_on(
                mutant, Path(folder), by=(MACHINE,) if options.machine else None, ignored=options.ignore
            )
        survivors += not verdict.is_killed
        print(f"{'killed' if verdict.is_killed else 'SURVIVES'}  {mutant.guard}: {verdict.text}", flush=True)
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
