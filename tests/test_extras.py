"""What a message names where an extra is missing: the command of the tool that installed the exporter."""

import json
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from etl.extras import install_command

WHEEL = {"url": "file:///w/it.whl", "archive_info": {}}
REVISION = {"url": "https://host/it.git", "vcs_info": {"vcs": "git", "commit_id": "4f2a"}}
FOLDER = {"url": "file:///w", "dir_info": {}}
UV, PIPX = "uv-receipt.toml", "pipx_metadata.json"


@pytest.mark.parametrize(
    ("origin", "receipt", "installer", "command"),
    [
        ({}, None, "pip", "/v/python -m pip install 'simulation-metrics-etl[bucket]'"),
        ({}, None, "uv", "uv pip install --python /v/python 'simulation-metrics-etl[bucket]'"),
        ({}, UV, "uv", "uv tool install 'simulation-metrics-etl[bucket,fast]'"),
        ({}, PIPX, "uv", "pipx install --force 'simulation-metrics-etl[bucket,fast]'"),
        (WHEEL, PIPX, "pip", "pipx install --force 'simulation-metrics-etl[bucket,fast] @ file:///w/it.whl'"),
        (REVISION, UV, "uv", "uv tool install 'simulation-metrics-etl[bucket,fast] @ git+https://host/it.git@4f2a'"),
        (FOLDER, None, "pip", "/v/python -m pip install 'simulation-metrics-etl[bucket] @ file:///w'"),
    ],
)  # fmt: skip
def test_command_fits_the_tool_and_keeps_source_and_extras(
    tmp_path: Path, origin: dict[str, object], receipt: str | None, installer: str, command: str
) -> None:
    """A tool of uv or pipx is made anew by its command, which keeps the extra ``fast``: pytest plays its package."""
    if receipt:
        (tmp_path / receipt).touch()
    assert install_command("bucket", installed(tmp_path, origin, installer), tmp_path, "/v/python") == command


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        (".venv", "make -C '{checkout}' install EXTRAS=bucket"),
        ("mine", "/v/python -m pip install --editable '{checkout}[bucket]'"),
    ],
)
def test_checkout_stays_what_is_installed(tmp_path: Path, environment: str, command: str) -> None:
    checkout = tmp_path / "a checkout"
    here = installed(tmp_path, {"url": checkout.as_uri(), "dir_info": {"editable": True}}, "pip")
    assert install_command("bucket", here, checkout / environment, "/v/python") == command.format(checkout=checkout)


def installed(folder: Path, origin: dict[str, object], installer: str) -> Distribution:
    metadata = folder / "simulation_metrics_etl-1.dist-info"
    metadata.mkdir()
    needed = [
        "Requires-Dist: pytest>=1",
        'Requires-Dist: pytest>=1; extra == "fast"',
        'Requires-Dist: pytest; extra == "both"',
    ]
    (metadata / "METADATA").write_text(
        "\n".join([*needed, 'Requires-Dist: nowhere-to-be-found>=2; extra == "both"', ""])
    )
    (metadata / "INSTALLER").write_text(f"{installer}\n")
    if origin:
        (metadata / "direct_url.json").write_text(json.dumps(origin))
    return Distribution.at(metadata)
