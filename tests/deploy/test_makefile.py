"""``make`` on a machine that is not as it should be. Packages are not installed here: pip is replaced by nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import run_to_end

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Makefile", "requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "locks", tmp_path / "locks")
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("make", "--no-print-directory", *arguments, "PIP=true")
    return run_to_end(command, cwd=folder)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def works(folder: Path) -> bool:
    pip = [str(folder / ".venv" / "bin" / "python"), "-m", "pip", "--version"]
    return run_to_end(pip).returncode == 0


def test_python_that_is_too_old_is_told_before_anything_is_made(folder: Path) -> None:
    old = program(folder / "python3.10", 'if [ "$1" = --version ]; then echo Python 3.10.12; else exit 1; fi')
    result = make(folder, "demo", f"PYTHON={old}")
    assert result.returncode != 0
    assert f"Python 3.11 or later is needed, and {old} is Python 3.10.12" in result.stderr
    assert "make demo PYTHON=python3.11" in result.stderr
    assert not (folder / ".venv").exists()


def test_extras_are_installed_beside_what_is_locked_and_kept_up_to_date(folder: Path) -> None:
    """The wheel is not built again, so the command stays that of the checkout."""
    (folder / ".venv").mkdir()
    for name in (".runtime", ".extra-dask", ".extra-fast"):
        (folder / ".venv" / name).touch()
    os.utime(folder / ".venv" / ".extra-dask", (0, 0))
    said = make(folder, "-n", "install", "EXTRAS=report,bucket").stdout.splitlines()
    pinned = "true --require-hashes --requirement requirements.lock --requirement locks/{}.lock"
    assert {line for line in said if line.startswith("true")} == {
        pinned.format(each) for each in ("bucket", "dask", "report")
    }


def test_extra_that_does_not_exist_is_told_with_those_that_do(folder: Path) -> None:
    result = make(folder, "install", "EXTRAS=nosuch,bucket")
    assert result.returncode != 0
    assert "There is no extra nosuch: choose from bigquery bucket dask delta duckdb fast" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["exit 1", "kill -9 $$"])
def test_environment_that_was_left_half_made_is_made_anew_and_one_that_works_is_kept(folder: Path, broken: str) -> None:
    program(folder / ".venv" / "bin" / "python", broken)
    made = make(folder, "install", f"PYTHON={sys.executable}")
    assert made.returncode == 0, made.stderr
    assert "Installing the locked packages into .venv, once; this takes about a minute." in made.stderr
    assert works(folder)

    (folder / ".venv" / "mine").touch()
    (folder / ".venv" / ".runtime").unlink()
    assert make(folder, "install", f"PYTHON={sys.executable}").returncode == 0
    assert (folder / ".venv" / "mine").exists()
    again = make(folder, "install", f"PYTHON={sys.executable}")
    assert (again.stdout, again.stderr) == ("Installed in .venv. To use it: . .venv/bin/activate\n", "")
