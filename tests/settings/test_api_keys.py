"""API keys come from the environment, or from files that nobody else can read."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from etl.settings.api_keys import _is_open_to_others
from tests.settings.reading import mistake, mistakes, read_settings

ROOT, ME, SOMEBODY = 0, 1000, 1001


def test_keys_from_files(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file = tmp_path / "key"
    key_file.touch(mode=0o600)
    key_file.write_text("from-file\n")
    monkeypatch.delenv("FI_API_KEY")
    monkeypatch.setenv("FI_API_KEY_FILE", str(key_file))
    settings = read_settings(file, 'run_tests = ["A"]')
    assert settings.api_key
    assert settings.api_key.get_secret_value() == "from-file"
    monkeypatch.setenv("FI_API_KEY", "another")
    assert mistake(file, 'run_tests = ["A"]') == "FI_API_KEY and FI_API_KEY_FILE are both set. Unset one of them"
    monkeypatch.delenv("FI_API_KEY")

    key_file.chmod(0o604)
    others = f"FI_API_KEY_FILE ({key_file}): other users can read this file. Run chmod 600 {key_file}"
    assert mistake(file, 'run_tests = ["A"]') == others.replace(f"{tmp_path}/", "")
    key_file.unlink()
    assert "cannot read FI_API_KEY_FILE" in mistake(file, 'run_tests = ["A"]')


def test_keys_that_were_saved_but_not_loaded_are_named_once(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FI_API_KEY")
    monkeypatch.delenv("FI_SECRET_KEY")
    assert len(mistakes(file, 'run_tests = "all"')) == 2
    Path("keys.env").touch()
    assert mistake(file, 'run_tests = "all"').endswith("keys.env is not loaded. Run '. ./keys.env' first")


def test_pipe_is_read_until_its_writer_has_ended(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell gives it for ``<(secret-tool …)``."""
    reading, writing = os.pipe()
    program = "for part in 'from-', 'pipe': print(part, end='', flush=True)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=writing):
        os.close(writing)
        monkeypatch.delenv("FI_API_KEY")
        monkeypatch.setenv("FI_API_KEY_FILE", f"/dev/fd/{reading}")
        settings = read_settings(file, 'run_tests = ["A"]')
    os.close(reading)
    assert settings.api_key
    assert settings.api_key.get_secret_value() == "from-pipe"


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
    assert _is_open_to_others(os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, ME, 64, 0, 0, 0))) is is_open


WITH_PROXY = 'run_tests = ["A"]\n[api]\nproxy = "http://proxy.example:3128/"\n'


def test_proxy_is_given_alone_or_with_credentials_of_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = read_settings(file, WITH_PROXY)
    assert settings.api.proxy == "http://proxy.example:3128"
    assert (settings.proxy_user, settings.proxy_password) == (None, None)

    secret = tmp_path / "password"
    secret.write_text("canary\n")
    secret.chmod(0o600)
    monkeypatch.setenv("FI_PROXY_USER", "me")
    monkeypatch.setenv("FI_PROXY_PASSWORD_FILE", str(secret))
    settings = read_settings(file, WITH_PROXY)
    assert settings.proxy_user
    assert settings.proxy_password
    assert (settings.proxy_user.get_secret_value(), settings.proxy_password.get_secret_value()) == ("me", "canary")
    assert "canary" not in repr(settings)
    assert read_settings(file, 'run_tests = ["A"]').proxy_password is None, "without a proxy nobody reads them"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FI_PROXY_USER": "me"}, "no password. Set FI_PROXY_PASSWORD, or FI_PROXY_PASSWORD_FILE"),
        ({"FI_PROXY_PASSWORD": "canary"}, "no user name. Set FI_PROXY_USER, or"),
    ],
)
def test_half_the_credentials_of_a_proxy_are_a_mistake(
    file: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert message in mistake(file, WITH_PROXY)
