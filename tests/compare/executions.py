"""Executions as a comparison or a report is told of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from etl.compare.selection import ComparedExecution

AT = datetime(2026, 11, 1, 9, tzinfo=UTC)


def execution(execution_id: str, *, day: int = 0, run_test: str = "a", **changes: Any) -> ComparedExecution:
    """A completed one with five calls, which began so many days after ``AT``."""
    values: dict[str, Any] = {"run_test_name": run_test.upper(), "status": "completed", "export_state": "exported"}
    values |= {"started_at": AT + timedelta(days=day), "deleted_at": None, "exported_calls": 5}
    return ComparedExecution(execution_id=execution_id, run_test=run_test, **(values | changes))
