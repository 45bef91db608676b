"""Every block of docs/pandas.md and docs/analysis.md runs as it stands there, and prints what stands there."""

import contextlib
import io
import re
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import etl
from etl.model import schema
from tests.e2e.demo_dataset import make_demo

ROOT = Path(__file__).parents[2]
PAGES = ("docs/pandas.md", "docs/analysis.md", "README.md")
PANDAS, ANALYSIS, README = ((ROOT / name).read_text(encoding="utf-8") for name in PAGES)
BLOCK = re.compile(
    r"^```python(?P<plot> plot)?\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)


def null_of_pandas(text: str) -> str:
    """The text with one sign for null: pandas 2 gives another where it divides."""
    return text.replace("<NA>", " NaN")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo's dataset as data, of the week in which the pages were written."""
    folder = tmp_path_factory.mktemp("analysis")
    make_demo(folder / "data", friday=datetime(2026, 10, 30, 15, tzinfo=UTC))
    return folder


@pytest.mark.parametrize("page", [PANDAS, ANALYSIS], ids=["pandas", "analysis"])
def test_every_block_prints_what_the_page_shows(folder, monkeypatch, page):
    """Mend the page with what the block printed, when that is right."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "agg")
    namespace: dict[str, Any] = {}
    assert len(BLOCK.findall(page)) == page.count("```python")
    for block in BLOCK.finditer(page):
        code, printed = compile(block["code"], "page", "exec"), io.StringIO()
        if block["plot"] and not find_spec("matplotlib"):
            continue
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        lines = [line.rstrip() for line in null_of_pandas(printed.getvalue()).splitlines()]
        assert lines == null_of_pandas(block["printed"] or "").splitlines(), block["code"]


@pytest.mark.parametrize("name", schema.TABLES)
def test_column_that_describe_calls_never_null_has_no_nulls(folder, name):
    """Of executions that run, settle and were fetched, and of runs that lack nothing."""
    frame = etl.read_table(folder / "data", name)
    described = etl.describe(name)
    never = described["column"][described["null"] == schema.NEVER].to_list()
    assert not frame[never].isna().any(axis=None)


def test_python_of_the_readme_prints_what_it_shows(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(etl, "run", lambda _path: SimpleNamespace(exit_code=0))  # the demo was it
    (block,) = BLOCK.finditer(README)
    namespace: dict[str, Any] = {}
    exec(compile(block["code"], "README.md", "exec"), namespace)
    printed = [line.rstrip() for line in null_of_pandas(capsys.readouterr().out).splitlines()]
    assert printed == null_of_pandas(block["printed"]).splitlines()
    assert namespace["calls"]["call_execution_id"].is_unique
    assert len(namespace["calls"]) == len(calls := etl.read_table(folder / "data", "calls", since="2026-10-01"))
    assert f"A call has {len(calls.columns)} columns" in README
    assert set(re.findall(r"^[├└]── (\w+)/", README, re.MULTILINE)) == {*schema.TABLES, "_state"}
