"""What holds for every test."""

import gc
import resource

import pytest
from hypothesis import settings

from etl.extract import client, connect

# A busy machine makes any example slow: no law is about time.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# An export looks at each file that its process may open, and some machines let a process open far more than a shell does.
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def pytest_collection_finish() -> None:
    """What the tests import lives until they end: the search for garbage need not go through it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between two tries are tested by what they are asked for, not by waiting."""
    monkeypatch.setattr(client, "_BACKOFF_MAX_SECONDS", 0.002)


@pytest.fixture(autouse=True)
def no_proof_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads for each of thousands of exports: that they can be started is proved where the command is run."""
    monkeypatch.setattr(connect, "require_threads", lambda: None)
