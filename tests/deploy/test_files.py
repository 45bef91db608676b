"""The files of docs/deploy, as far as they can be tried without the servers that they are for."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import kubernetes_validate
import pytest
import yaml

from etl.errors import ExitCode, LockHeldError
from etl.sandbox import Sandbox
from etl.sandbox.generate import add_execution
from etl.settings import Settings
from etl.version import __version__
from tests.e2e.command import COMMAND, Ended, shell
from tests.support import API_KEY, SECRET_KEY, run_to_end
from tests.worlds import a_sandbox, settled_world

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
KUBERNETES = "1.31"
IN_VAIN = {ExitCode.BUG, ExitCode.CONFIGURATION, ExitCode.PARTIAL, ExitCode.KEY_REFUSED, ExitCode.DESTINATION_FAILED}
"""Exit codes after which trying again at once cannot help."""
server = a_sandbox(run_tests=1, executions=1, calls=2)


def here(text: str, folder: Path) -> str:
    """The text with the paths of this machine in place of those that the files name."""
    for name in ("metrics-etl.toml", "api-key", "secret-key"):
        text = text.replace(f"/etc/metrics-etl/{name}", str(folder / name))
    return text.replace("/opt/metrics-etl/bin/metrics-etl", str(COMMAND))


def install(folder: Path, server: Sandbox, *more_run_tests: str) -> None:
    """Settings and key files."""
    names = [server.world.run_tests[0].name, *more_run_tests]
    (folder / "metrics-etl.toml").write_text(
        f'run_tests = {json.dumps(names)}\n[api]\nbase_url = "{server.base_url}"\n'
        f'[destination]\npath = "{folder}/data"\n'
    )
    for name, key in (("api-key", API_KEY), ("secret-key", SECRET_KEY)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(f"{key}\n")


@contextmanager
def locked(dataset: Path) -> Iterator[None]:
    """As if another export ran on the dataset."""
    (dataset / "_state").mkdir(parents=True, exist_ok=True)
    with (dataset / "_state" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cron_jobs(text: str) -> tuple[dict[str, str], list[str]]:
    """The variables that a file of cron.d sets, and its commands."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    commands = [line.split(None, 6)[6] for line in lines if line[0].isdigit()]
    assert len(variables) + len(commands) == len(lines)
    assert all("%" not in command for command in commands), "cron takes % for a line break"
    return variables, commands


async def test_cron_line_runs_in_crons_bare_environment_and_prints_problems_alone(
    server: Sandbox, tmp_path: Path
) -> None:
    install(tmp_path, server)
    variables, commands = cron_jobs(here((DEPLOY / "metrics-etl.cron").read_text(), tmp_path))
    env = {"HOME": str(tmp_path), "LOGNAME": "metrics-etl", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"} | variables

    nights = [await shell("/bin/sh", "-c", command, env=env, cwd=tmp_path) for command in commands]
    install(tmp_path, server, "Nobody")
    partial = await shell("/bin/sh", "-c", commands[0], env=env, cwd=tmp_path)
    with locked(tmp_path / "data"):
        held = await shell("/bin/sh", "-c", commands[0], env=env, cwd=tmp_path)

    assert nights == [Ended(0, "", "")] * 2
    assert (partial.exit_code, partial.stdout) == (3, "")
    assert "'Nobody': the API has no run test with this name" in partial.stderr
    assert held.exit_code == 75
    assert held.stderr.startswith("error: another export holds ")


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    units = sorted((*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")))
    assert len(units) == 3
    for unit in units:
        (tmp_path / unit.name).write_text(here(unit.read_text(), tmp_path))

    found = run_to_end(["systemd-analyze", "verify", *(tmp_path / unit.name for unit in units)])
    limits = ("--offline=true", "--threshold=15")
    exposure = run_to_end(["systemd-analyze", "security", *limits, tmp_path / "metrics-etl.service"])

    assert (found.returncode, found.stderr) == (0, "")
    assert exposure.returncode == 0, exposure.stdout


def test_systemd_tries_again_only_what_may_mend_itself() -> None:
    unit = (DEPLOY / "metrics-etl.service").read_text()

    def codes(name: str) -> set[int]:
        line = re.search(rf"^{name}=(.+)$", unit, re.MULTILINE)
        assert line is not None
        return {int(code) for code in line[1].split()}

    assert codes("RestartPreventExitStatus") == IN_VAIN
    assert codes("SuccessExitStatus") == {LockHeldError.exit_code, 143}


def kubernetes_objects() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def test_kubernetes_accepts_the_objects() -> None:
    objects = kubernetes_objects()
    for each in objects.values():
        kubernetes_validate.validate(each, KUBERNETES, strict=True)

    [container] = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith(f":{__version__}")
    assert objects.keys() == {"ConfigMap", "PersistentVolumeClaim", "CronJob"}


def test_kubernetes_tries_again_only_what_may_mend_itself() -> None:
    job = kubernetes_objects()["CronJob"]["spec"]["jobTemplate"]["spec"]
    rules = [rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]

    assert [set(rule["values"]) for rule in rules] == [{LockHeldError.exit_code}, IN_VAIN]
    assert {rule["containerName"] for rule in rules} == {job["template"]["spec"]["containers"][0]["name"]}


def test_a_dask_cluster_on_kubernetes_has_the_keys_and_one_thread_for_each_worker() -> None:
    """The operator's own object cannot be validated without it; the pods in it can."""
    cluster = yaml.safe_load((DEPLOY / "kubernetes-dask.yaml").read_text())
    cron_job = kubernetes_objects()["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    worker, scheduler = (cluster["spec"][each]["spec"] for each in ("worker", "scheduler"))
    for pod in (worker, scheduler):
        metadata = {"name": "pod"}
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}, KUBERNETES)
        assert pod["containers"][0]["image"] == cron_job["containers"][0]["image"]

    [container] = worker["containers"]
    assert container["env"] == [each for each in cron_job["containers"][0]["env"] if each["name"].startswith("FI_")]
    secrets = {each["name"]: each for each in cron_job["volumes"]}
    assert worker["volumes"] == [secrets[mount["name"]] for mount in container["volumeMounts"]]
    assert container["args"][container["args"].index("--nthreads") + 1] == "1"
    address = (
        f"tcp://{cluster['metadata']['name']}-scheduler:{cluster['spec']['scheduler']['service']['ports'][0]['port']}"
    )
    assert f"METRICS_ETL_ENGINE__ADDRESS={address}" in (ROOT / "docs" / "dask.md").read_text()


def test_kubernetes_mounts_what_the_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = kubernetes_objects()
    (tmp_path / "metrics-etl.toml").write_text(objects["ConfigMap"]["data"]["metrics-etl.toml"])
    monkeypatch.setenv("FI_API_KEY", API_KEY)
    monkeypatch.setenv("FI_SECRET_KEY", SECRET_KEY)
    settings = Settings.load(tmp_path / "metrics-etl.toml")
    job = objects["CronJob"]["spec"]["jobTemplate"]["spec"]
    container = job["template"]["spec"]["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}

    assert Path(mounts["data"]) in Path(settings.destination.path).parents
    assert {str(Path(variable["value"]).parent) for variable in container["env"]} == {mounts["keys"]}
    assert f"METRICS_ETL_CONFIG={mounts['config']}/metrics-etl.toml" in (DEPLOY / "Dockerfile").read_text()
    assert settings.export.max_runtime_minutes is not None
    assert settings.export.max_runtime_minutes * 60 < job["activeDeadlineSeconds"]


ISSUES = ROOT / ".github" / "ISSUE_TEMPLATE"
FOR_GITHUB = {
    "github-workflows": [*DEPLOY.glob("github-*.yml"), *(ROOT / ".github/workflows").glob("*.yml")],
    "github-issue-forms": [path for path in ISSUES.glob("*.yml") if path.name != "config.yml"],
    "github-issue-config": [ISSUES / "config.yml"],
}


@pytest.mark.parametrize("schema", FOR_GITHUB)
def test_github_accepts_the_files(schema: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    found = run_to_end([*check, *FOR_GITHUB[schema]])

    assert found.returncode == 0, found.stdout


def test_hook_before_a_commit_calls_what_is_there() -> None:
    [hook] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    called = run_to_end([*hook["entry"].split(), "--dry-run"], cwd=ROOT)

    assert called.returncode == 0, called.stderr
    assert "ruff" in called.stdout


AS_GITHUB_DOES = ("bash", "--noprofile", "--norc", "-eo", "pipefail")


def of_github(folder: Path, **others: str) -> dict[str, str]:
    """The environment of a step."""
    own = {"RUNNER_TEMP": str(folder), "GITHUB_STEP_SUMMARY": str(folder / "step-summary")}
    return own | {"FI_API_KEY": API_KEY, "FI_SECRET_KEY": SECRET_KEY} | others


@pytest.mark.slow
async def test_step_of_the_workflow_says_what_each_exit_code_asks_for(server: Sandbox, tmp_path: Path) -> None:
    if shutil.which("jq") is None or shutil.which("bash") is None:
        pytest.skip("the step needs bash and jq, as the runner has")
    (step,) = yaml.safe_load((DEPLOY / "github-actions.yml").read_text())["jobs"]["export"]["steps"]
    script = tmp_path / "step.sh"
    script.write_text(here(step["run"], tmp_path))
    env = of_github(tmp_path, PATH=os.environ["PATH"], CONFIG=here(step["env"]["CONFIG"], tmp_path))

    install(tmp_path, server)
    complete = await shell(*AS_GITHUB_DOES, script, env=env, cwd=tmp_path)
    told = (tmp_path / "step-summary").read_text()
    install(tmp_path, server, "Nobody")
    partial = await shell(*AS_GITHUB_DOES, script, env=env, cwd=tmp_path)
    with locked(tmp_path / "data"):
        held = await shell(*AS_GITHUB_DOES, script, env=env, cwd=tmp_path)
    await server.__aexit__()
    unavailable = await shell(*AS_GITHUB_DOES, script, env=env | {"METRICS_ETL_API__MAX_TRIES": "1"}, cwd=tmp_path)

    assert (complete.exit_code, complete.stdout) == (0, "")
    assert told.startswith("complete: ")
    assert partial.exit_code == 3
    assert partial.stdout.startswith("::error::'Nobody'")
    assert (held.exit_code, held.stdout) == (0, "::notice::skipped: another export is running on the dataset\n")
    assert unavailable.exit_code == 5
    assert "::error::the source is unavailable" in unavailable.stdout


@pytest.mark.slow
async def test_gate_for_regressions_comments_and_fails_for_a_regression_or_without_a_verdict(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("the steps need bash, as the runner has")
    *_, compare = yaml.safe_load((DEPLOY / "github-compare.yml").read_text())["jobs"]["compare"]["steps"]
    gh = tmp_path / "gh"
    gh.write_text('#!/bin/sh\necho "$@" >> "$RUNNER_TEMP/said"\n')
    gh.chmod(0o755)
    path, config = f"{tmp_path}:{os.environ['PATH']}", str(tmp_path / "metrics-etl.toml")
    env = of_github(tmp_path, PATH=path, CONFIG=config, PULL_REQUEST="https://git.example/pull/1")

    (tmp_path / "step.sh").write_text(here(compare["run"], tmp_path).replace("14d..1d", "2026-10-01..today"))
    world, rng = settled_world(run_tests=1, executions=0), Random(1)
    run_test = world.run_tests[0]
    regression_at = run_test.profile.regression_at
    assert regression_at is not None
    endings = []
    async with Sandbox(world) as server:
        install(tmp_path, server)
        for days, calls in ((-12, 400), (-10, 400), (1, 60), (2, 5)):
            execution = add_execution(world, run_test, rng, regression_at + timedelta(days=days), calls)
            env["EXECUTION"] = execution.execution_id
            endings.append(await shell(*AS_GITHUB_DOES, tmp_path / "step.sh", env=env, cwd=tmp_path))
    alone, same, worse, few = endings

    assert (alone.exit_code, alone.stdout) == (2, "")
    assert "has no finished execution of 2026-10-01" in alone.stderr
    assert (same.exit_code, same.stdout) == (0, "")
    assert (worse.exit_code, worse.stdout) == (10, "::error::a metric is worse than its limit allows\n")
    assert (few.exit_code, few.stdout) == (
        3,
        "::error::not judged: too few calls, some are missing, or the execution did not end in time\n",
    )
    comment = f"pr comment https://git.example/pull/1 --body-file {tmp_path}/comparison.md\n"
    assert (tmp_path / "said").read_text() == comment * 3
    assert "### `Checkout flow`: regression beyond the limit: latency_mean" in (tmp_path / "step-summary").read_text()


def instructions() -> list[tuple[str, str]]:
    """Word and arguments of each instruction of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def copied() -> list[str]:
    """What the Dockerfile takes from this repository."""
    lists = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    return [source for sources in lists for source in sources]


def test_dockerfile_copies_what_is_there_and_nothing_else_reaches_the_builder() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()

    assert all((ROOT / source).exists() for source in copied())
    assert "*" in ignore
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == set(copied())


def test_image_runs_the_command_without_rights_and_installs_only_what_is_locked() -> None:
    found = instructions()

    assert dict(found)["ENTRYPOINT"] == '["metrics-etl"]'
    assert dict(found)["USER"] == "10001:10001"
    assert "HEALTHCHECK" not in dict(found)
    installs = [rest for word, rest in found if word == "RUN" and "pip install" in rest]
    assert len(installs) == 3
    assert all("--require-hashes" in each or "--no-deps" in each for each in installs)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_steps_of_the_dockerfile_make_an_environment_that_runs_the_command(tmp_path: Path) -> None:
    """There is no container here: the build stage runs in a folder, with this machine's Python."""
    source, target = tmp_path / "src", tmp_path / "opt" / "metrics-etl"
    source.mkdir()
    for word, rest in instructions():
        if word == "COPY" and "--from" not in rest:
            *names, folder = rest.split()
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, source / folder)
        elif word == "RUN":
            command = rest.replace("/opt/metrics-etl", str(target)).replace(
                "python -m venv", f"{sys.executable} -m venv"
            )
            subprocess.run(["/bin/sh", "-c", command], cwd=source, check=True, env={"PATH": os.environ["PATH"]})

    version = subprocess.run([target / "bin" / "metrics-etl", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.strip() in (ROOT / "etl" / "version.py").read_text()


def test_snippets_compile() -> None:
    snippets = sorted(DEPLOY.glob("*.py"))

    assert len(snippets) == 3
    for path in snippets:
        compile(path.read_text(), str(path), "exec")


def test_every_file_is_explained() -> None:
    text = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    for path in DEPLOY.iterdir():
        if path.is_file():
            assert f"deploy/{path.name}" in text, path.name
