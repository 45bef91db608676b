"""The shape of the code: where things are, how large they may grow, and where each module is tested."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.code_lines import LIMITS, ROOT, code_lines, size
from tests.reference import PACKAGES

MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "etl").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
MOST_CODE_LINES = 300

TESTED_ELSEWHERE = {
    # Commands: only the installed command shows their options, streams and exit codes.
    "etl/cli/compare_command.py": "tests/e2e/test_compare.py",
    "etl/cli/dataset_commands.py": "tests/e2e/test_commands.py",
    "etl/cli/demo.py": "tests/e2e/test_commands.py",
    "etl/cli/report_command.py": "tests/e2e/test_report.py",
    "etl/cli/run_commands.py": "tests/e2e/test_export.py",
    "etl/cli/sandbox_commands.py": "tests/e2e/test_commands.py",
    "etl/cli/source_commands.py": "tests/e2e/test_discover.py",
    # Output that is all there is to see: whole screens of it.
    "etl/cli/show_compare.py": "tests/e2e/test_compare.py",
    "etl/cli/show_dataset.py": "tests/e2e/test_status.py",
    "etl/dataset/forget.py": "tests/pipeline/test_forget.py",
    "etl/dataset/descriptions.py": "tests/pipeline/test_descriptions.py",
    "etl/extract/descriptions.py": "tests/pipeline/test_descriptions.py",
    "etl/dataset/comparisons.py": "tests/pipeline/test_sweep.py",  # what a run notes for the next one
    "etl/extract/stored_rows.py": "tests/pipeline/test_sweep.py",  # what settling and the sweep leave alone
    "etl/load/interface.py": "tests/load/test_laws.py",  # a protocol: the laws hold each warehouse to it
    "etl/model/records.py": "tests/extract/test_crawl.py",  # it has no rule but what the crawl fills in
    "etl/version.py": "tests/e2e/test_commands.py",  # only a command shows it
}
"""Modules that no test file is named after, and where they are tested: mostly end to end."""


def lines(path: str) -> list[str]:
    return (ROOT / path).read_text(encoding="utf-8").splitlines()


def test_only_what_every_room_needs_lies_outside_of_the_rooms() -> None:
    assert {path.name for path in (ROOT / "etl").glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "errors.py",
        "version.py",
    }


def test_no_module_is_long() -> None:
    assert [path for path in MODULES if code_lines(ROOT / path) > MOST_CODE_LINES] == []


@pytest.mark.parametrize("folder", LIMITS)
def test_code_is_no_larger_than_its_limit(folder: str) -> None:
    assert size(folder) <= LIMITS[folder]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""A module."""\n\n# a comment\n', 0),
        ('class A:\n    """A class."""\n\n    field: int\n    """a field"""\n', 2),
        ('TEXT = """\nnot a docstring\n"""\n', 3),
        ("call(\n    1,\n    # why\n    2,\n)\n", 4),
    ],
)
def test_words_are_free_and_code_counts(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "module.py").write_text(text, encoding="utf-8")
    assert code_lines(tmp_path / "module.py") == expected


def test_every_module_has_a_test_file_of_its_name_or_a_line_here() -> None:
    named = {path for path in MODULES if (ROOT / file_of_tests(path)).exists()}
    assert named | TESTED_ELSEWHERE.keys() == set(MODULES)
    assert not named & TESTED_ELSEWHERE.keys()
    for path in TESTED_ELSEWHERE.values():
        assert (ROOT / path).exists(), path


def file_of_tests(module: str) -> str:
    """``etl/dataset/merge.py`` → ``tests/dataset/test_merge.py``."""
    path = Path(module)
    return (Path("tests", *path.parts[1:-1]) / f"test_{path.name}").as_posix()


def test_no_two_tests_have_one_name() -> None:
    names = Counter(
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_the_list_of_modules_has_every_package() -> None:
    assert set(PACKAGES) == {path.parent.name for path in (ROOT / "etl").glob("*/__init__.py")}


def test_each_question_of_a_newcomer_is_answered_by_a_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    decided = page.partition("\n## Where is it decided?\n")[2].partition("\n## ")[0]
    answers = re.findall(r"^\| .* \| (`.*`) \|$", decided, re.MULTILINE)
    assert len(answers) >= 20
    for path in re.findall(r"`([^`]+\.py)`", "".join(answers)):
        assert (ROOT / "etl" / path).is_file(), path


def test_nothing_below_the_public_interface_of_aiohttp_is_used() -> None:
    hidden = re.compile(r"client_proto|connector\.connect\b|set_response_params|aiohttp\.\w+\._|session\._|response\._")
    assert [path for path in MODULES if hidden.search("\n".join(lines(path)))] == []


def test_only_the_storage_names_the_local_folder() -> None:
    named = [path for path in MODULES if "LocalFiles" in (ROOT / path).read_text(encoding="utf-8")]
    assert [path for path in named if not path.startswith("etl/files/")] == []
