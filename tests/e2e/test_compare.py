"""``metrics-etl compare``: whether an agent got worse, by exit code, as a table and as a comment, from the dataset alone."""

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import etl
from etl.cli.show_compare import markdown
from etl.compare.comparison import ComparisonReport, Row
from etl.compare.selection import ComparedExecution, Selection
from etl.compare.statistics import Sample, difference
from etl.load.files.local import LocalFiles
from etl.load.layout import INDEX
from etl.model.metrics import METRICS
from tests.datasets import write
from tests.e2e.command import Ended, environment, metrics_etl, write_settings
from tests.e2e.demo_dataset import FRIDAY, make_demo
from tests.e2e.terminal import Terminal
from tests.reference import FIELDS, json_paths
from tests.stores import KEYS, Store, bucket_settings, upload

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
BARE = environment(FI_API_KEY=None, FI_SECRET_KEY=None)
WEEKS = ("--baseline", "2026-10-26..2026-11-08", "--candidate", "2026-11-09..2026-11-20")
CHECKOUT = ("--run-test", "Checkout flow", *WEEKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    make_demo(folder / "data")
    return folder


async def compare(folder: Path, *arguments: str, **variables: str) -> Ended:
    return await metrics_etl("compare", *arguments, cwd=folder, env=BARE | variables)


async def test_regression_of_the_demo_is_found_as_the_documentation_shows(folder: Path) -> None:
    """Correct the page with what the command printed, when that is right."""
    shown = re.search(r"<!-- compare -->\n```text\n(.*?)```\n<!-- end of compare -->", PAGE, re.DOTALL)
    (command,) = re.findall(r"^metrics-etl compare (.*2026.*)$", PAGE.replace("\\\n", ""), re.MULTILINE)
    assert shown
    result = await metrics_etl("compare", *_words(command), cwd=folder, env=BARE)
    assert (result.exit_code, result.stderr) == (10, "")
    assert [line.rstrip() for line in result.stdout.splitlines()] == shown[1].splitlines()


async def test_other_blocks_of_the_documentation_work_too(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    (settings,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (command,) = re.findall(r"^metrics-etl report (.*)$", PAGE, re.MULTILINE)
    write_settings(tmp_path, "all", settings)
    compared = await compare(tmp_path, *CHECKOUT, "--json")
    reported = await metrics_etl("report", *_words(command), cwd=tmp_path, env=BARE)
    assert [row["metric"] for row in compared.document["metrics"] if row["limit"]] == ["latency_p50", "failure_rate"]
    assert (reported.exit_code, reported.stderr) == (0, "")
    assert (tmp_path / "report.html").exists()


def _words(command: str) -> list[str]:
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', command)]


async def test_figures_are_those_that_pandas_finds(folder: Path) -> None:
    result = await compare(folder, *CHECKOUT, "--json")
    calls = etl.read_calls(folder / "data", run_tests="Checkout flow", since="2026-10-26", evals="wide")
    calls = calls[calls["execution_status"].isin(["completed", "failed", "cancelled"])]
    is_old = calls["execution_started_at"].dt.date < datetime(2026, 11, 9, tzinfo=UTC).date()
    found = {row["metric"]: row for row in result.document["metrics"]}
    for side, rows in (("baseline", calls[is_old]), ("candidate", calls[~is_old])):
        latency = rows["latency_avg_agent_latency_ms"].dropna().astype("float64")
        assert result.document[side]["calls"] == len(rows)
        assert found["latency_p95"][f"{side}_calls"] == len(latency)
        assert found["latency_p50"][side] == pytest.approx(latency.median())
        assert found["latency_p95"][side] == pytest.approx(latency.quantile(0.95))
        assert found["latency_mean"][side] == pytest.approx(latency.mean())
        assert found["cost_mean"][side] == pytest.approx(rows["cost_total_cost_cents"].mean())
        passed = rows["eval_task_completion_passed"].dropna().astype("float64")
        assert found["eval_task_completion_pass_rate"][side] == pytest.approx(passed.mean())
        scores = rows["eval_tone_score_score"].dropna().astype("float64")
        assert found["eval_tone_score_mean"][side] == pytest.approx(scores.mean())
        ended = rows["status"][rows["status"].isin(["completed", "failed"])]
        assert found["failure_rate"][side] == pytest.approx(ended.eq("failed").mean())
        assert found["failure_rate"][f"{side}_calls"] == len(ended)


async def test_json_has_the_documented_fields(folder: Path) -> None:
    document = (await compare(folder, *CHECKOUT, "--json")).document
    assert set(json_paths(document, FIELDS["compare"])) == FIELDS["compare"].keys()
    assert document["candidate"].keys() == document["baseline"].keys()
    assert document["metrics"][0]["change"].keys() == {"value", "low", "high"}
    same = await compare(folder, *CHECKOUT, "--format", "json")
    assert same.document == document


async def test_run_test_that_did_not_change_passes(folder: Path) -> None:
    limits = ("--max-regression", "latency_p95=10%", "--max-regression", "failure_rate=5pp")
    result = await compare(folder, "--run-test", "Support triage", *WEEKS, *limits)
    assert result.exit_code == 0
    assert "no regression beyond 2 limits (exit 0)" in result.stdout


async def test_limit_that_too_few_calls_cannot_answer_is_no_green_light(folder: Path) -> None:
    sides = ("--run-test", "Checkout flow", "--baseline", "previous", "--candidate", "last")
    strict = await compare(folder, *sides, "--max-regression", "latency_p95=10%")
    loose = await compare(folder, *sides, "--max-regression", "latency_p50=1000%")
    other = await compare(folder, *sides, "--max-regression", "csat_mean=10%")
    assert (strict.exit_code, loose.exit_code, other.exit_code) == (3, 0, 3)
    assert "too few calls for the limit: latency_p95 (exit 3)" in strict.stdout
    assert re.search(
        r"^candidate  \S+ \(last, completed, created 2026-11-19 09:00\): 25 calls$", loose.stdout, re.MULTILINE
    )
    assert "notice     candidate: 1 execution not finished: not compared" in loose.stdout


async def test_limits_of_the_settings_hold_unless_an_option_says_otherwise(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    write_settings(tmp_path, "all", "[compare.max_regression]", 'latency_p95 = "10%"', 'csat_mean = "10%"')
    by_settings = await compare(tmp_path, *CHECKOUT)
    by_option = await compare(tmp_path, *CHECKOUT, "--max-regression", "latency_p95=90%")
    narrowed = await compare(tmp_path, *CHECKOUT, "--metric", "cost_mean")
    assert (by_settings.exit_code, by_option.exit_code, narrowed.exit_code) == (10, 0, 10)
    assert "csat_mean" not in by_settings.stdout, "it is of chats"
    assert "latency_mean" not in narrowed.stdout


async def test_limit_of_the_settings_for_an_eval_that_is_not_there_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    write_settings(tmp_path, "all", "[compare.max_regression]", 'eval_task_complete_pass_rate = "10%"')
    result = await compare(tmp_path, *CHECKOUT)
    assert result.exit_code == 0
    assert "no metric eval_task_complete_pass_rate here: did you mean eval_task_completion_pass_rate?" in result.stdout


@pytest.mark.parametrize(("columns", "is_whole"), [(80, False), (130, True)])
async def test_table_fits_the_terminal(folder: Path, columns: int, is_whole: bool) -> None:
    terminal = Terminal("compare", *CHECKOUT, cwd=folder, env=BARE | {"TERM": "xterm"}, columns=columns)
    assert await terminal.ended() == 0
    (row,) = (line for line in terminal.lines if line.startswith("cost_mean "))
    assert len(row) <= columns
    assert row.rstrip().endswith("no clear difference")
    assert (" to " in row, "226, 177" in row) == (is_whole, is_whole)


async def test_markdown_is_a_table_for_a_comment(folder: Path) -> None:
    result = await compare(folder, *CHECKOUT, "--format", "markdown", "--max-regression", "latency_p95=10%")
    assert result.exit_code == 10
    lines = result.stdout.splitlines()
    assert lines[0] == "### `Checkout flow`: regression beyond the limit: latency_p95"
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert any(line.startswith("| `latency_p95` |") and "**worse, beyond the limit of 10%**" in line for line in table)


def report_of(name: str, *rows: Row) -> ComparisonReport:
    one = ComparedExecution(
        execution_id="e",
        run_test="a",
        run_test_name=name,
        status="completed",
        started_at=FRIDAY,
        export_state="exported",
        deleted_at=None,
        exported_calls=0,
    )
    selection = Selection("e", (one,))
    return ComparisonReport(dataset="data", baseline=selection, candidate=selection, calls=(0, 0), rows=rows)


def test_name_from_outside_is_neither_a_mention_nor_html_in_a_comment() -> None:
    report = report_of("`a``@team <img src=x>\n| b")
    assert markdown(report).splitlines()[0] == r"### ``` `a``@team <img src=x>\n| b ```: compared, without limits"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (WEEKS, "which run test? "),
        (("--run-test", "Checkout", *WEEKS), "has no run test 'Checkout'"),
        ((*CHECKOUT, "--metric", "latency_95"), "no metric 'latency_95': did you mean latency_p95?"),
        ((*CHECKOUT, "--max-regression", "latncy_p95=10%"), "did you mean latency_p95?"),
        ((*CHECKOUT, "--max-regression", "eval_task_complet_pass_rate=1%"), "did you mean eval_task_completion_pass_rate?"),
        ((*CHECKOUT, "--max-regression", "latency_p95"), "has no limit: give one such as latency_p95=10%"),
        ((*CHECKOUT, "--max-regression", "latency_p95=10"), "a limit such as 10%"),
        ((*CHECKOUT, "--max-regression", "latency_p95=2pp"), "which is not a rate, a limit such as 10%"),
        ((*CHECKOUT, *["--max-regression", "cost_mean=1%"] * 2), "names 'cost_mean' twice"),
        (("--baseline", "no-such-id", "--candidate", "last"), "has no execution 'no-such-id'"),
        (("--baseline", "2026-11-02..2026-11-01", "--candidate", "last"), "2026-11-02 is later than 2026-11-01"),
        (("--baseline", "2026-11..2026-12", "--candidate", "last"), "'2026-11' is not a day"),
        (
            ("--run-test", "Checkout flow", "--baseline", "2025-01-01..2025-02-01", "--candidate", "last"),
            "has no finished execution created in 2025-01-01..2025-02-01; there are some from 2026-10-20 to 2026-11-19",
        ),
        (("--run-test", "Checkout flow", "--baseline", "2026-11-19..2026-11-20", "--candidate", "last"), "1 execution in common"),
        ((*CHECKOUT, "--json", "--format", "markdown"), "--json does not go with another --format"),
    ],
)  # fmt: skip
async def test_what_cannot_be_compared_is_told_in_a_line(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = await compare(folder, *arguments, COLUMNS="400")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())


async def test_no_dataset_is_one_line(tmp_path: Path) -> None:
    result = await compare(tmp_path, *CHECKOUT)
    assert result.exit_code == 6
    assert "no such folder" in result.stderr


AT = datetime(2026, 11, 10, 9, tzinfo=UTC)


def an_execution(execution_id: str, **values: object) -> dict[str, object]:
    own = {"execution_id": execution_id, "run_test_name": "A", "status": "completed", "started_at": AT}
    return own | {"export_state": "exported", "exported_calls": 50} | values


def calls_of(execution_id: str, latency: float) -> list[dict[str, object]]:
    own = {"execution_id": execution_id, "execution_started_at": AT, "status": "completed"}
    rng = np.random.default_rng(1)
    return [
        own
        | {"call_execution_id": f"{execution_id}-{n}", "latency_avg_agent_latency_ms": latency * rng.lognormal(0, 0.2)}
        for n in range(50)
    ]


def a_dataset(folder: Path, *executions: dict[str, object]) -> Path:
    """One run test with these executions, in the month of ``AT``."""
    LocalFiles(folder / "data").prepare()
    write(folder / "data", "executions", *executions, key="a", date="2026-11-10")
    return folder / "data"


FEW = "a slow day looks like a worse agent here: date ranges with 10 executions tell them apart"
EARLY = {"started_at": datetime(2026, 11, 3, tzinfo=UTC)}


async def test_deleted_executions_are_left_out(tmp_path: Path) -> None:
    data = a_dataset(tmp_path, an_execution("old", **EARLY), an_execution("gone", deleted_at=AT), an_execution("new"))
    calls = (*calls_of("old", 1000), *calls_of("gone", 9000), *calls_of("new", 1010))
    write(data, "calls", *calls, key="a", date="2026-11-10")
    spans = ("--baseline", "2026-11-01..2026-11-07", "--candidate", "2026-11-08..2026-11-14")
    document = (await compare(tmp_path, *spans, "--json")).document
    assert (document["candidate"]["executions"], document["candidate"]["calls"]) == (["new"], 50)
    assert document["metrics"][0]["candidate"] == pytest.approx(1010, rel=0.1)
    gone = await compare(tmp_path, "--baseline", "gone", "--candidate", "last")
    told = "error: execution 'gone' was deleted at the source: choose another one\n"
    assert (gone.exit_code, gone.stderr) == (2, told)


async def test_call_that_stands_twice_while_it_moves_counts_once(tmp_path: Path) -> None:
    data = a_dataset(tmp_path, an_execution("old", **EARLY), an_execution("new", started_at=None))
    write(data, "calls", *calls_of("old", 1000), *calls_of("new", 1000), key="a", date="2026-11-10")
    write(data, "calls", *calls_of("new", 1000), key="a", date="2026-12-10")
    result = await compare(tmp_path, "--baseline", "old", "--candidate", "new", "--json")
    assert result.document["candidate"]["calls"] == 50
    assert result.document["metrics"][0]["candidate_calls"] == 50


async def test_calls_in_the_month_of_their_first_sight_are_found(tmp_path: Path) -> None:
    data = a_dataset(tmp_path, an_execution("old", **EARLY), an_execution("new"))
    write(data, "calls", *calls_of("old", 1000), key="a", date="2026-11-10")
    write(data, "calls", *calls_of("new", 1000), key="a", date="2026-12-10")
    result = await compare(tmp_path, "--baseline", "previous", "--candidate", "last", "--json")
    assert (result.document["candidate"]["calls"], result.document["notices"]) == (50, [FEW])


async def test_calls_that_are_gone_from_the_files_are_told(tmp_path: Path) -> None:
    data = a_dataset(tmp_path, an_execution("old", exported_calls=60, **EARLY), an_execution("new"))
    write(data, "calls", *calls_of("old", 1000), *calls_of("new", 1000), key="a", date="2026-11-10")
    result = await compare(tmp_path, "--baseline", "previous", "--candidate", "last", "--json")
    assert result.document["notices"] == [
        "baseline: 10 calls gone from the dataset: metrics-etl verify says more",
        "gone from the dataset: 10 calls: metrics-etl status says what to do",
        FEW,
    ]
    assert (result.exit_code, result.document["gone"]) == (3, ["10 calls"])


@pytest.mark.parametrize("incomplete", ["old", "new"])
async def test_limit_is_not_kept_by_what_is_there_while_calls_are_missing(tmp_path: Path, incomplete: str) -> None:
    """Those that could not be fetched may be those that failed."""
    states = {incomplete: {"export_state": "incomplete"}}
    executions = (an_execution(name, **at, **states.get(name, {})) for name, at in (("old", EARLY), ("new", {})))
    data = a_dataset(tmp_path, *executions)
    write(data, "calls", *calls_of("old", 1000), *calls_of("new", 1010), key="a", date="2026-11-10")
    sides = ("--baseline", "previous", "--candidate", "last")
    alone = await compare(tmp_path, *sides)
    kept = await compare(tmp_path, *sides, "--max-regression", "latency_mean=50%")
    assert (alone.exit_code, kept.exit_code) == (0, 3)
    assert "calls are missing: 1 incomplete execution (exit 3)" in kept.stdout
    write(data, "calls", *calls_of("old", 1000), *calls_of("new", 9000), key="a", date="2026-11-10")
    assert (await compare(tmp_path, *sides, "--max-regression", "latency_mean=50%")).exit_code == 10


async def test_run_that_failed_since_is_a_notice(folder: Path, tmp_path: Path) -> None:
    """The last execution may be an older one than it seems."""
    shutil.copytree(folder / "data", tmp_path / "data")
    whole = await compare(tmp_path, *CHECKOUT, "--json")
    write_settings(tmp_path, ["Checkout flow"], '[api]\nbase_url = "http://127.0.0.1:9"\nmax_tries = 1')
    failed = await metrics_etl("run", cwd=tmp_path, env=environment())
    since = await compare(tmp_path, *CHECKOUT, "--json")
    text = "the last run did not export everything of 'Checkout flow': metrics-etl status says more"
    assert (failed.exit_code, text in whole.document["notices"], text in since.document["notices"]) == (5, False, True)


@pytest.mark.parametrize("has_index", [True, False], ids=["", "without index"])
@pytest.mark.parametrize("table", ["executions", "calls", "evals"])
async def test_nothing_passes_where_rows_are_gone(folder: Path, tmp_path: Path, table: str, has_index: bool) -> None:
    """What is left would be judged in place of what was asked for."""
    shutil.copytree(folder / "data", tmp_path / "data")
    if not has_index:
        (tmp_path / "data" / INDEX).unlink()
    (key,) = (path.name for path in (tmp_path / "data" / table).iterdir() if path.name.startswith("run_test=support"))
    whole = await compare(tmp_path, "--run-test", "Support triage", *WEEKS)
    (tmp_path / "data" / table / key / "month=2026-10" / "part-0.parquet").unlink()
    result = await compare(tmp_path, "--run-test", "Support triage", *WEEKS, "--max-regression", "failure_rate=5pp")
    other = await compare(tmp_path, "--run-test", "Checkout flow", *WEEKS)
    assert (whole.exit_code, other.exit_code) == (0, 0)
    if has_index or table != "evals":  # only the index and verify know how many evals there were
        assert re.search(
            rf"gone from the dataset: .*(\d {table}|the executions of \d+ calls)", result.stdout.replace("\n", " ")
        ), result.stdout
        assert "rows are gone from the dataset (exit 3)" in result.stdout


async def test_a_dataset_in_a_bucket_is_compared_alike(
    folder: Path, seaweed_store: Store, tmp_path: Path, keys: None
) -> None:
    url = seaweed_store.url()
    upload(folder / "data", url, seaweed_store.options)
    write_settings(tmp_path, "all", *bucket_settings(url, seaweed_store.endpoint))
    there = await compare(tmp_path, *CHECKOUT, "--json", **KEYS)
    here = await compare(folder, *CHECKOUT, "--json")
    assert {**there.document, "dataset": ""} == {**here.document, "dataset": ""}


def test_help_and_a_quiet_night_import_no_statistics() -> None:
    code = """
import sys
import etl.cli.commands, etl.cli.compare
assert not {"numpy", "pandas", "pyarrow"} & {*sys.modules}, "help"
import etl.pipeline.job, etl.settings
assert not {"etl.compare.statistics", "etl.compare.samples"} & {*sys.modules}, "a night"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mean_beyond_what_a_double_holds_is_null_in_json() -> None:
    """JSON knows no infinity, and few of its readers do."""
    huge, metric = Sample.of_one_execution(np.full(50, 1.7e308)), METRICS["latency_mean"]
    found = difference(huge, huge, metric.statistic, is_higher_worse=True)
    report = report_of("A", Row(metric, found)).as_json()
    assert report["metrics"][0]["baseline"] is None
    assert json.loads(json.dumps(report["metrics"], allow_nan=False)) == report["metrics"]
