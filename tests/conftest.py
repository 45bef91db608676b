"""What holds for every test."""

import pytest

from etl.extract import client


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between two tries are tested by what they are asked for, not by waiting."""
    monkeypatch.setattr(client, "_BACKOFF_MAX_SECONDS", 0.002)
