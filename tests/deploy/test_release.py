"""What is published: the wheel, the sdist and the page of an index, built here as the release builds them."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl.version import __version__
from tests.support import run_to_end

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCE = PROJECT["urls"]["Source"]
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return folder


def files(package: Path) -> set[str]:
    """Of a wheel, or of an sdist without the folder that it is in."""
    if package.suffix == ".whl":
        return set(zipfile.ZipFile(package).namelist())
    with tarfile.open(package) as sdist:
        return {name.partition("/")[2] for name in sdist.getnames()}


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (found,) = built.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(f"simulation_metrics_etl-{__version__}.dist-info/METADATA"))


CODE = {path.relative_to(ROOT).as_posix() for path in (ROOT / "etl").rglob("*.py")}
CODE |= {"etl/py.typed", "etl/report/page.css", "etl/report/page.html"}


def test_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert files(wheel) == CODE | {f"simulation_metrics_etl-{__version__}.dist-info/{name}" for name in about}


def test_sdist_has_what_builds_the_wheel_and_what_its_reader_reads(sdist: Path) -> None:
    documents = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.*") if path.suffix != ".pyc"}
    documents.add("docs/deploy/Dockerfile")
    about = {"CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "requirements.lock", ".gitignore"}
    assert files(sdist) == CODE | documents | about | {"config/example.toml"}


def test_metadata_names_one_repository_and_each_python_that_is_tested(metadata: Message) -> None:
    assert metadata["Version"] == __version__
    assert all(url.startswith(SOURCE) for url in PROJECT["urls"].values())
    for workflow, job in (("ci", "check"), ("release", "test")):
        assert WORKFLOWS[workflow]["jobs"][job]["strategy"]["matrix"]["python"] == PYTHONS


def test_page_of_an_index_leads_to_files_of_this_version_and_needs_no_checkout(metadata: Message) -> None:
    page = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)]+)\)", page)
    at_the_tag = [re.match(rf"{SOURCE}/(blob|raw)/v{re.escape(__version__)}/([^#]+)", link) for link in links]
    assert len(links) > 20
    assert all(match and (ROOT / match[2]).exists() for match in at_the_tag), links
    assert [match[2] for match in at_the_tag if match and match[1] == "raw"] == ["docs/report-light.png"]
    assert "mermaid" not in page
    assert "'.[" not in page


@pytest.mark.parametrize(
    ("repository", "tag", "refusal"),
    [
        (SOURCE, f"v{__version__}", None),
        ("https://git.example/fork/simulation-metrics-etl", f"v{__version__}", f"the source is {SOURCE}"),
        (SOURCE, "v0.0.1", f"the tag must be v{__version__}"),
    ],
)
def test_release_refuses_another_repository_and_another_tag(repository: str, tag: str, refusal: str | None) -> None:
    (step,) = (each for each in WORKFLOWS["release"]["jobs"]["build"]["steps"] if "Refuse" in each.get("name", ""))
    server, owner, name = repository.rsplit("/", 2)
    env = {"PATH": os.environ["PATH"], "GITHUB_SERVER_URL": server, "GITHUB_REPOSITORY": f"{owner}/{name}"}
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    found = run_to_end(shell, cwd=ROOT, env=env | {"GITHUB_REF_NAME": tag})
    assert found.returncode == (1 if refusal else 0)
    assert (refusal or "") in found.stdout


def test_workflows_pin_what_they_run_and_only_the_publisher_is_trusted() -> None:
    jobs = [job for workflow in WORKFLOWS.values() for job in workflow["jobs"].values()]
    actions = [step["uses"] for job in jobs for step in job["steps"] if "uses" in step]
    assert [action for action in actions if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)] == []
    trusted = [job for job in jobs if "id-token" in job.get("permissions", {})]
    assert trusted == [WORKFLOWS["release"]["jobs"]["publish"]]
    assert "secrets." not in str(WORKFLOWS)


def works(version: str) -> bool:
    python = shutil.which(f"python{version}")
    return (
        python is not None and subprocess.run([python, "--version"], check=False, capture_output=True).returncode == 0
    )


HERE = [version for version in PYTHONS if works(version)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("python", sorted({HERE[0], HERE[-1]}))
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_package_runs_the_demo_where_nothing_else_is_installed(
    kind: str, python: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    package: Path = request.getfixturevalue(kind)
    env = {"PATH": f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    for command in (
        [f"python{python}", "-m", "venv", "venv"],
        ["pip", "install", "--quiet", str(package)],
        ["metrics-etl", "demo", "--path", "made-up"],
    ):
        subprocess.run(command, cwd=tmp_path, env=os.environ | env, check=True)
    found = run_to_end(["metrics-etl", "--version"], cwd=tmp_path, env=os.environ | env)
    assert found.stdout == f"{__version__}\n"
    assert list((tmp_path / "made-up" / "calls").rglob("*.parquet"))
