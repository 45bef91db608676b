"""Which warehouse a URL means.

A new kind has its scheme in ``etl/model/locations.py``, and a module of its own in this room, with a function
``connect`` and, if reading needs another connection than writing, one ``connect_to_read``. A driver is imported only
when a URL needs it.
"""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import cast

from etl.extras import needs_extra
from etl.load.drivers import do_nothing
from etl.load.interface import Warehouse
from etl.model.locations import WAREHOUSES, scheme_of


def open_warehouse(
    url: str, namespace: str, *, is_read_only: bool = False, on_wait: Callable[[], None] = do_nothing
) -> Warehouse:
    """Connect to the warehouse that the URL means; its tables lie in the schema ``namespace``.

    With ``is_read_only``, opening makes nothing, not even an empty database. ``on_wait`` is called several times a
    second while a statement waits for its server, if the driver allows that; an exception that it raises cancels the
    statement.

    Raises:
        ConfigurationError: the driver is not installed.
        DestinationError: the warehouse cannot be reached or opened.
    """
    module = module_for(url)
    connect = getattr(module, "connect_to_read", module.connect) if is_read_only else module.connect
    return cast("Warehouse", connect(url, namespace, on_wait))


def module_for(url: str) -> ModuleType:
    """The module of this room for the URL's kind of warehouse, with its driver imported, and nothing connected.

    Raises:
        ConfigurationError: the driver is not installed.
    """
    scheme = scheme_of(url) or ""
    kind = WAREHOUSES[scheme]
    try:
        return import_module(f"etl.load.{kind}")
    except ModuleNotFoundError as exc:
        raise needs_extra(f"[warehouse] url: {scheme}://", kind, exc) from None
