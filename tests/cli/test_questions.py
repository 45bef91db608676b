"""What ``init`` writes: settings that mean what was chosen, whatever it holds, and files that are all there or none."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.cli.questions import InitAnswers, write_new
from etl.errors import DestinationError
from etl.model.keys import is_listable
from tests.support import examples

ROOT = Path(__file__).parents[2]
NAMES = st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(is_listable), min_size=1, unique=True)
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="/$~\0'\""), min_size=1).filter(
    lambda text: text == text.strip() and ":" not in text and text.isprintable()
)


def test_example_is_what_init_writes() -> None:
    """Fix it with: metrics-etl init."""
    written = InitAnswers(run_tests=["My Agent Test", "Checkout flow"]).text
    assert (ROOT / "config/example.toml").read_text(encoding="utf-8") == written
    assert len([line for line in written.splitlines() if line and not line.startswith("#")]) <= 10


@settings(max_examples=examples(200))
@given(NAMES, PATHS, st.sampled_from(["mine.toml", "config/mine.toml", "a/../b/mine.toml", "/etc/mine.toml"]))
def test_settings_mean_what_was_chosen_from_wherever_the_file_is(names: list[str], path: str, file: str) -> None:
    answers = InitAnswers(Path(file), "http://localhost:8000", names, path, f"duckdb://{path}")
    read = answers.settings(needs_keys=False)

    assert [run_test.name for run_test in read.run_tests] == names
    assert read.api.base_url == answers.base_url
    assert read.destination.path == os.path.normpath(Path.cwd() / path)
    assert read.warehouse.url == f"duckdb://{read.destination.path}"


@pytest.mark.parametrize("place", ["/srv/data", "~/data", "$HOME/data", "s3://bucket/data"])
def test_place_that_is_not_relative_stays_as_it_is(place: str) -> None:
    assert f'path = "{place}" #' in InitAnswers(path=place).text


def test_files_are_all_there_or_none_and_nothing_is_replaced(tmp_path: Path) -> None:
    first, second = tmp_path / "new" / "a", tmp_path / "b"
    second.write_text("mine")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(DestinationError, match=r"b: File exists\. Nothing was written"):
        write_new({first: ("text", 0o666), second: ("text", 0o600)})
    assert (first.exists(), second.read_text()) == (False, "mine")
    assert signal.pthread_sigmask(signal.SIG_SETMASK, blocked) == blocked

    second.unlink()
    write_new({first: ("text", 0o666), second: ("key", 0o600)})
    assert (first.read_text(), second.read_text(), second.stat().st_mode & 0o777) == ("text", "key", 0o600)
