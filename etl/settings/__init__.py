"""Settings: what they are, where they are read from, and what is wrong with them."""

from etl.settings.load import Settings
from etl.settings.sections import Api, Destination, Export, Log, RunTest

__all__ = ["Api", "Destination", "Export", "Log", "RunTest", "Settings"]
