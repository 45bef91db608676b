"""The command behind a real proxy: it exports everything, and says in one line what is wrong with the proxy."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from etl.sandbox import Sandbox
from tests.certificates import certificate
from tests.e2e import truth
from tests.e2e.command import environment, metrics_etl
from tests.proxy import Proxy, proxying
from tests.support import API_KEY, SECRET_KEY
from tests.worlds import settled_world

CREDENTIALS = {"FI_PROXY_USER": "canary-user", "FI_PROXY_PASSWORD": "canary-password"}


@asynccontextmanager
async def behind_a_proxy(folder: Path, *, proxy_url: str = "") -> AsyncIterator[tuple[Sandbox, Proxy]]:
    ca_file, tls = certificate(folder, "IP:127.0.0.1")
    world = settled_world(run_tests=1, executions=2, calls=2)
    async with Sandbox(world, tls=tls) as source, proxying(credentials=":".join(CREDENTIALS.values())) as proxy:
        api = f'[api]\nproxy = "{proxy_url or proxy.url}"\nca_file = "{ca_file}"\nmax_tries = 2\n'
        names = json.dumps([run_test.name for run_test in world.run_tests])
        (folder / "config").mkdir()
        (folder / "config" / "metrics-etl.toml").write_text(f"run_tests = {names}\n{api}", encoding="utf-8")
        yield source, proxy


async def test_export_through_a_proxy_is_whole_and_shows_it_no_key(tmp_path: Path) -> None:
    async with behind_a_proxy(tmp_path) as (source, proxy):
        checked = await metrics_etl("check", cwd=tmp_path, env=environment(source, **CREDENTIALS))
        ended = await metrics_etl("run", cwd=tmp_path, env=environment(source, **CREDENTIALS))
    assert (checked.exit_code, ended.exit_code) == (0, 0), ended.stderr
    truth.assert_equals_world(tmp_path, source.world)
    seen = b"".join(proxy.seen) + proxy.tunnelled
    assert not [key for key in (API_KEY, SECRET_KEY) if key.encode() in seen]


@pytest.mark.parametrize("command", ["run", "check"])
async def test_proxy_that_refuses_the_credentials_is_a_mistake_of_the_settings(tmp_path: Path, command: str) -> None:
    async with behind_a_proxy(tmp_path) as (source, _):
        wrong = CREDENTIALS | {"FI_PROXY_PASSWORD": "canary-other"}
        ended = await metrics_etl(command, cwd=tmp_path, env=environment(source, **wrong))
    assert ended.exit_code == 2
    said = ended.stdout + ended.stderr
    assert "the proxy refused to connect to 127.0.0.1 (407): check FI_PROXY_USER and FI_PROXY_PASSWORD" in said
    assert "canary" not in said
    assert source.requests == []
