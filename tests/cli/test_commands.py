"""What ``--help`` shows."""

from collections import Counter
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from etl.cli.commands import app

COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
_MOST_OF_A_GROUP = 6


def help_of(*command: str, columns: int) -> str:
    return CliRunner().invoke(app, [*command, "--help"], terminal_width=columns, env={"COLUMNS": str(columns)}).stdout


def shown_options(command: str) -> list[Any]:
    return [each for each in COMMANDS[command].params if not each.hidden]


def test_list_of_commands_has_one_line_for_each_in_80_columns() -> None:
    lines = [line.strip() for line in help_of(columns=80).splitlines()]
    for name, command in COMMANDS.items():
        assert " ".join([name, command.help.partition("\n\n")[0]]) in [" ".join(line.split()) for line in lines]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_one_example_that_can_be_copied_from_80_columns(name: str) -> None:
    *_, example = COMMANDS[name].help.split("\n\n")
    lines = help_of(name, columns=80).splitlines()
    assert COMMANDS[name].help.count("Example: ") == 1
    assert example.startswith(f"Example: metrics-etl {name}")
    assert f"  {example}" in lines
    assert not [line for line in lines if line.endswith("-")], "an option or a word is broken"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_each_paragraph_whole(name: str) -> None:
    lines = [line.strip() for line in help_of(name, columns=500).splitlines()]
    assert {" ".join(paragraph.split()) for paragraph in COMMANDS[name].help.split("\n\n")} <= set(lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_groups_options_where_there_are_many(name: str) -> None:
    groups = Counter(getattr(option, "rich_help_panel", None) for option in shown_options(name))
    assert max(groups.values()) <= _MOST_OF_A_GROUP


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_each_option_and_shows_what_it_takes(name: str) -> None:
    shown = help_of(name, columns=120)
    assert "<bool>" not in shown
    for option in shown_options(name):
        assert option.help.endswith("."), option.name
        assert option.metavar or option.is_flag, option.name


def test_without_a_command_its_help_is_the_result_and_the_exit_code_says_that_something_is_missing() -> None:
    ended = CliRunner().invoke(app, [])
    assert (ended.exit_code, ended.stderr) == (2, "")
    assert ended.stdout == CliRunner().invoke(app, ["--help"]).stdout
