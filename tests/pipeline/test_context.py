"""How long a run will still take, in made-up time, and an engine whose package is missing."""

import sys

import pytest

from etl.errors import ConfigurationError
from etl.pipeline.context import dask_module
from tests.progress import progress, spend


def test_without_dask_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "etl.pipeline.engine.dask", raising=False)
    said = r'^\[engine\] kind: dask needs the "dask" extra \(distributed is not installed\): '
    with pytest.raises(ConfigurationError, match=said):
        dask_module()


def test_limit_tells_the_time_left_though_the_first_window_is_spent_in_a_second() -> None:
    """The pace of a burst would promise that 900 requests take 9 seconds."""
    limited = progress(done=100, planned=1000, limit=100)
    spend(limited.quota, 100, 1.0)
    assert limited.seconds_left(1.0) == 8 * 60


def test_pace_counts_where_the_server_is_slower_than_the_limit() -> None:
    assert progress(done=10, planned=110, limit=1000).seconds_left(60.0) == 600.0
