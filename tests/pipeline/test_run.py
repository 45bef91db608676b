"""An engine whose package is missing says how to get it."""

import sys

import pytest

from etl.errors import ConfigurationError
from etl.pipeline.run import dask_module


def test_without_dask_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "etl.pipeline.engine.dask", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        dask_module()
    assert str(caught.value) == (
        "[engine] kind: dask needs the extra dask (distributed is not installed): "
        "pip install 'simulation-metrics-etl[dask]'"
    )
