"""What README and docs/ tell a reader to type, to set or to look for is there."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
import typer

from etl.cli.commands import app
from etl.model.findings import Kind
from etl.settings import Settings
from tests.messages import messages, modules, parsed, raised, texts

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def typed_commands(page: Path) -> Iterator[list[str]]:
    """The words after ``metrics-etl`` of each command in the page's shell blocks."""
    for block in blocks(page, "sh"):
        for line in re.findall(r".*metrics-etl .*", block.replace("\\\n", " ")):
            for command in re.split(r" [|&;>]+ ", line):
                words = shlex.split(command, comments=True)
                while words and re.match("[A-Z_]+=", words[0]):
                    del words[0]
                for at, word in enumerate(words[:-1]):
                    is_run = PurePosixPath(word).name == "metrics-etl"
                    if is_run and (at == 0 or words[at + 1] in app_commands()):
                        yield words[at + 1 :]
                        break


def app_commands() -> dict[str, typer.core.TyperCommand]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_the_manual_types_has_these_options(page: Path) -> None:
    for name, *arguments in typed_commands(page):
        app_commands()[name].make_context(name, arguments).close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_the_manual_shows_is_accepted(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FI_API_KEY", "key")
    monkeypatch.setenv("FI_SECRET_KEY", "secret")
    for block in blocks(page, "toml"):
        settings = block if "run_tests = " in block else f'run_tests = "all"\n{block}'
        (tmp_path / "metrics-etl.toml").write_text(settings, encoding="utf-8")
        Settings.load(tmp_path / "metrics-etl.toml")


PASS_ON = {
    *("answers.py", "bad_rows.py", "call_list.py", "delta.py", "drivers.py", "duckdb.py", "folder.py"),
    *("lease.py", "listing.py", "local.py", "lock.py", "parquet.py", "postgresql.py", "read.py"),
    *("interface.py", "read_tables.py", "store.py"),
}
"""Modules with an error that passes on what another sentence, the system or a driver says."""


def test_list_of_messages_has_each_finding_and_the_words_of_each_error() -> None:
    told = dict(messages())
    assert all(kind.meaning in told[f"{kind} ({kind.severity})"] for kind in Kind)
    words = {text for _, text in messages()}
    assert {text for _, said in raised() for text in said} <= words
    assert {module for module, said in raised() if not said} <= PASS_ON


def test_every_extra_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    named = page.partition("The extras are ")[2].partition("\n\n")[0]
    assert set(re.findall("`([a-z]+)`", named)) == project["optional-dependencies"].keys()


def test_every_message_that_the_manual_explains_is_one_of_the_code() -> None:
    page = (ROOT / "docs/failed-night.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| message \| do \|\n\|---\|---\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert len(tables) == 1
    code = "\n".join(re.sub("<.+?>", "…", text) for path in modules() for text in texts(parsed(path)))
    cells = re.findall(r"^\| (`.*?`) \|", "".join(tables), re.MULTILINE)
    for message in re.findall("`(.*?)`", " ".join(cells)):
        assert re.sub(r"\(\d+\)", "(…)", message) in code, message
