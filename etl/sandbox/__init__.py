"""A simulated API, for the demo, the tests, the benchmarks, and users' own pipelines.

A ``Sandbox`` serves a ``World`` over HTTP, as the real server would: with its formulas, its roundings and its quirks.
It imports nothing from the exporter, so that the two cannot share a mistake. ``generate.py`` makes a world, and
``world.py`` changes its records.
"""

from etl.sandbox.dispatch import SandboxRequest
from etl.sandbox.server import API_KEY, SECRET_KEY, Fault, Sandbox, random_faults
from etl.sandbox.world import World

__all__ = ["API_KEY", "SECRET_KEY", "Fault", "Sandbox", "SandboxRequest", "World", "random_faults"]
