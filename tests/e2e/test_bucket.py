"""A dataset in a bucket: the same rows as in a folder, whatever is killed, fails or races."""

import asyncio
import os
import random
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest

import etl
from etl.cli.app import main
from etl.files import lease, objects, store
from etl.files.interface import never_stopped
from etl.pipeline import buffer
from etl.sandbox import Fault, Sandbox
from etl.sandbox.generate import add_execution
from tests.datasets import assert_kept, assert_sound, contents, fill_parts_early
from tests.e2e.command import ended, environment, metrics_etl, start, write_settings
from tests.e2e.test_killed import at_any_moment
from tests.e2e.truth import assert_equals_world
from tests.e2e.warm import fork_server
from tests.stores import (
    AZURE_ACCOUNT,
    AZURE_KEYS,
    KEYS,
    Cut,
    Refused,
    Store,
    StoreProxy,
    Told,
    Verdict,
    azurite,
    bucket_settings,
    mirror,
    nothing,
    proxied,
    upload,
)
from tests.worlds import run_again, settled_world, small_world

ROOT = Path(__file__).parents[2]
IN_ORDER = ["[export]", "commit_interval_seconds = 3600", "[api]", "concurrency = 1"]


async def test_the_same_dataset_as_in_a_folder_comes_out_and_a_quiet_night_lists_once_and_reads_no_data(
    proxy: StoreProxy, tmp_path: Path
) -> None:
    url = proxy.store.url()
    here, there = tmp_path / "here", tmp_path / "there"
    async with Sandbox(small_world()) as server:
        for folder, lines in ((here, []), (there, bucket_settings(url, proxy.endpoint))):
            folder.mkdir()
            write_settings(folder, [run_test.name for run_test in server.world.run_tests], *lines)
            env = environment(server, **KEYS)
            for command in ("check", "run", "verify", "status"):
                assert (await metrics_etl(command, cwd=folder, env=env)).exit_code == 0
        proxy.requests.clear()
        quiet = await metrics_etl("run", "--json", cwd=there, env=env)
        assert quiet.document["store_requests"].keys() == {"get", "list", "put"}
        assert not [told.path for told in proxy.requests if "/run_test" in told.path]
        assert len([told for told in proxy.requests if "list-type" in told.path]) == 1
        mirror(url, proxy.options, there / "data")
        assert_equals_world(there, server.world)
    assert etl.status(url, options=proxy.options).verdict.is_good
    assert contents(here / "data") == contents(there / "data")
    paths = [
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*=*/*.parquet") if "/runs/" not in str(path))
        for folder in (here, there)
    ]
    assert paths[0] == paths[1]
    calls = etl.read_calls(url, evals="wide", options=proxy.options)
    assert sorted(calls["call_execution_id"]) == sorted(etl.read_calls(here / "data")["call_execution_id"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="Azurite comes from npm")
async def test_azure_holds_a_dataset_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AZURE_KEYS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "azurite").mkdir()
    with azurite(tmp_path / "azurite") as store:
        options = {"endpoint": store.endpoint, "account_name": AZURE_ACCOUNT}
        url = "az://datasets/data set"
        told = ", ".join(f'{name} = "{value}"' for name, value in options.items())
        async with Sandbox(small_world()) as server:
            lines = ["[destination]", f'path = "{url}"', f"options = {{ {told} }}"]
            write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests], *lines)
            env = environment(server, **AZURE_KEYS)
            for command in ("check", "run", "verify", "status"):
                assert (await metrics_etl(command, cwd=tmp_path, env=env)).exit_code == 0
            quiet = await metrics_etl("run", "--json", cwd=tmp_path, env=env)
            assert quiet.document["store_requests"] == {"get": 8, "list": 1, "put": 5}, (
                "none for a file of the source's"
            )
            mirror(url, options, tmp_path / "data")
            assert_equals_world(tmp_path, server.world)


@pytest.mark.slow  # pandas, pyarrow, Polars and DuckDB, each with a client of its own
async def test_engines_read_a_bucket_as_the_documentation_says(
    seaweed_store: Store, tmp_path: Path, keys: None
) -> None:
    """DuckDB fetches its extension from a server that a test cannot reach: here it reads through obstore."""
    with proxied(seaweed_store) as proxy:
        await exported(proxy, tmp_path)
        url = next(
            line for line in (tmp_path / "config" / "metrics-etl.toml").read_text().split('"') if "s3://" in line
        )
        expected = sorted(etl.read_table(url, "calls", options=proxy.options)["call_execution_id"])
        section = (ROOT / "docs" / "buckets.md").read_text(encoding="utf-8").partition("\n## Read it\n")[2]
        code = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
        assert len(code) == 5
        found: dict[str, object] = {"URL": url, "ENDPOINT": proxy.endpoint, "REGION": "us-east-1"}
        for block in code:
            exec(block, found)
    for name in ("from_etl", "from_pandas", "from_pyarrow", "from_polars", "from_duckdb"):
        rows = found[name]
        assert sorted(rows["call_execution_id"]) == expected, name  # type: ignore[index]


async def exported(proxy: StoreProxy, folder: Path) -> dict[str, str]:
    """Make a dataset of a small settled world.

    Returns the environment of a command in the folder, without the API's address.
    """
    url = proxy.store.url()
    async with Sandbox(settled_world(run_tests=2, executions=3, calls=2)) as server:
        write_settings(
            folder, [run_test.name for run_test in server.world.run_tests], *bucket_settings(url, proxy.endpoint)
        )
        env = environment(server, **KEYS)
        assert (await metrics_etl("run", "--quiet", cwd=folder, env=env)).exit_code == 0
    return env


async def test_a_changed_part_is_read_once_and_written_once(proxy: StoreProxy, tmp_path: Path) -> None:
    """Whatever the run needs of it: to compare, to merge, to index."""
    async with Sandbox(settled_world(run_tests=2, executions=3, calls=20)) as server:
        env = environment(server, **KEYS)
        lines = bucket_settings(proxy.store.url(), proxy.endpoint)
        write_settings(tmp_path, [run_test.name for run_test in server.world.run_tests], *lines)
        assert (await metrics_etl("run", "--quiet", cwd=tmp_path, env=env)).exit_code == 0
        assert (await metrics_etl("run", "--quiet", cwd=tmp_path, env=env)).exit_code == 0
        run_again(server.world.run_tests[1].executions[1], random.Random(1), datetime.now(UTC))
        proxy.requests.clear()
        night = await metrics_etl("run", "--json", cwd=tmp_path, env=env)

    sent = Counter(
        (told.path.partition("data%20set/")[2].partition("/")[0], told.method)
        for told in proxy.requests
        if "run_test" in told.path
    )
    assert sent == {(table, method): 1 for table in ("executions", "calls", "evals") for method in ("GET", "PUT")}
    assert night.document["store_requests"]["get"] == 3 + 1 + 4 + 3, "of parts, the new run, documents, the lock"


async def test_whoever_may_only_read_can_tell_whether_the_dataset_is_complete(
    proxy: StoreProxy, tmp_path: Path
) -> None:
    """Law 10: one writer. Whether these credentials could export is another question, which check answers."""
    env = await exported(proxy, tmp_path)
    proxy.judge = lambda told: None if told.method in ("GET", "HEAD") else Refused(403, "AccessDenied")
    proxy.requests.clear()
    found = {
        " ".join(words): await metrics_etl(*words, cwd=tmp_path, env=env)
        for words in (["status"], ["verify"], ["check", "--read-only", "--json"])
    }
    methods = {told.method for told in proxy.requests}
    checked = await metrics_etl("check", "--json", cwd=tmp_path, env=env)

    assert found["status"].stdout.startswith("Good: the last complete export was 0 min ago")
    assert (found["verify"].exit_code, methods) == (0, {"GET"})
    problems = [
        {each["subject"]: each["detail"] for each in told.document["checks"] if each["outcome"] == "problem"}
        for told in (found["check --read-only --json"], checked)
    ]
    assert "destination" not in problems[0]
    assert "no permission to put " in problems[1]["destination"]


async def test_what_is_wrong_with_a_bucket_is_one_line(seaweed_store: Store, tmp_path: Path) -> None:
    async with Sandbox(small_world()) as server:
        write_settings(tmp_path, ["a"], *bucket_settings("s3://datasets/data", seaweed_store.endpoint))
        env = environment(server, **KEYS | {"AWS_SECRET_ACCESS_KEY": "y"})
        result = await metrics_etl("run", cwd=tmp_path, env=env)
        assert server.requests == []
        checked = await metrics_etl("check", "--json", cwd=tmp_path, env=env)
    assert result.exit_code == 6
    assert "the secret key does not match the access key" in result.stderr
    assert result.stderr.count("\n") == 1
    told = {each["subject"]: each for each in checked.document["checks"]}
    assert told["lock"]["outcome"] == "skipped"
    assert told["destination"]["outcome"] == "problem"


# Killed and failing at any request to the store


def run_here(folder: Path, env: dict[str, str], life_seconds: float) -> None:
    """The command in this process, one commit for each execution, at no time of the clock; no request is sent again."""
    os.chdir(folder)
    os.environ.update(env)
    sys.argv = ["metrics-etl", "run", "--quiet"]
    with (folder / "stderr").open("w") as stderr, pytest.MonkeyPatch.context() as patch:
        os.dup2(stderr.fileno(), 2)
        fill_parts_early(patch, rows=1)
        patch.setattr(buffer, "_MANY_CALLS", 1)
        patch.setattr(lease, "LIFE_SECONDS", life_seconds)
        patch.setitem(store._PATIENT, "retry_config", {"max_retries": 0})
        patch.setattr(store, "PATIENT_SECONDS", -1)
        main()


def begin(
    context: ForkServerContext, folder: Path, env: dict[str, str], life_seconds: float = 30.0
) -> ForkServerProcess:
    process = context.Process(target=run_here, args=(folder, env, life_seconds))
    process.start()
    return process


async def end(process: ForkServerProcess) -> int:
    await asyncio.to_thread(process.join)
    assert process.exitcode is not None
    return process.exitcode


class Disturbed:
    """A store in which a dataset lies that has changed at the source since; each trial is one copy of it."""

    def __init__(self, proxy: StoreProxy, server: Sandbox, folder: Path) -> None:
        self.proxy = proxy
        self.server = server
        self.folder = folder
        self.context = fork_server()
        self.before = folder / "before"

    async def prepare(self) -> None:
        """Export the world, keep a copy, and let the world change."""
        rng = random.Random(1)
        now = datetime.now(UTC)
        run_test = self.server.world.run_tests[0]
        url = self.place_of("first")
        assert await end(begin(self.context, self.folder, self.environment(url))) == 0, self.stderr()
        mirror(url, self.proxy.options, self.before)
        run_again(run_test.executions[1], rng, now)
        for days in (1, 2):
            add_execution(self.server.world, run_test, rng, now - timedelta(days=9, hours=days), 2)

    def place_of(self, name: str) -> str:
        return f"s3://datasets/{self.folder.name}/{name}"

    def environment(self, url: str) -> dict[str, str]:
        write_settings(
            self.folder, [self.server.world.run_tests[0].name], *IN_ORDER, *bucket_settings(url, self.proxy.endpoint)
        )
        return environment(self.server, **KEYS)

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def copy(self, name: str, *, is_new: bool = False) -> str:
        """A place with the dataset, or with nothing."""
        url = self.place_of(name)
        if not is_new:
            upload(self.before, url, self.proxy.store.options)
        self.proxy.requests.clear()
        return url

    async def requests_of_a_run(self, *, is_new: bool = False) -> list[Told]:
        url = self.copy(f"whole-{is_new}", is_new=is_new)
        assert await end(begin(self.context, self.folder, self.environment(url))) == 0, self.stderr()
        return list(self.proxy.requests)

    async def heal(self, url: str, *, is_new: bool = False) -> None:
        """What is there is sound and holds what was there; the next run completes it."""
        self.proxy.before, self.proxy.after, self.proxy.verdicts = nothing, nothing, {}
        changed = {self.server.world.run_tests[0].executions[1].execution_id}
        mirror(url, self.proxy.store.options, self.folder / "data")
        now = assert_sound(self.folder / "data")
        if not is_new:
            assert_kept(assert_sound(self.before), now, changed=changed)
        assert await end(begin(self.context, self.folder, self.environment(url), 0.3)) == 0, self.stderr()
        mirror(url, self.proxy.store.options, self.folder / "data")
        assert_sound(self.folder / "data")
        assert_equals_world(self.folder, self.server.world)


@pytest.fixture
async def disturbed(seaweed_store: Store, tmp_path: Path, keys: None) -> AsyncIterator["Disturbed"]:
    async with Sandbox(settled_world(run_tests=1, executions=2, calls=2, days=1)) as server:
        with proxied(seaweed_store) as proxy:
            trial = Disturbed(proxy, server, tmp_path)
            await trial.prepare()
            yield trial


@at_any_moment
async def test_a_run_that_is_killed_at_any_request_to_the_store_is_completed_by_the_next(
    disturbed: Disturbed, is_new: bool, is_every: bool
) -> None:
    """The store never hears of the request, hears half of it, or answers nobody."""
    moments: list[Verdict] = [Cut("before"), Cut("halfway"), Cut("after")]
    requests = await disturbed.requests_of_a_run(is_new=is_new)
    for nth in range(len(requests)) if is_every else [len(requests) // 2]:
        for moment in moments if is_every else moments[-1:]:
            url = disturbed.copy(f"killed-{nth}-{moment}", is_new=is_new)
            process = begin(disturbed.context, disturbed.folder, disturbed.environment(url))

            def kill(told: Told, nth: int = nth, process: ForkServerProcess = process) -> None:
                if told.nth == nth:
                    process.kill()

            disturbed.proxy.before, disturbed.proxy.verdicts = kill, {nth: moment}
            assert await end(process) == -9
            await disturbed.heal(url, is_new=is_new)


@pytest.mark.slow
async def test_a_run_of_which_any_request_to_the_store_fails_loses_nothing(disturbed: Disturbed) -> None:
    verdicts: list[Verdict] = [Refused(403, "AccessDenied"), Refused(404), Cut("before"), Cut("halfway"), Cut("after")]
    for nth in range(len(await disturbed.requests_of_a_run())):
        for verdict in verdicts:
            url = disturbed.copy(f"failed-{nth}-{verdict}")
            disturbed.proxy.verdicts = {nth: verdict}
            code = await end(begin(disturbed.context, disturbed.folder, disturbed.environment(url)))
            assert code in (0, 6), (nth, verdict, disturbed.stderr())
            assert code == 0 or disturbed.stderr().count("s3://")
            await disturbed.heal(url)


@pytest.mark.slow
async def test_of_two_writers_exactly_one_exports(disturbed: Disturbed) -> None:
    for number in range(100):
        url = disturbed.copy(f"race-{number}")
        is_decided = asyncio.Event()
        disturbed.server.fault = lambda _request, _nth, over=is_decided: (
            None if over.is_set() else Fault(delay_seconds=0.05)
        )
        sent = len(disturbed.server.requests)
        env = disturbed.environment(url)
        both = [begin(disturbed.context, disturbed.folder, env, 2.0) for _ in range(2)]
        ends = [asyncio.create_task(end(process)) for process in both]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        is_decided.set()
        assert sorted([await each for each in ends]) == [0, 75], disturbed.stderr()
        disturbed.server.fault = None
        asked = [request.query.get("call_execution_id") for request in disturbed.server.requests[sent:]]
        calls = [call_id for call_id in asked if call_id]
        assert len({*calls}) == len(calls) > 0
        await disturbed.heal(url)


def beside_the_lock(requests: list[Told]) -> list[Told]:
    """Those that come in the same order in each run: the lock is renewed at times of the clock."""
    return [told for told in requests if not told.path.endswith("/_state/lock")]


@pytest.mark.slow
async def test_a_run_that_sleeps_until_another_took_over_writes_no_more_and_loses_nothing(disturbed: Disturbed) -> None:
    """It sleeps after each write."""
    whole = beside_the_lock(await disturbed.requests_of_a_run())
    writes = [nth for nth, told in enumerate(whole) if told.method in ("PUT", "DELETE")]
    loop = asyncio.get_running_loop()
    for nth in writes:
        url = disturbed.copy(f"slept-{nth}")
        env = disturbed.environment(url)
        asleep = asyncio.Event()
        first = begin(disturbed.context, disturbed.folder, env, 0.5)

        def stop(told: Told, nth: int = nth, first: ForkServerProcess = first, asleep: asyncio.Event = asleep) -> None:
            if beside_the_lock(disturbed.proxy.requests[: told.nth + 1])[nth:] == [told]:
                assert first.pid
                os.kill(first.pid, signal.SIGSTOP)
                loop.call_soon_threadsafe(asleep.set)

        disturbed.proxy.after = stop
        await asleep.wait()
        disturbed.proxy.after = nothing
        assert await end(begin(disturbed.context, disturbed.folder, env, 0.5)) == 0, disturbed.stderr()
        assert first.pid
        os.kill(first.pid, signal.SIGCONT)
        assert await end(first) == (6 if nth < writes[-1] else 0), nth
        await disturbed.heal(url)


async def test_ctrl_c_while_a_lock_is_watched_ends_the_run(proxy: StoreProxy, tmp_path: Path) -> None:
    url = proxy.store.url()
    watched = asyncio.Event()
    loop = asyncio.get_running_loop()
    lease.Lease(objects.Objects(url, proxy.options), datetime.now(UTC)).take(never_stopped)

    def note(told: Told) -> None:
        if told.method == "GET" and told.path.endswith("/lock"):
            loop.call_soon_threadsafe(watched.set)

    proxy.after = note
    async with Sandbox(small_world()) as server:
        write_settings(tmp_path, ["a"], *bucket_settings(url, proxy.endpoint))
        process = await start("run", "--quiet", cwd=tmp_path, env=environment(server, **KEYS))
        await watched.wait()
        process.send_signal(signal.SIGINT)
        ending = await ended(process)
    assert ending.exit_code == 130
    assert "Traceback" not in ending.stderr
