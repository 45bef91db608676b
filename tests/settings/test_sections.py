"""Names and keys of run tests that would be misread are refused. Other bounds: test_messages.py."""

import json
from pathlib import Path

import pytest

from etl.settings import RunTest
from tests.settings.reading import mistake, read_settings


def test_run_test_that_is_made_in_python_has_the_key_that_the_file_gives(file: Path) -> None:
    assert RunTest(name="A b") == read_settings(file, 'run_tests = ["A b"]').run_tests[0]


@pytest.mark.parametrize("name", [" A", "A ", "\tA"])
def test_name_that_the_api_would_take_for_another_is_refused(file, name):
    assert "run_tests[0] name must not begin or end with a space" in mistake(file, f"run_tests = [{json.dumps(name)}]")


@pytest.mark.parametrize("key", ["007", "2026-01-01", "true", "null", "A", "a b", "a/b", "..", "é", "a" * 81, "-a"])
def test_key_that_a_reader_would_misread_is_refused(file: Path, key: str) -> None:
    assert "run_tests[0] key must consist of lower" in mistake(file, f'run_tests = [{{name = "A", key = "{key}"}}]')
