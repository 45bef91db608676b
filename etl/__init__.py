"""Export Future AGI simulation metrics to a partitioned Parquet dataset.

>>> import etl
>>> summary = await etl.export(etl.Settings.load("config/metrics-etl.toml"))
>>> calls = etl.read_calls("data", run_tests=["My Agent Test"], since="2026-11-01", evals="wide")
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
    from etl.inspect.calls import read_calls
    from etl.inspect.open_table import open_table
    from etl.inspect.status import Status
    from etl.inspect.status_now import status
    from etl.inspect.tables import describe, read_table
    from etl.pipeline.job import Plan, export, plan, run
    from etl.pipeline.summary import RunTestSummary, Summary
    from etl.settings import Settings

_LAZY = {
    "etl.inspect.calls": ("read_calls",),
    "etl.inspect.open_table": ("open_table",),
    "etl.inspect.status": ("Status",),
    "etl.inspect.status_now": ("status",),
    "etl.inspect.tables": ("describe", "read_table"),
    "etl.pipeline.job": ("Plan", "export", "plan", "run"),
    "etl.pipeline.summary": ("RunTestSummary", "Summary"),
    "etl.settings": ("Settings",),
}

__all__ = [
    "ConfigurationError", "DestinationError", "ExporterError", "KeyRefusedError", "LockHeldError", "Plan", "RunTestSummary",
    "Settings", "SourceUnavailableError", "Status", "Summary", "__version__", "describe", "export", "open_table", "plan",
    "read_calls", "read_table", "run", "status",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # pandas and pyarrow take half a second to import: a command that prints help or a version should not wait for them.
    for module, names in _LAZY.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'etl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
