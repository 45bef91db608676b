"""Export Future AGI simulation metrics to a partitioned Parquet dataset, and read it.

>>> summary = etl.run("config/metrics-etl.toml")              # export what is new or changed
>>> etl.status("data")                                        # is all well, and what to do next
>>> calls = etl.read_calls("data", since="7d", evals="wide")  # one row per call, in pandas

``read_table``, ``open_table`` and ``describe`` give the other tables. In a coroutine, ``await etl.plan(…)`` says what an export
would fetch, and ``await etl.export(…)`` is ``run``. Every expected error is an ``ExporterError``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from etl.errors import (
    ConfigurationError,
    DestinationError,
    ExporterError,
    KeyRefusedError,
    LockHeldError,
    SourceUnavailableError,
)
from etl.version import __version__

if TYPE_CHECKING:
    from etl.inspect.joined_calls import read_calls
    from etl.inspect.open_table import open_table
    from etl.inspect.read_tables import describe, read_table
    from etl.inspect.status import Status
    from etl.inspect.status_now import status
    from etl.pipeline.job import Plan, export, plan, run
    from etl.pipeline.summary import RunTestSummary, Summary
    from etl.settings import Settings

_LAZY = {
    "Plan": "pipeline.job", "RunTestSummary": "pipeline.summary", "Settings": "settings", "Status": "inspect.status",
    "Summary": "pipeline.summary", "describe": "inspect.read_tables", "export": "pipeline.job", "open_table": "inspect.open_table",
    "plan": "pipeline.job", "read_calls": "inspect.joined_calls", "read_table": "inspect.read_tables", "run": "pipeline.job",
    "status": "inspect.status_now",
}  # fmt: skip
# Named in annotations alone, so that a shell need not complete them.
_RESULTS = {"Plan", "RunTestSummary", "Status", "Summary"}

__all__ = [
    "ConfigurationError", "DestinationError", "ExporterError", "KeyRefusedError", "LockHeldError", "Plan", "RunTestSummary",
    "Settings", "SourceUnavailableError", "Status", "Summary", "__version__", "describe", "export", "open_table", "plan",
    "read_calls", "read_table", "run", "status",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # pandas and pyarrow take half a second to import: a command that prints help or a version should not wait for them.
    if name in _LAZY:
        return getattr(import_module(f"etl.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'etl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__} - _RESULTS)
