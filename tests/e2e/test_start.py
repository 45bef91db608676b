"""What a command imports: of the heavy modules, only those that it needs.

Help and version are tested in ``tests/cli/test_app.py``.
"""

from datetime import UTC, datetime
from pathlib import Path
from random import Random

import etl
from etl.sandbox import Sandbox
from etl.sandbox.generate import finish_execution
from etl.sandbox.world import rerun_execution
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.worlds import a_sandbox

server = a_sandbox(run_tests=1, executions=20, calls=3)


async def loaded_by(*arguments: str, cwd: Path, server: Sandbox) -> set[str]:
    """The modules that the command imported, by the names of their packages."""
    result = await metrics_etl(*arguments, cwd=cwd, env=environment(server, PYTHONPROFILEIMPORTTIME="1"))
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    assert (result.exit_code, result.stderr.splitlines()) == (0, lines)
    return {line.rpartition("|")[2].strip() for line in lines}


async def test_status_and_nights_import_only_what_they_need(server: Sandbox, tmp_path: Path) -> None:
    write_settings(tmp_path, [server.world.run_tests[0].name], "[export]", "settle_hours = 0")

    first = await loaded_by("run", "--quiet", cwd=tmp_path, server=server)
    (run_test,) = server.world.run_tests
    rerun = run_test.executions[0]
    rerun_execution(rerun, datetime.now(UTC))
    finish_execution(rerun, Random(1), datetime.now(UTC))
    rerun.calls[0].is_deleted = True
    news = await loaded_by("run", "--quiet", cwd=tmp_path, server=server)
    assert etl.read_calls(tmp_path / "data", deleted="include")["deleted_at"].notna().sum() == 1
    await metrics_etl("run", "--quiet", cwd=tmp_path, env=environment(server))  # now no file is too fresh for the index
    night = await loaded_by("run", "--quiet", cwd=tmp_path, server=server)
    status = await loaded_by("status", cwd=tmp_path, server=server)

    assert not (first | news) & {"pandas", "pyarrow.dataset", "rich.console", "etl.report", "etl.compare"}
    assert not night & {"pandas", "pyarrow.dataset", "rich.console", "structlog", "etl.report", "etl.compare"}
    assert not status & {
        "pandas",
        "pyarrow.dataset",
        "aiohttp",
        "structlog",
        "etl.report",
        "etl.compare",
        "etl.pipeline",
    }
