"""What every table keeps to."""

import re

import pytest

from etl.cli import console


def test_name_takes_one_line_and_leaves_room_for_figures_in_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_WIDE", 80)
    console.print_table(("run test", "calls", "state"), [("Ångström\n" * 9, 1234, "3 new\n1 gone")], words={"state"})
    title, *lines = capsys.readouterr().out.splitlines()

    assert title.split() == ["run", "test", "calls", "state"]
    assert [line.split()[-3:] for line in lines] == [["1,234", "3", "new"], ["1", "gone"]]
    assert re.match(r"(Ångström\\n){2}Ångst?… ", lines[0]), "versions of rich differ in how wide such a letter is"
    assert max(map(len, lines)) <= 80


def test_row_is_one_line_with_whole_words_where_stdout_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name, words = "Checkout flow, " * 12, "not judged: too few executions; " * 12
    console.print_table(("run test", "calls", "verdict"), [(name, 1234, words)], words={"verdict"})
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["run", "test", "calls", "verdict"],
        [*name.split(), "1,234", *words.split()],
    ]
