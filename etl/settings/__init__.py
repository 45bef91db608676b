"""The settings of an export: their keys, how they are read, and messages about mistakes in them."""

from etl.settings.read import Settings
from etl.settings.sections import Api, Destination, Export, Log, RunTest

__all__ = ["Api", "Destination", "Export", "Log", "RunTest", "Settings"]
