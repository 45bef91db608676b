"""What people see on a terminal while a run is at work."""

import json
import re
import signal
from pathlib import Path

import pytest

from etl.sandbox import Sandbox
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.e2e.terminal import COLOR, Terminal
from tests.worlds import a_sandbox, settled_world

WORLD = {"run_tests": 1, "executions": 3, "calls": 30}
unlimited = a_sandbox(**WORLD)


@pytest.fixture
async def limited():
    async with Sandbox(settled_world(**WORLD), rate_limit=40) as server:
        yield server


@pytest.mark.parametrize("columns", [40, 80, 200])
async def test_progress_under_a_rate_limit_tells_the_truth_in_one_line(limited, tmp_path: Path, columns: int) -> None:
    write_settings(tmp_path, [limited.world.run_tests[0].name], "[export]", 'metrics = "calls"')
    terminal = Terminal("run", cwd=tmp_path, env=environment(limited, TERM="xterm-256color"), columns=columns)

    await terminal.read_until("left" if columns == 40 else "rate limit: waiting")
    terminal.process.send_signal(signal.SIGINT)
    exit_code = await terminal.ended()

    assert exit_code == 130
    progress = [line for line in terminal.lines if " of 96 requests" in line]
    assert progress
    assert all(len(line) <= columns for line in progress)
    if columns > 40:
        held = next(line for line in progress if "waiting" in line)
        # In 80 columns, the longest of these lines lose their last letter.
        assert re.search(r" (min|s) left  rate limit: waiting .*  \d of 3 executions save(d|…$)", held)
        lines = terminal.written.replace("\r", "")
        assert re.search(r"^Checkout flow +3 +[0-2] .* [1-3] left *$", lines, re.MULTILINE)
    assert "outcome    interrupted (exit 130)" in terminal.lines


async def test_no_color_means_no_color(unlimited, tmp_path: Path) -> None:
    write_settings(tmp_path, [unlimited.world.run_tests[0].name])
    colored = Terminal("run", "--verbose", cwd=tmp_path, env=environment(unlimited, TERM="xterm-256color"))
    assert await colored.ended() == 0
    plain = Terminal("run", "--verbose", cwd=tmp_path, env=environment(unlimited, TERM="xterm-256color", NO_COLOR="1"))
    assert await plain.ended() == 0

    assert COLOR.search(colored.written)
    assert not COLOR.search(plain.written)


async def test_terminal_that_cannot_redraw_gets_lines(unlimited, tmp_path: Path) -> None:
    write_settings(tmp_path, [unlimited.world.run_tests[0].name])
    terminal = Terminal("run", cwd=tmp_path, env=environment(unlimited, TERM="dumb"))

    assert await terminal.ended() == 0

    assert "run_finished" in terminal.written
    assert "\x1b[" not in terminal.written


async def test_events_elsewhere_tell_what_is_left(unlimited, tmp_path: Path) -> None:
    write_settings(tmp_path, [unlimited.world.run_tests[0].name])
    result = await metrics_etl("run", cwd=tmp_path, env=environment(unlimited))

    events = [json.loads(line) for line in result.stderr.splitlines()]
    [committed] = [event for event in events if event["event"] == "committed"]
    assert committed["requests_left"] == 0
    assert committed["seconds_left"] == 0
