"""Export Future AGI simulation metrics to a partitioned Parquet dataset, and read it.

>>> summary = etl.run("config/metrics-etl.toml")              # export what is new or changed
>>> etl.status("data")                                        # is all well, and what to do next
>>> calls = etl.read_calls("data", since="7d", evals="wide")  # one row per call, in pandas

``read_table``, ``open_table`` and ``describe`` give the other tables, ``report_data`` the figures of a report. In a
coroutine, ``await etl.plan(…)`` says what an export would fetch, and ``await etl.export(…)`` is ``run``. Every expected
error is an ``ExporterError``.
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
    from etl.inspect.read_status import status
    from etl.inspect.read_tables import describe, read_table
    from etl.inspect.status import Status
    from etl.pipeline.job import Plan, export, plan, run
    from etl.pipeline.summary import RunTestSummary, Summary
    from etl.report.frames import report_data
    from etl.settings import Settings

__all__ = ["describe", "export", "open_table", "plan", "read_calls", "read_table", "report_data", "run", "status"]
__all__ += ["Plan", "RunTestSummary", "Settings", "Status", "Summary", "__version__"]
__all__ += ["ConfigurationError", "DestinationError", "ExporterError", "KeyRefusedError", "LockHeldError"]
__all__ += ["SourceUnavailableError"]

_LAZY = {
    "etl.inspect.joined_calls": {"read_calls"},
    "etl.inspect.open_table": {"open_table"},
    "etl.inspect.read_tables": {"describe", "read_table"},
    "etl.inspect.status": {"Status"},
    "etl.inspect.read_status": {"status"},
    "etl.pipeline.job": {"Plan", "export", "plan", "run"},
    "etl.pipeline.summary": {"RunTestSummary", "Summary"},
    "etl.report.frames": {"report_data"},
    "etl.settings": {"Settings"},
}
"""By module, the public names that are imported from it at their first use, as for type checkers above."""
_RESULTS = {"Plan", "RunTestSummary", "Status", "Summary"}
"""Classes that are needed in annotations alone, so that a shell need not complete them."""


def __getattr__(name: str) -> Any:
    # pandas and pyarrow take half a second to import: a command that prints help or a version should not wait for them.
    for module, names in _LAZY.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'etl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__} - _RESULTS)
