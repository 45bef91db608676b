"""What pyproject.toml says of versions, and what is locked and tested, are the same."""

import re

import pytest

from tests import versions
from tests.versions import ENVIRONMENTS, LOCKED, LOWEST, PROJECT, PYTHONS, ROOT

EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LOCKS = [path for path in ROOT.rglob("*.lock") if not path.relative_to(ROOT).parts[0].startswith(".venv")]


def pins(*paths: object) -> dict[str, set[str]]:
    """By package, the versions that the locks name."""
    found: dict[str, set[str]] = {}
    for path in paths:
        for name, version in re.findall(
            r"^([\w.-]+)==(\S+)", (ROOT / str(path)).read_text(encoding="utf-8"), re.MULTILINE
        ):
            found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize(
    "requirement", [*PROJECT["dependencies"], *(each for extra in EXTRAS.values() for each in extra)]
)
def test_lowest_version_is_the_one_that_is_tested(requirement: str) -> None:
    name, lowest = re.fullmatch(r"([\w.-]+)>=([\d.]+)(?:,<[\d.]+)?", requirement).groups()  # type: ignore[union-attr]
    (tested,) = pins(*LOWEST)[name]
    assert without_zeros(tested) == without_zeros(lowest)


def without_zeros(version: str) -> str:
    return re.sub(r"(\.0)+$", "", version)


def test_first_python_that_is_named_is_the_lowest_that_installs_and_the_others_follow() -> None:
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert [f"3.{int(PYTHONS[0][2:]) + place}" for place in range(len(PYTHONS))] == PYTHONS
    assert set(ENVIRONMENTS) == {"lowest", *PYTHONS}


def test_any_extras_fit_beside_each_other_and_beside_the_core() -> None:
    assert {path.stem for path in (ROOT / "locks").iterdir()} == set(EXTRAS)
    several = {name: found for name, found in pins(*LOCKED, "requirements-dev.lock").items() if len(found) > 1}
    assert several.keys() <= {"deprecated", "numpy"}, "by Python"
    for extra, requirements in EXTRAS.items():
        needed = {re.split("[>=<]", each)[0] for each in requirements}
        assert needed <= pins(f"locks/{extra}.lock").keys()
        assert not pins(f"locks/{extra}.lock").keys() & pins("requirements.lock").keys()


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_each_lock_has_hashes_and_names_no_registry(path: object) -> None:
    text = (ROOT / str(path)).read_text(encoding="utf-8")
    assert "://" not in text
    assert re.fullmatch(r"(\S+==\S+(?: ; [^\\\n]+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)+", text)


def test_python_that_is_missing_is_named_and_what_fails_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(versions, "passes", {"lowest": True, "3.12": None, "3.13": False}.__getitem__)
    assert (versions.main(["lowest", "3.12"]), versions.main(["3.13"])) == (0, 1)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in shown] == ["lowest: passed", "3.12: SKIPPED", "3.13: FAILED"]
    assert versions.python_of("3.99") is None
