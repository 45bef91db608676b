"""The command behind a real proxy: it exports everything. What is wrong with one: ``tests/extract/test_proxy.py``."""

from etl.sandbox import Sandbox
from tests.certificates import certificate
from tests.e2e import truth
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.proxy import proxying
from tests.support import API_KEY, SECRET_KEY
from tests.worlds import settled_world

CREDENTIALS = {"FI_PROXY_USER": "canary-user", "FI_PROXY_PASSWORD": "canary-password"}


async def test_export_through_a_proxy_is_whole_and_shows_it_no_key(tmp_path):
    ca_file, tls = certificate(tmp_path, "IP:127.0.0.1")
    world = settled_world(run_tests=1, executions=2, calls=2)
    async with Sandbox(world, tls=tls) as source, proxying(credentials=":".join(CREDENTIALS.values())) as proxy:
        names = [run_test.name for run_test in world.run_tests]
        write_settings(tmp_path, names, "[api]", f'proxy = "{proxy.url}"', f'ca_file = "{ca_file}"', "max_tries = 2")
        checked = await metrics_etl("check", cwd=tmp_path, env=environment(source, **CREDENTIALS))
        ended = await metrics_etl("run", cwd=tmp_path, env=environment(source, **CREDENTIALS))
    assert (checked.exit_code, ended.exit_code) == (0, 0), ended.stderr
    truth.assert_equals_world(tmp_path, source.world)
    seen = b"".join(proxy.seen) + proxy.tunnelled
    assert not [key for key in (API_KEY, SECRET_KEY) if key.encode() in seen]
