"""The keys are in the headers of requests to the API and nowhere else, whatever goes wrong or the server sends back.

Both keys begin and end with a mark that no escaping changes: where a key is, in any spelling, there is a mark.
"""

import html
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

import etl
from etl.extract import client as client_module
from etl.extract import quota as quota_module
from etl.sandbox import Fault, Sandbox
from tests.e2e import truth
from tests.e2e.command import environment, start, write_settings
from tests.e2e.faults import KINDS
from tests.support import settings_for
from tests.worlds import settled_world

API_KEY = "canary0head/+\"<&>'\\%=canary0tail"
SECRET_KEY = "canary1head-5d1f7e3b-canary1tail"
MARKS = [f"canary{number}{end}".encode() for number in (0, 1) for end in ("head", "tail")]
BOTH = f"{API_KEY} {SECRET_KEY}"
KEYS = {"FI_API_KEY": API_KEY, "FI_SECRET_KEY": SECRET_KEY}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_module, "_NO_HINT_SECONDS", 0.02)


def echoing(fault: Fault) -> Fault:
    """The same fault from a server that tells what it was sent: in headers, in texts, and beside every status."""
    in_json = json.dumps(BOTH).encode()

    def edit(body: bytes) -> bytes:
        body = fault.edit(body) if fault.edit else body
        if "Content-Encoding" in fault.headers:
            return body
        if not body.startswith(b"{"):
            return f"{BOTH} {html.escape(BOTH)} {quote(BOTH)} ".encode() + in_json + body
        body = body.replace(b'"message":"', b'"message":"' + in_json[1:-1])
        return body.replace(b'"status":', b'"echo":' + in_json + b',"status":')

    return replace(fault, edit=edit, headers={**fault.headers, "X-Echo": BOTH, "Set-Cookie": f"key={SECRET_KEY}"})


class EchoingSource(Sandbox):
    """A server that fails in one way for one run test's list, one execution's calls and one call.

    It echoes the keys in everything it says.
    """

    def __init__(self, fault: Fault) -> None:
        world = settled_world(run_tests=2, executions=2, calls=2)
        super().__init__(world, api_key=API_KEY, secret_key=SECRET_KEY)
        first, second = world.run_tests[0].executions
        struck = {world.run_tests[1].name, first.execution_id, second.calls[0].call_execution_id}
        right = echoing(Fault())
        self.fault = lambda request, _nth: echoing(fault) if struck & {*request.query.values()} else right


def written(folder: Path) -> Iterator[bytes]:
    """Every file under the folder, and every cell of a Parquet file, which may be compressed."""
    for path in filter(Path.is_file, folder.rglob("*")):
        yield path.read_bytes()
    for table in ("executions", "calls", "evals", "errors", "runs"):
        if (folder / "data" / table).exists():
            yield repr(truth.rows_of(folder, table)).encode()


def marks_in(*texts: bytes) -> set[bytes]:
    return {mark for mark in MARKS for text in texts if mark in text}


async def everything_said(
    source: Sandbox, folder: Path, caplog: pytest.LogCaptureFixture, *, is_slow: bool = False
) -> list[bytes]:
    """Events, log records of all libraries, summary and files of an export."""
    caplog.set_level(logging.DEBUG)
    events: list[str] = []
    timeouts = {"connect_timeout_seconds": 0.1, "read_timeout_seconds": 0.1} if is_slow else {}
    settings = settings_for(
        source,
        folder / "data",
        api={"max_tries": 2, "max_response_mb": 1, "requests_per_minute": 100_000, **timeouts},
        export={"include_raw": True},
        api_key=API_KEY,
        secret_key=SECRET_KEY,
    )
    summary = await etl.export(settings, notify=lambda event, **fields: events.append(f"{event} {fields}"))
    said = [*events, caplog.text, repr(summary), repr(summary.as_json()), repr(settings)]
    return [*(text.encode() for text in said), *written(folder)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if n % 5 else ()) for n, name in enumerate(KINDS)]
)
async def test_no_fault_makes_a_key_appear_anywhere(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind = KINDS[name]
    async with EchoingSource(kind.fault) as source:
        assert not marks_in(*await everything_said(source, tmp_path, caplog, is_slow=kind.is_slow))
    assert len(source.requests) >= 2


@pytest.mark.parametrize("name", ["500 JSON", "404 HTML", "NaN"])
async def test_the_search_finds_keys_where_nobody_takes_them_out(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "eraser", lambda _keys: bytes)
    async with EchoingSource(KINDS[name].fault) as source:
        assert marks_in(*await everything_said(source, tmp_path, caplog)) == set(MARKS)


# The command


async def run(folder: Path, *arguments: str, env: dict[str, str]) -> tuple[int, list[bytes]]:
    """The exit code, and everything that was printed and written."""
    process = await start(*arguments, cwd=folder, env=env | KEYS | {"PYTHONASYNCIODEBUG": "1"})
    printed = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [*printed, *written(folder)]


@pytest.mark.parametrize(
    ("name", "exit_code"),
    [
        ("500 JSON", 3),
        ("403", 4),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("400", 3), ("302 to another host", 3), ("NaN", 0))),
    ],
)
async def test_verbose_command_prints_and_writes_no_key(name: str, exit_code: int, tmp_path: Path) -> None:
    async with EchoingSource(KINDS[name].fault) as source:
        write_settings(tmp_path, [each.name for each in source.world.run_tests], "[api]", "max_tries = 1")
        ended, said = await run(tmp_path, "run", "--verbose", env=environment(source))
        plan_ended, plan_said = await run(tmp_path, "plan", "--json", env=environment(source))

    assert (ended, plan_ended) == (exit_code, exit_code)
    assert b"run_finished" in b"".join(said)
    assert not marks_in(*said, *plan_said)


@pytest.mark.parametrize(
    "bug",
    [
        *(
            pytest.param(f"import etl.{bug} = lambda *_, **__: 1 / 0", marks=pytest.mark.slow)
            for bug in ("extract.client as module; module.decode", "dataset.commit as module; module.calls_frame")
        ),
        "import aiohttp; aiohttp.TCPConnector.connect = lambda self, request, **_: {}[repr(request.headers)]",
    ],
)
async def test_traceback_of_a_bug_holds_no_key(bug: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(bug)
    async with EchoingSource(Fault()) as source:
        write_settings(tmp_path, [each.name for each in source.world.run_tests])
        env = environment(source) | {"PYTHONPATH": str(tmp_path)}
        ended, said = await run(tmp_path, "run", "--verbose", env=env)

    assert ended == 1
    assert any(b"Traceback" in text for text in said)
    assert not marks_in(*said)
