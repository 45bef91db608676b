"""What tests of several folders share: a settled world, and settings that point at a sandbox."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etl.sandbox import Sandbox, World, make_world
from etl.settings import Settings

API_KEY, SECRET_KEY = "sandbox-key", "sandbox-secret"


def settled_world(seed: int = 1, **options: Any) -> World:
    """A world whose executions have all finished long ago, the same at any hour of any day."""
    settled: dict[str, Any] = {"end": datetime(2026, 10, 30, 15, tzinfo=UTC), "include_unfinished": False}
    return make_world(random.Random(seed), **(settled | options))


def settings_for(server: Sandbox, path: Path, *, run_tests: Any = None, **sections: Any) -> Settings:
    """Settings of an export from the sandbox to the folder; ``sections`` are added to api, export, …"""
    names = list(dict.fromkeys(run_test.name for run_test in server.world.run_tests))
    return Settings.model_validate(
        {
            "run_tests": run_tests or names,
            "api": {"base_url": server.base_url} | sections.pop("api", {}),
            "destination": {"path": str(path)},
            "api_key": API_KEY,
            "secret_key": SECRET_KEY,
        }
        | sections
    )
