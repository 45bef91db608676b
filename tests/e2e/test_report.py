"""``metrics-etl report``: a page that shows first what got worse, from the dataset alone, opened in a real browser."""

import asyncio
import re
import tempfile
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from etl import sandbox
from etl.pipeline import job
from etl.sandbox.generate import make_world
from tests.e2e.command import Ended, environment, metrics_etl
from tests.e2e.demo_dataset import FRIDAY, make_demo
from tests.support import settings_for

ROOT = Path(__file__).parents[2]
BARE = environment(FI_API_KEY=None, FI_SECRET_KEY=None)
SCREEN, PHONE = (1280, 900), (390, 844)
PAGES = {"light": SCREEN, "dark": SCREEN, "light-phone": PHONE, "dark-phone": PHONE, "print": (680, 990)}
"""Pictures of the page's first screen: each by its scheme, with its size in pixels."""
WORSE = """\
Checkout flow: Agent latency, mean +53.3% (1,260 ms to 1,932 ms) since 2026-11-09, 6 nights, \
95% interval +39.3 to +68.7%; agent version v2, after v1
Checkout flow: Task Completion, pass rate -25.6 pp (94.9% to 69.3%) since 2026-11-09, 6 nights, \
95% interval -34.2 to -16.9 pp; agent version v2, after v1
Checkout flow: Tone Score, mean -10.3% (0.78 to 0.70) since 2026-11-09, 6 nights, \
95% interval -15.6 to -4.7%; agent version v2, after v1
Checkout flow: Customer satisfaction -10.3% (7.79 to 6.98) since 2026-11-09, 6 nights, \
95% interval -15.6 to -4.7%; agent version v2, after v1"""

REMARK = "notice     Refund chat: 2026-11-09 not judged, because most calls failed"


@pytest.fixture(scope="module")
def folder(demo: Path) -> Path:
    return demo.parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def report(folder: Path, *arguments: str, **variables: str) -> Ended:
    return await metrics_etl("report", *arguments, cwd=folder, env=BARE | variables)


async def test_regression_of_the_demo_is_what_the_command_and_the_page_say_first(folder: Path) -> None:
    result = await report(folder)
    assert (result.exit_code, result.stderr) == (0, "")
    label, status, *worse = result.stdout.splitlines()
    expected = [*(f"worse      {each}" for each in WORSE.splitlines()), REMARK]
    assert (label, worse) == ("report     report.html", expected)
    assert re.fullmatch(r"dataset    Not good: the last complete export was .* ago", status), "it is of that Friday"
    page = (folder / "report.html").read_text()
    assert re.findall(r'<a href="#.*?">(.*?)</a>', page) == ["Checkout flow", "Refund chat", "Support triage"]
    assert re.search(r'<strong dir="auto">Agent latency, mean \+53\.3%</strong> .*since 2026-11-09', page)
    assert (page.count(", by scenario</h3>"), page.count("since 2026-11-09</text>")) == (2, 3)
    assert "1 execution not finished yet" in page


async def test_verdict_does_not_depend_on_the_days_that_are_shown(folder: Path, tmp_path: Path) -> None:
    result = await report(folder, "--since", "2026-11-17", "-o", str(tmp_path / "r.html"))
    assert result.stdout.splitlines()[2:] == [*(f"worse      {each}" for each in WORSE.splitlines()), REMARK]
    assert "<span>2026-11-17 to 2026-11-19</span>" in (tmp_path / "r.html").read_text()


async def test_calls_link_to_where_the_settings_say(folder: Path, tmp_path: Path) -> None:
    address = "https://app.example/{execution_id}/{call_execution_id}"
    assert (await report(folder, "-o", str(tmp_path / "r"), METRICS_ETL_REPORT__CALL_URL=address)).exit_code == 0
    link = r'href="https://app\.example/[0-9a-f-]{36}/([0-9a-f-]{36})" rel="noreferrer"><code>\1<'
    assert len(re.findall(link, (tmp_path / "r").read_text())) == 31


async def test_report_is_narrowed_to_run_tests_and_days(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    result = await report(
        folder, "--run-test", "Refund chat", "--since", "2026-11-01", "--until", "2026-11-10", "-o", str(page)
    )
    assert result.exit_code == 0
    assert re.search(r"<span>2026-11-0\d to 2026-11-\d\d</span>", page.read_text())
    assert re.search(r'<td data-label="Calls" class="number">2\d\d</td>', page.read_text())
    assert "Checkout flow" not in page.read_text()


async def test_pictures_are_kept_and_a_second_report_takes_the_place_of_the_first(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("an older one")
    result = await report(
        folder, "--run-test", "Refund chat", "-o", str(tmp_path / "r.html"), "--png", str(tmp_path / "p")
    )
    assert f"pictures   {tmp_path / 'p'}" in result.stdout
    assert names(tmp_path) == ["p", "r.html"]
    assert (tmp_path / "r.html").read_text().endswith("</html>")
    (picture,) = names(tmp_path / "p")
    assert picture.startswith("refund-chat-")
    assert (tmp_path / "p" / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("--run-test", "Refund chat", "--output", "."), 6, ".: Is a directory. Choose another place for the report"),
        (("--since", "2026-11-10", "--until", "2026-11-01"), 2, "--since 2026-11-10 is later than --until 2026-11-01"),
    ],
)
async def test_mistake_is_told_in_one_line_and_nothing_is_written(
    folder: Path, arguments: tuple[str, ...], exit_code: int, words: str
) -> None:
    before = names(folder)
    result = await report(folder, *arguments)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert names(folder) == before


def page_picture(scheme: str) -> Path:
    return ROOT / "docs" / f"report-{scheme}.png"


def test_picture_in_the_readme_is_of_what_the_demo_shows() -> None:
    """Draw it again with: python -m tests.e2e.test_report."""
    (said,) = re.findall(r"!\[`metrics-etl report`: (.+?)\]\(docs/report-light.png\)", (ROOT / "README.md").read_text())
    assert said == re.sub(r" \(.+?\)", "", WORSE.splitlines()[0]).partition(": ")[2].partition(", 6 nights")[0]
    assert all(page_picture(scheme).stat().st_size < 200_000 for scheme in PAGES)


# what only a browser can tell


PRINTED = 680  # pixels between the margins of A4
NAMES = ["結帳流程與退款客服代理人測試" * 4, "x" * 255, "Ünïcødé 🧑‍🚀 " + "漢字" * 60, "ح" * 100, "<b>&amp; \x1b[31m"]
WORLDS: dict[str, dict[str, Any]] = {
    "one call": {"run_tests": 1, "executions": 1, "calls": 1, "include_unfinished": False},
    "no finished call": {"run_tests": 1, "executions": 2, "calls": 5},
    "many run tests": {"names": [f"Run test {n}" for n in range(200)], "executions": 3, "calls": 2},
    "odd names": {"names": NAMES, "executions": 8, "calls": 8},
    "a year": {"run_tests": 2, "executions": 150, "calls": 4, "days": 380},
    "chat alone": {"run_tests": 3, "executions": 8, "calls": 20},
}


async def export_of(world: sandbox.World, folder: Path) -> None:
    async with sandbox.Sandbox(world) as server:
        await job.export(settings_for(server, folder, run_tests=[each.name for each in world.run_tests]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["the demo", *WORLDS])
def test_browser_shows_the_page_at_any_width_and_in_the_dark(name: str, folder: Path, tmp_path: Path) -> None:
    """No request, no error, no text that is cut or lies over another, nothing that axe finds.

    The pictures are in ``tmp_path``.
    """
    from tests.e2e.browser import Seen, chromium, see  # noqa: PLC0415 it is slow to import, and a slow test's alone

    home = folder if name == "the demo" else tmp_path
    if name in WORLDS:
        world = make_world(Random(1), end=FRIDAY, **WORLDS[name])
        if name == "chat alone":
            world.run_tests[:] = [each for each in world.run_tests if each.profile.is_chat]
        asyncio.run(export_of(world, tmp_path / "data"))
    page = tmp_path / "page.html"
    written = asyncio.run(report(home, "--output", str(page)))
    assert written.exit_code == 0, written.stderr
    with chromium() as browser:
        for width, scheme in (*product((1280, 390), ("light", "dark")), (821, "light"), (PRINTED, "print")):
            picture = tmp_path / f"{width}-{scheme}.png"
            assert see(browser, page, picture, width=width, scheme=scheme) == Seen(), (width, scheme)


@pytest.mark.slow
def test_browser_tells_what_is_wrong_with_a_page(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    from tests.e2e.browser import chromium, see  # noqa: PLC0415 as above

    page = tmp_path / "page.html"
    page.write_text(
        '<p style="position: absolute; left: 10px; top: 10px">one</p>'
        '<p style="position: absolute; left: 10px; top: 14px">two</p>'
        '<p style="white-space: nowrap; width: 9px">' + "long " * 400 + "</p>"
        '<img src="http://127.0.0.1:9/x.png"><script>missing()</script>'
    )
    with chromium() as browser:
        seen = see(browser, page, tmp_path / "p.png", width=390, scheme="light")
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
    assert any("missing is not defined" in each for each in seen.console)
    assert {each.partition(":")[0] for each in seen.faults} == {"cut", "overlap", "the page is wider than the window"}
    assert any(each.startswith("image-alt (critical)") for each in seen.findings)


if __name__ == "__main__":
    from tests.e2e.browser import chromium, see

    with tempfile.TemporaryDirectory() as temporary:
        make_demo(Path(temporary, "data"))
        asyncio.run(report(Path(temporary)))
        page = Path(temporary, "report.html")
        page.write_text(re.sub('<p class="bad">.*?</p>', "", page.read_text()))  # the export was fresh in that week
        with chromium() as browser:
            for scheme, (width, height) in PAGES.items():
                file, media = page_picture(scheme), scheme.partition("-")[0]
                see(browser, page, file, width=width, scheme=media, height=height)
