"""Which warehouse a URL means.

A new kind has its scheme in ``etl/model/locations.py``, and a module of its own in this room.
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
    """The warehouse that the URL means, connected; its tables lie in the schema ``namespace``. Errors as for ``module_for``.

    ``is_read_only``: nothing is made by that, not even an empty database. ``on_wait`` is called several times a second while
    a server is waited for, if its driver allows that; what it raises ends the wait, and the statement.
    """
    module = module_for(url)
    connect = getattr(module, "connect_to_read", module.connect) if is_read_only else module.connect
    return cast("Warehouse", connect(url, namespace, on_wait))


def module_for(url: str) -> ModuleType:
    """The module for the URL's kind of warehouse, its driver imported; ConfigurationError when that is not installed."""
    scheme = scheme_of(url) or ""
    kind = WAREHOUSES[scheme]
    try:
        return import_module(f"etl.load.{kind}")
    except ModuleNotFoundError as exc:
        raise needs_extra(f"[warehouse] url: {scheme}://", kind, exc) from None
