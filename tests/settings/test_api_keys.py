"""API keys come from the environment, or from files that nobody else can read."""

import os
import stat
from pathlib import Path

import pytest

from etl.settings.api_keys import _is_open_to_others
from tests.settings.loading import load, mistake

ROOT, ME, SOMEBODY = 0, 1000, 1001


def test_keys_from_files(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file = tmp_path / "key"
    key_file.touch(mode=0o600)
    key_file.write_text("from-file\n")
    monkeypatch.delenv("FI_API_KEY")
    monkeypatch.setenv("FI_API_KEY_FILE", str(key_file))
    settings = load(file, 'run_tests = ["A"]')
    assert settings.api_key
    assert settings.api_key.get_secret_value() == "from-file"

    key_file.chmod(0o604)
    assert mistake(
        file, 'run_tests = ["A"]'
    ) == f"FI_API_KEY_FILE ({key_file}): others can read it: chmod 600 {key_file}".replace(f"{tmp_path}/", "")
    key_file.unlink()
    assert "cannot be read: No such file" in mistake(file, 'run_tests = ["A"]')


@pytest.mark.parametrize(
    ("mode", "owner", "reader", "is_open"),
    [
        (0o600, ME, ME, False),
        (0o400, ME, ME, False),
        (0o640, ME, ME, True),
        (0o440, ROOT, ME, False),  # a Kubernetes secret with fsGroup, a systemd credential with an access list
        (0o640, ROOT, ME, False),
        (0o660, ROOT, ME, True),
        (0o450, ROOT, ME, True),
        (0o444, ROOT, ME, True),
        (0o440, ROOT, ROOT, True),  # root needs no group to read what is its own
        (0o440, SOMEBODY, ME, True),
    ],
)
def test_key_file_may_be_open_to_a_group_only_when_root_lets_us_read_it_so(
    mode: int, owner: int, reader: int, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: reader)

    found = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, ME, 64, 0, 0, 0))

    assert _is_open_to_others(found) is is_open
