"""Worlds for the sandbox, each the same at any hour of any day."""

from datetime import UTC, datetime
from random import Random
from typing import Any

from etl.sandbox import World, make_world

END = datetime(2026, 11, 1, 12, tzinfo=UTC)


def world_of(seed: int = 1, **options: Any) -> World:
    """A world that ends at ``END``, with executions that are still running."""
    return make_world(Random(seed), **({"end": END} | options))


def settled_world(seed: int = 1, **options: Any) -> World:
    """A world whose executions have all finished long ago."""
    settled: dict[str, Any] = {"end": datetime(2026, 10, 30, 15, tzinfo=UTC), "include_unfinished": False}
    return world_of(seed, **(settled | options))


def small_world(**options: Any) -> World:
    """A world of two run tests, six executions each, five calls each, unless the options say otherwise."""
    return world_of(4, **({"run_tests": 2, "executions": 6, "calls": 5} | options))
