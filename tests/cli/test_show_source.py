"""Run tests as settings to paste: whatever they are called, what is pasted names exactly them."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.cli.console import as_json
from etl.cli.show_source import run_tests_as_json, run_tests_as_toml
from etl.extract.run_tests import Discovered
from etl.model.keys import default_key
from etl.model.records import ListedRunTest
from etl.model.wording import CONTROL

NAMES = st.text(st.characters(exclude_categories=["Cs"]))


def run_test(name: str, number: int = 0) -> ListedRunTest:
    return ListedRunTest(run_test_id=f"id-{number}", name=name, payload={})


def discovered(*run_tests: ListedRunTest) -> Discovered:
    by_name: dict[str, list[ListedRunTest]] = {}
    for each in run_tests:
        by_name.setdefault(each.name, []).append(each)
    return Discovered(by_name, ())


@given(st.lists(NAMES, unique=True, min_size=1))
def test_pasted_names_are_read_as_they_are(names: list[str]) -> None:
    pasted = "\n".join(run_tests_as_toml(discovered(*map(run_test, names))))

    assert tomllib.loads(pasted) == {"run_tests": names}
    assert not any(CONTROL.search(line) for line in pasted.split("\n"))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('a "b" \\ c', r'"a \"b\" \\ c"'),
        ("tab\tline\nescape\x1b[2J", r'"tab\tline\nescape\u001b[2J"'),
        ("del\x7f", r'"del\u007f"'),
        ("right to left \u202e", r'"right to left \u202e"'),
        ("\N{MAN}\N{ZERO WIDTH JOINER}\N{GIRL}", '"\N{MAN}\N{ZERO WIDTH JOINER}\N{GIRL}"'),
        ("Ünïcode ナイトリー", '"Ünïcode ナイトリー"'),
    ],
)
def test_what_moves_no_cursor_stays_readable_and_the_rest_is_escaped(text: str, written: str) -> None:
    assert as_json(text) == written


def test_comments_tell_key_and_namesakes() -> None:
    both = discovered(run_test("Nightly", 1), run_test("Nightly", 2), run_test("New", 3))
    folder = default_key("Nightly")
    assert [*run_tests_as_toml(both)][1:-1] == [
        f'    "Nightly", # folder {folder}, 2 run tests have this name and are exported as one',
        f'    "New",     # folder {default_key("New")}',
    ]
    assert run_tests_as_json(both)["run_tests"] == [
        {"name": "Nightly", "key": folder, "run_test_ids": ["id-1", "id-2"]},
        {"name": "New", "key": default_key("New"), "run_test_ids": ["id-3"]},
    ]
