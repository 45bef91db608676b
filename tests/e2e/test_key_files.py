"""Keys in files of root's, as a systemd service and a Kubernetes pod find them that do not run as root."""

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from etl.sandbox import Sandbox
from tests.e2e.command import COMMAND, environment, metrics_etl, write_settings
from tests.support import API_KEY
from tests.worlds import settled_world

NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can enter, unlike those of pytest."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root, with setpriv, can give a file to another user")
    if subprocess.run([*AS_NOBODY, COMMAND, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("the command lies where other users cannot run it")
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def server() -> AsyncIterator[Sandbox]:
    async with Sandbox(settled_world(run_tests=1, executions=1, calls=1)) as running:
        yield running


def give_to_group(path: Path) -> None:
    """As Kubernetes does with a secret in a pod that has fsGroup."""
    os.chown(path, 0, NOBODY)
    path.chmod(0o440)


def give_by_access_list(path: Path) -> None:
    """As systemd does with a credential of a service that has User or DynamicUser."""
    path.chmod(0o400)
    owner, user, group, mask, other, read = 0x01, 0x02, 0x04, 0x10, 0x20, 4
    entries = [(owner, read, -1), (user, read, NOBODY), (group, 0, -1), (mask, read, -1), (other, 0, -1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", packed)
    except OSError as exc:
        pytest.skip(f"no access lists on this file system: {exc.strerror}")


@pytest.mark.parametrize("give", [give_to_group, give_by_access_list])
async def test_key_file_that_root_lets_us_read_is_accepted_though_it_shows_the_groups_bit(
    give: Callable[[Path], None], server: Sandbox, folder: Path
) -> None:
    write_settings(folder, [server.world.run_tests[0].name])
    key_file = folder / "key"
    key_file.write_text(f"{API_KEY}\n")
    give(key_file)
    assert key_file.stat().st_mode & 0o777 == 0o440
    env = environment(server, FI_API_KEY=None, FI_API_KEY_FILE=str(key_file))

    accepted = await metrics_etl("run", "--quiet", cwd=folder, env=env, under=AS_NOBODY)
    key_file.chmod(0o444)
    refused = await metrics_etl("run", "--quiet", cwd=folder, env=env, under=AS_NOBODY)

    assert (accepted.exit_code, accepted.stderr) == (0, "")
    assert refused.exit_code == 2
    assert "others can read it" in refused.stderr
