"""``etl.run`` in a process of one's own: a script, or a notebook, whose cells run inside a running event loop."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import etl
from etl.sandbox import Fault, Sandbox
from tests.e2e.command import COMMAND, Ended, environment, shell, start_program, write_settings
from tests.e2e.faults import hold_back
from tests.support import API_KEY, SECRET_KEY, settings_for
from tests.worlds import a_sandbox

SCRIPT = """
import etl
summary = None
try:
    summary = etl.run("config/metrics-etl.toml")
finally:
    print(summary and summary.outcome, etl.status().runs[0].outcome)
"""
NOTEBOOK = f"""
import asyncio
loop = asyncio.new_event_loop()
loop.call_soon(exec, {SCRIPT!r})
loop.call_soon(loop.stop)
loop.run_forever()
"""
server = a_sandbox(run_tests=2, executions=3, calls=5)


async def python(code: str, folder: Path, server: Sandbox) -> Ended:
    return await shell(sys.executable, "-c", code, cwd=folder, env=environment(server))


@pytest.mark.parametrize("code", [NOTEBOOK, pytest.param(SCRIPT, marks=pytest.mark.slow)], ids=["notebook", "script"])
async def test_run_waits_for_the_export_and_ctrl_c_keeps_what_had_arrived(
    server: Sandbox, tmp_path: Path, code: str
) -> None:
    """Every call of one execution hangs; the others are whole when the signal comes."""
    waiting = hold_back(server, server.world.run_tests[1].executions[0])
    write_settings(tmp_path, [each.name for each in server.world.run_tests], "[export]", 'metrics = "calls"')
    process = await start_program(sys.executable, "-c", code, cwd=tmp_path, env=environment(server))
    await waiting.wait()
    process.send_signal(signal.SIGINT)
    stdout, stderr = await process.communicate()
    assert stdout == b"None interrupted\n"
    assert stderr.rstrip().endswith(b"KeyboardInterrupt")
    assert stderr.count(b"Traceback") == 1
    kept = etl.read_table(tmp_path / "data", "executions")
    assert (len(kept) >= 4, len(etl.read_calls(tmp_path / "data"))) == (True, 5 * len(kept))

    server.fault = None
    again = await python(code, tmp_path, server)
    assert (again.stdout, again.stderr) == ("complete complete\n", "")
    assert len(etl.read_calls(tmp_path / "data")) == 30


async def test_second_ctrl_c_does_not_wait_and_the_next_run_repairs_the_rest(server: Sandbox, tmp_path: Path) -> None:
    server.fault = lambda _request, _nth: Fault(is_hanging=True)
    asked = asyncio.Event()
    server.on_request = lambda _request: asked.set()
    write_settings(tmp_path, [each.name for each in server.world.run_tests])
    program = (sys.executable, "-c", "import etl; etl.run()")
    process = await start_program(*program, cwd=tmp_path, env=environment(server))
    await asked.wait()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()
    assert stderr.rstrip().endswith(b"KeyboardInterrupt")
    server.fault = None
    assert (await python(SCRIPT, tmp_path, server)).stdout == "complete complete\n"


async def test_run_can_be_narrowed_and_tells_a_mistake_as_it_is(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    one, other = (each.name for each in server.world.run_tests)
    file = write_settings(tmp_path, [one, other])

    summary = await asyncio.to_thread(lambda: etl.run(file, run_tests=one, since="9999d"))
    assert [each.name for each in summary.run_tests] == [one]
    assert (await etl.plan(str(file))).requests > 0
    assert (await etl.export(file)).exit_code == 0
    with pytest.raises(etl.ConfigurationError, match="Did you mean"):
        etl.run(file, run_tests=f"{one}s")
    with pytest.raises(etl.DestinationError, match="but no dataset"):
        await asyncio.to_thread(etl.run, write_settings(tmp_path, [one], "[destination]", 'path = "."'))


async def test_values_show_in_a_few_lines_what_one_asks_first_and_never_a_key(server: Sandbox, tmp_path: Path) -> None:
    server.world.run_tests[0].name = "<script>\x1b[2J"
    settings = settings_for(server, tmp_path / "data", warehouse={"url": f"duckdb://{tmp_path}/w.duckdb"})
    planned = await etl.plan(settings)
    summary = await etl.export(settings)
    server.fault = lambda _request, _nth: Fault(status=500)
    failed = await etl.export(settings.model_copy(update={"api": settings.api.model_copy(update={"max_tries": 1})}))

    told: list[tuple[Any, tuple[str, ...]]] = [
        (settings, ("run tests  <script>\\x1b[2J, Support triage\n", f"API        {server.base_url}, with keys\n")),
        (etl.Settings(run_tests="all"), ("run tests  all\n", "https://api.futureagi.com, without keys\n")),
        (planned, ("first fetch 18", "duration   ")),
        (summary, ("written    6 executions, 30 calls", "outcome    complete (exit 0)")),
        (failed, ("problem    ", "outcome    unavailable (exit 5)")),
        (
            etl.status(tmp_path / "data"),
            ("verdict    Not good: ", "rows       6 executions, 30 calls", "next       metrics-etl"),
        ),
    ]
    for value, parts in told:
        text, html = f"{value!r}\n", value._repr_html_()
        assert all(part in text for part in parts), text
        assert (text.count("\n") <= 14, "\x1b" in text + html, "<script>" in html) == (True, False, False)
        assert API_KEY not in text + html
        assert SECRET_KEY not in text + html


async def test_beside_a_folder_called_etl_the_command_works_and_python_says_what_the_page_shows(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "pandas.md").read_text(encoding="utf-8")
    (tmp_path / "etl").mkdir()
    (tmp_path / "etl" / "__init__.py").write_text("")
    (tmp_path / "script.py").write_text("import etl; print(etl.run)")
    env, python = environment(), sys.executable

    async def ends(*command: str | Path, **changes: str) -> Ended:
        return await shell(*command, cwd=tmp_path, env=env | changes)

    for command in ([COMMAND, "--version"], [python, "-P", "script.py"], [python, "-P", "-m", "etl", "--version"]):
        assert (await ends(*command)).exit_code == 0, command
    for failed in (
        await ends(python, "script.py"),
        await ends(python, "-m", "etl"),
        await ends(COMMAND, "--version", PYTHONPATH="."),
    ):
        assert failed.exit_code == 1
        assert failed.stderr.splitlines()[-1].removeprefix(f"{python}: ") in page.splitlines()
