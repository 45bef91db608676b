"""The example notebook runs from its first cell to its last as a kernel runs it: in the thread of an event loop."""

import ast
import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
VARIABLES = ("FI_BASE_URL", "FI_API_KEY", "FI_SECRET_KEY", "METRICS_ETL_RUN_TESTS", "METRICS_ETL_DESTINATION__PATH")


async def shown_by(cell: str, names: dict[str, Any]) -> Any:
    """The value of the cell's last line, if that is an expression."""
    module = ast.parse(cell)
    if isinstance(last := module.body[-1], ast.Expr):
        module.body[-1] = ast.Assign([ast.Name("_", ast.Store())], last.value)
    code = compile(ast.fix_missing_locations(module), NOTEBOOK.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if inspect.isawaitable(waiting := eval(code, names)):
        await waiting
    return names.get("_")


async def test_notebook_shows_settings_plan_run_status_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # what the notebook sets goes when the test ends
        monkeypatch.delenv(name)
    monkeypatch.setattr("tempfile.tempdir", os.fspath(tmp_path))
    names: dict[str, Any] = {}
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    try:
        shown = [await shown_by("".join(cell["source"]), names) for cell in cells]
    finally:
        names["sandbox"].kill()
    settings, plan, summary, requests, status, calls, by_run_test, columns = shown[1:-1]

    lists = plan.requests_by_purpose["list"]
    assert (summary.outcome, summary.requests, requests) == ("complete", plan.requests + lists, lists - 3)
    assert (status.verdict.is_good, len(calls), len(by_run_test), len(columns)) == (True, 5, 3, 2)
    assert all(
        "<table" in each._repr_html_() for each in (settings, plan, summary, status, calls, by_run_test, columns)
    )
