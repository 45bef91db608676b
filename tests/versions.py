"""Run the tests of the core on the lowest versions that pyproject.toml allows, and on each Python that it names.

Usage: ``python -m tests.versions [lowest | 3.12 | ...]``; without a name, all of them. Warnings are errors, as in all
tests. A Python that is not installed is named and left out; that alone is no failure.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
LOWEST = [ROOT / "tests" / "lowest.lock"]
LOCKED = [ROOT / "requirements.lock", ROOT / "tests" / "tools.lock", *sorted((ROOT / "locks").glob("*.lock"))]
ENVIRONMENTS = {"lowest": (PYTHONS[0], LOWEST)} | {python: (python, LOCKED) for python in PYTHONS}
"""By name, the Python and the locks of each."""
KNOWN_WARNINGS: dict[str, list[str]] = {"lowest": []}
"""By environment, what an old library says of itself, as pytest's ``-W`` takes it."""
IMPORTED = "import etl.load.bigquery, etl.load.snowflake, etl.pipeline.engine.dask, uvloop"
"""What no quick test uses; slow ones do, with emulators that need environments of their own."""
TESTS = [
    *("model", "transform", "extract", "load", "settings", "pipeline", "inspect", "compare", "report", "cli"),
    *("e2e/test_export.py", "e2e/test_commands.py"),
]
SAID = {True: "passed", False: "FAILED", None: "SKIPPED, this Python is not installed here: nothing was tested on it"}


def python_of(version: str) -> Path | None:
    """An interpreter of this version that starts: one on the search path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    named = shutil.which(f"python{version}")
    found = [*([Path(named)] if named else []), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    starts = (subprocess.run([each, "-c", ""], check=False, capture_output=True).returncode == 0 for each in found)
    return next((each for each, is_fit in zip(found, starts, strict=True) if is_fit), None)


def environment(name: str, python: Path, locks: Sequence[Path]) -> Path:
    """The interpreter of an environment of these locks and this checkout; a changed lock makes the environment anew."""
    folder = ROOT / ".venv-versions" / name
    interpreter, made_of = folder / "bin" / "python", folder / "made-of"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()
    if not made_of.exists() or made_of.read_text(encoding="utf-8") != digest:
        install: list[Path | str] = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", interpreter]
        requirements = [word for lock in locks for word in ("--requirement", str(lock))]
        subprocess.run([python, "-m", "venv", "--clear", "--without-pip", folder], check=True)
        subprocess.run([*install, "--require-hashes", *requirements], check=True)
        subprocess.run([*install, "--no-deps", "--editable", ROOT], check=True)
        made_of.write_text(digest, encoding="utf-8")
    return interpreter


def passes(name: str) -> bool | None:
    """Whether the tests pass in the environment; None if its Python is not installed."""
    version, locks = ENVIRONMENTS[name]
    python = python_of(version)
    if python is None:
        return None
    print(f"{name}: on {python}", flush=True)
    interpreter = environment(name, python, locks)
    if subprocess.run([interpreter, "-W", "error", "-c", IMPORTED], cwd=ROOT, check=False).returncode:
        return False
    command: list[Path | str] = [interpreter, "-m", "pytest", "--quiet"]
    command += ["--numprocesses", str((os.cpu_count() or 1) + 1), "--dist", "worksteal"]
    command += [word for warning in KNOWN_WARNINGS.get(name, []) for word in ("-W", f"ignore:{warning}")]
    command += [ROOT / "tests" / each for each in TESTS]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def main(names: Sequence[str]) -> int:
    """Run those environments, or all, and say of each how it went; returns the exit code."""
    results = {name: passes(name) for name in names or ENVIRONMENTS}
    for name, result in results.items():
        print(f"{name}: {SAID[result]}")
    return 1 if False in results.values() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
