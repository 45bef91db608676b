"""Which warehouse a URL means.

A new kind has its scheme in ``etl/model/locations.py``, and a module of its own in this room, with a function
``connect`` and, if reading or a rehearsal needs another connection, one ``connect_to_read`` or
``connect_to_rehearse``. A driver is imported only
when a URL needs it.
"""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Literal, cast

from etl.errors import needs_extra
from etl.load.drivers import do_nothing
from etl.load.interface import Warehouse
from etl.model.locations import WAREHOUSES, scheme_of


def open_warehouse(
    url: str,
    namespace: str,
    purpose: Literal["load", "read", "rehearse"] = "load",
    *,
    on_wait: Callable[[], None] = do_nothing,
) -> Warehouse:
    """Connect to the warehouse that the URL means; its tables lie in the schema ``namespace``.

    Unless it is to load, opening makes nothing that stays, such as an empty database. ``on_wait`` is called several
    times a second while a statement waits for its server, if the driver allows that; an exception that it raises
    cancels the statement.

    Raises:
        ConfigurationError: the driver is not installed.
        DestinationError: the warehouse cannot be reached or opened.
    """
    module = module_for(url)
    connect = getattr(module, f"connect_to_{purpose}", module.connect)
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
        raise needs_extra(f"[warehouse] url {scheme}://…", kind, exc) from None
