"""Which engine the settings want. A new one is added here alone."""

from typing import Any

from etl.errors import ConfigurationError
from etl.extract.client import Client
from etl.pipeline.engine.contract import Engine, How
from etl.pipeline.engine.here import ThisProcess
from etl.settings import Settings


def open_engine(settings: Settings, how: How, client: Client, run_id: str) -> Engine:
    """The engine for a run. It connects to nothing yet.

    Raises:
        ConfigurationError: the package for the engine is not installed.
    """
    if settings.engine.kind == "asyncio":
        return ThisProcess(client, how)
    cluster: Engine = dask_module().DaskCluster(settings, how, client, run_id)
    return cluster


def dask_module() -> Any:
    """The module of the engine on Dask, its package imported.

    Raises:
        ConfigurationError: the package is not installed.
    """
    try:
        import etl.pipeline.engine.dask as module  # noqa: PLC0415 imported on use, where its package is installed
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"[engine] kind: dask needs the extra dask ({error.name} is not installed): "
            "pip install 'simulation-metrics-etl[dask]'"
        ) from None
    return module
