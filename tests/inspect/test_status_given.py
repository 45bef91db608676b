"""``etl.status``: the same as the command prints, whatever it is given."""

import json
from datetime import date
from pathlib import Path

import pytest

import etl
from etl.cli.show_dataset import print_status
from etl.sandbox import Sandbox
from tests.e2e.command import environment, metrics_etl, write_settings
from tests.support import settings_for
from tests.worlds import a_sandbox

server = a_sandbox(run_tests=2, executions=3, calls=2)


async def test_status_is_what_the_command_prints_by_settings_their_file_or_the_folder(
    server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(server, tmp_path / "data")
    file = write_settings(tmp_path, [each.name for each in settings.run_tests])
    await etl.export(settings)
    monkeypatch.chdir(tmp_path)
    command = await metrics_etl("status", "--json", "--max-age-hours", "9", cwd=tmp_path, env=environment())
    told = {**command.document, "read_at": None, "dataset": None}

    for given in (settings, file, str(file), None, tmp_path / "data", "data"):
        found = etl.status(given, max_age_hours=9)
        assert json.loads(json.dumps(found.as_json())) | {"read_at": None, "dataset": None, "sweep_days": 30} == told
        assert found.verdict.is_good
    assert not etl.status(settings, max_age_hours=0).verdict.is_good
    name = settings.run_tests[0].name
    print_status(found, {f"{name}{rest}": date(2026, 11, 9) for rest in ("", "/eval_x_pass_rate", "/cost_men")})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("accepted")]
    assert [line.endswith(f"not found. Did you mean '{name}/cost_mean'?") for line in lines] == [False, False, True]


def test_status_without_a_dataset_or_with_a_mistake_in_the_settings_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("data", None):
        with pytest.raises(etl.DestinationError, match="there is no dataset at "):
            etl.status(given)
    for file in ("absent.toml", write_settings(tmp_path, "all", "sinc = 1")):
        with pytest.raises(etl.ConfigurationError, match=r"absent.toml was not found|sinc is unknown"):
            etl.status(file)
