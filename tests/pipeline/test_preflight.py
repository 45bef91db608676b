"""The exit code of a check with several problems, and the rate limit. The checks themselves: tests/e2e/test_check.py."""

import re
from pathlib import Path
from time import monotonic

import pytest

from etl.errors import ExitCode
from etl.pipeline.preflight import Check, Subject, check, exit_code
from etl.sandbox import Sandbox
from tests.e2e.command import environment, write_settings
from tests.worlds import settled_world


def test_what_must_be_mended_first_gives_the_exit_code() -> None:
    checks = [
        Check(Subject.LOCK, "", ExitCode.LOCK_HELD),
        Check(Subject.DESTINATION, "", ExitCode.DESTINATION_FAILED),
        Check(Subject.SERVER, "", ExitCode.SOURCE_UNAVAILABLE),
    ]
    assert exit_code(checks) == 5
    assert exit_code([Check(Subject.LOCK, "held", ExitCode.LOCK_HELD), Check(Subject.KEY, "fine")]) == 75
    assert exit_code([]) == 0


async def test_waiting_for_the_rate_limit_is_told_and_is_not_the_servers_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second request has to wait for the next window."""
    monkeypatch.setattr("etl.extract.gate._TOLD_HOLD_SECONDS", 0.0)
    held: list[float] = []
    world = settled_world(run_tests=3, executions=1, calls=1)
    async with Sandbox(world, max_limit=1, rate_limit=1, rate_window_seconds=1.0) as server:
        path = write_settings(tmp_path, [run_test.name for run_test in world.run_tests])
        for name, value in environment(server).items():
            monkeypatch.setenv(name, value)
        began_at = monotonic()
        checks = await check(path, on_hold=held.append)
        elapsed = monotonic() - began_at

    assert len(held) >= 1
    (detail,) = (each.detail for each in checks if each.subject is Subject.SERVER)
    shown = re.search(r"answers: 3 requests in ([\d.]+) s, plus (\d+) s of waiting for the rate limit$", detail)
    assert shown
    assert float(shown[1]) <= elapsed - sum(held) + 0.01
    assert int(shown[2]) == round(sum(held))
