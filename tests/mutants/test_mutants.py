"""Every guard that keeps the promises is guarded itself: with one taken away, some test goes red.

Those that are a clause of one of the ten laws stand in ``clauses.toml``, law by law, all others in ``guards.toml``.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.test_structure import TESTED_ELSEWHERE, file_of_tests

ROOT = Path(__file__).parents[2]
MACHINE = "tests/machine"
"""A mutant's only killer: the random histories, see ``tests/mutants/run``."""


@dataclass(frozen=True)
class Mutant:
    """A guard: its text, what stands there without it, and the tests that notice if not those of its module."""

    guard: str
    path: str
    text: str
    without: str
    tests: tuple[str, ...] = ()

    @property
    def killers(self) -> tuple[str, ...]:
        return self.tests or (TESTED_ELSEWHERE.get(self.path) or file_of_tests(self.path),)


def _read(kind: str) -> list[dict[str, Any]]:
    text = Path(__file__).with_name(f"{kind}s.toml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)[kind]
    return found


CLAUSES = _read("clause")
MUTANTS = [
    Mutant(each["mutant"], each["path"], each["text"], each["without"], tuple(each.get("tests", tests)))
    for tests, mutants in (([], _read("guard")), ([MACHINE], CLAUSES))
    for each in mutants
]


def test_every_sentence_of_the_laws_has_a_clause() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    laws = re.split(r"\n\d+\. ", page.partition("\n## Ten laws\n")[2].partition("\n## ")[0])[1:]
    assert len(laws) == 10
    for number, law in enumerate(laws, 1):
        sentences = " ".join(law.split()).rstrip(".").split(". ")
        words = [each["words"] for each in CLAUSES if each["law"] == number]
        assert [each for each in words if each not in " ".join(law.split())] == []
        assert [each for each in sentences[1:] if not any(clause in each for clause in words)] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.guard)
def test_every_guard_stands_where_it_is_looked_for(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text().count(mutant.text) == 1
    assert all((ROOT / test).exists() for test in mutant.killers)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "mutant",
    [pytest.param(each, id=each.guard, marks=() if "writer" in each.guard else pytest.mark.slow) for each in MUTANTS],
)
def test_without_the_guard_a_test_goes_red(mutant: Mutant, tmp_path: Path) -> None:
    from tests.mutants.run import verdict_on  # noqa: PLC0415 it reads the list above

    verdict = verdict_on(mutant, tmp_path / "spoiled")
    assert verdict.is_killed, verdict.text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_with_every_guard_the_same_tests_are_green() -> None:
    from tests.mutants.run import pytest_in  # noqa: PLC0415 it reads the list above

    result = pytest_in(ROOT, *sorted({test for mutant in MUTANTS for test in mutant.killers} - {MACHINE}))
    assert result.returncode == pytest.ExitCode.OK, result.stdout[-2000:]
