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


def run_test(name: str, number: int = 0, **payload: object) -> ListedRunTest:
    return ListedRunTest(run_test_id=f"id-{number}", name=name, payload=payload)


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


def test_comments_tell_key_days_and_namesakes() -> None:
    both = discovered(
        run_test("Nightly", 1, created_at="2026-03-02T09:00:00.1Z", last_run_at="2026-10-01T00:00:00Z"),
        run_test("Nightly", 2, created_at="2026-03-01T23:59:59Z", last_run_at="2026-10-02T00:00:00Z"),
        run_test("New", 3, created_at=None),
    )

    _, nightly, new, _ = run_tests_as_toml(both)
    assert nightly.startswith(
        f'    "Nightly", # folder {default_key("Nightly")}, created 2026-03-01, last run 2026-10-02, '
    )
    assert nightly.endswith(", 2 run tests of this name, exported as one")
    assert new == f'    "New",     # folder {default_key("New")}'
    assert run_tests_as_json(both)["run_tests"] == [
        {
            "name": "Nightly",
            "key": default_key("Nightly"),
            "run_test_ids": ["id-1", "id-2"],
            "created_at": "2026-03-01T23:59:59+00:00",
            "last_run_at": "2026-10-02T00:00:00+00:00",
        },
        {"name": "New", "key": default_key("New"), "run_test_ids": ["id-3"], "created_at": None, "last_run_at": None},
    ]
