"""Export Future AGI simulation metrics to a partitioned Parquet dataset.

>>> import etl
>>> summary = await etl.export(etl.Settings.load("config/metrics-etl.toml"))
>>> calls = etl.read_calls("data", run_tests=["My Agent Test"], since="2026-11-01", evals="wide")
"""

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
    from etl.inspect.tables import describe, read_table
    from etl.pipeline.job import Plan, export, plan
    from etl.pipeline.summary import RunTestSummary, Summary
    from etl.settings import Settings

_LAZY = {
    "Plan": "etl.pipeline.job",
    "RunTestSummary": "etl.pipeline.summary",
    "Settings": "etl.settings",
    "Summary": "etl.pipeline.summary",
    "describe": "etl.inspect.tables",
    "export": "etl.pipeline.job",
    "open_table": "etl.inspect.open_table",
    "plan": "etl.pipeline.job",
    "read_calls": "etl.inspect.calls",
    "read_table": "etl.inspect.tables",
}

__all__ = [
    "ConfigurationError",
    "DestinationError",
    "ExporterError",
    "KeyRefusedError",
    "LockHeldError",
    "Plan",
    "RunTestSummary",
    "Settings",
    "SourceUnavailableError",
    "Summary",
    "__version__",
    "describe",
    "export",
    "open_table",
    "plan",
    "read_calls",
    "read_table",
]


def __getattr__(name: str) -> Any:
    # pandas and pyarrow take half a second to import: a command that prints help or a version should not wait for them.
    if name in _LAZY:
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'etl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
