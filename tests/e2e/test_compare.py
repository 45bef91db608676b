"""``metrics-etl compare``: whether an agent got worse, as an exit code, a table and a comment."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.e2e.command import Ended, environment, metrics_etl, write_settings
from tests.e2e.terminal import Terminal
from tests.meanings import FIELDS
from tests.reference import json_paths

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
BARE = environment(FI_API_KEY=None, FI_SECRET_KEY=None)
WEEKS = ("--baseline", "2026-10-26..2026-11-08", "--candidate", "2026-11-09..2026-11-20")
CHECKOUT = ("--run-test", "Checkout flow", *WEEKS)


@pytest.fixture(scope="module")
def folder(demo: Path) -> Path:
    return demo.parent


async def compare(folder: Path, *arguments: str, **variables: str) -> Ended:
    return await metrics_etl("compare", *arguments, cwd=folder, env=BARE | variables)


async def test_regression_of_the_demo_is_found_as_the_documentation_shows(folder: Path) -> None:
    """Correct the page with what the command printed, when that is right."""
    shown = re.search(r"<!-- compare -->\n```text\n(.*?)```\n<!-- end of compare -->", PAGE, re.DOTALL)
    (command,) = re.findall(r"^metrics-etl compare (.*2026.*)$", PAGE.replace("\\\n", ""), re.MULTILINE)
    assert shown
    result = await metrics_etl("compare", *shlex.split(command), cwd=folder, env=BARE)
    assert (result.exit_code, result.stderr) == (10, "")
    assert [line.rstrip() for line in result.stdout.splitlines()] == shown[1].splitlines()


async def test_other_blocks_of_the_documentation_work_too(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    settings = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
    (command,) = re.findall(r"^metrics-etl report (.*)$", PAGE, re.MULTILINE)
    write_settings(tmp_path, "all", settings)
    compared = await compare(tmp_path, *CHECKOUT, "--json")
    reported = await metrics_etl("report", *shlex.split(command), cwd=tmp_path, env=BARE)
    assert [row["metric"] for row in compared.document["metrics"] if row["limit"]] == ["latency_mean", "failure_rate"]
    assert (reported.exit_code, reported.stderr) == (0, "")
    assert (tmp_path / "report.html").exists()


async def test_json_has_the_documented_fields(folder: Path) -> None:
    document = (await compare(folder, *CHECKOUT, "--json")).document
    fields = {name for name in FIELDS["compare"] if not name.startswith("findings[]")}
    assert set(json_paths(document, FIELDS["compare"])) == fields
    assert document["findings"] == []
    assert document["candidate"].keys() == document["baseline"].keys()
    assert document["metrics"][0]["change"].keys() == {"value", "low", "high"}
    same = await compare(folder, *CHECKOUT, "--format", "json")
    assert same.document == document


async def test_limit_that_too_few_calls_cannot_answer_is_no_green_light(folder: Path) -> None:
    sides = ("--run-test", "Checkout flow", "--baseline", "previous", "--candidate", "last")
    strict = await compare(folder, *sides, "--max-regression", "latency_p95=10%")
    loose = await compare(folder, *sides, "--max-regression", "latency_p50=1000%")
    other = await compare(folder, *sides, "--max-regression", "chat_latency_p50=10%")
    assert (strict.exit_code, loose.exit_code, other.exit_code) == (3, 0, 3)
    assert (
        "not judged for latency_p95 (at least 40 calls are needed on each side); worse, but without a limit: "
        in strict.stdout
    )
    assert re.search(
        r"^candidate  \S+ \(last, completed, created 2026-11-19 09:00\): 25 calls$", loose.stdout, re.MULTILINE
    )
    assert "notice     the candidate has 1 execution that had not finished when last exported, and" in loose.stdout


async def test_limits_of_the_settings_hold_unless_an_option_says_otherwise(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    write_settings(tmp_path, "all", "[compare.max_regression]", 'latency_p95 = "10%"', 'csat_mean = "20%"')
    by_settings = await compare(tmp_path, *CHECKOUT)
    by_option = await compare(tmp_path, *CHECKOUT, "--max-regression", "latency_p95=150%")
    narrowed = await compare(tmp_path, *CHECKOUT, "--metric", "cost_mean")
    assert (by_settings.exit_code, by_option.exit_code, narrowed.exit_code) == (10, 0, 10)
    assert re.search("^csat_mean .* worse", by_settings.stdout, re.MULTILINE), "what the platform shows of voice calls"
    assert "latency_mean" not in narrowed.stdout


async def test_calls_of_all_scenarios_are_compared_together_when_that_is_wanted(folder: Path) -> None:
    paired = await compare(folder, *CHECKOUT)
    together = await compare(folder, *CHECKOUT, "--unpaired")
    assert "compared   scenario by scenario (7 that both sides have)" in paired.stdout
    assert "compared   all calls together, without regard to scenarios" in together.stdout


@pytest.mark.parametrize(("columns", "is_whole"), [(80, False), (130, True)])
async def test_table_fits_the_terminal(folder: Path, columns: int, is_whole: bool) -> None:
    terminal = Terminal("compare", *CHECKOUT, cwd=folder, env=BARE | {"TERM": "xterm"}, columns=columns)
    assert await terminal.ended() == 0
    (row,) = (line for line in terminal.lines if line.startswith("cost_mean "))
    assert len(row) <= columns
    assert row.rstrip().endswith("no clear difference")
    assert (" to " in row, "226, 177" in row) == (is_whole, is_whole)


async def test_markdown_is_a_table_for_a_comment(folder: Path) -> None:
    result = await compare(folder, *CHECKOUT, "--format", "md", "--max-regression", "latency_mean=10%")
    assert result.exit_code == 10
    lines = result.stdout.splitlines()
    assert lines[0].startswith(
        "### `Checkout flow`: regression beyond the limit: latency_mean; worse, but without a limit: "
    )
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert any(line.startswith("| `latency_mean` |") and "**worse, beyond the limit of 10%**" in line for line in table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (WEEKS, "holds several run tests: "),
        ((*CHECKOUT, "--metric", "latency_95"), "there is no metric 'latency_95'. Did you mean 'latency_p95'?"),
        ((*CHECKOUT, "--max-regression", "latncy_p95=10%"), "Did you mean 'latency_p95'?"),
        ((*CHECKOUT, "--max-regression", "latency_p95"), "has no limit. Add one, as in latency_p95=10%"),
        ((*CHECKOUT, "--max-regression", "latency_p95=2pp"), "for latency_p95, got '2pp'"),
    ],
)
async def test_what_cannot_be_compared_is_told_in_a_line(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = await compare(folder, *arguments, COLUMNS="400")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())


async def test_run_that_failed_since_is_a_notice(folder: Path, tmp_path: Path) -> None:
    """The last execution may be an older one than it seems."""
    shutil.copytree(folder / "data", tmp_path / "data")
    whole = await compare(tmp_path, *CHECKOUT, "--json")
    write_settings(tmp_path, ["Checkout flow"], '[api]\nbase_url = "http://127.0.0.1:9"\nmax_tries = 1')
    failed = await metrics_etl("run", cwd=tmp_path, env=environment())
    since = await compare(tmp_path, *CHECKOUT, "--json")
    text = "the last run did not fully export 'Checkout flow'. To see why, run metrics-etl status"
    assert (failed.exit_code, text in whole.document["notices"], text in since.document["notices"]) == (5, False, True)
