"""README, docs, help, example settings and code say the same."""

import ast
import pydoc
import re
from collections import Counter
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

import etl
from etl.cli.show_source import run_tests_as_json
from etl.dataset.last_run import Attempt, LastLoad
from etl.dataset.receipt import _MOST_FILES, Change, Receipt
from etl.errors import ExitCode
from etl.extract.endpoints import Purpose
from etl.extract.plan import Reason
from etl.extract.run_tests import Discovered
from etl.inspect.status import RunStatus, Status
from etl.inspect.status_run_tests import RunTestStatus
from etl.inspect.stored import TableStatus
from etl.inspect.verify import VerifyReport
from etl.inspect.verify_warehouse import WarehouseReport
from etl.load.ddl import QUERY_ENGINES, TYPES, ddl
from etl.load.synchronize import LoadResult
from etl.load.tables import COLUMN_TYPES
from etl.model.findings import Finding, Kind
from etl.model.locations import EXPERIMENTAL, WAREHOUSES
from etl.model.records import ListedRunTest
from etl.model.schema import EXECUTIONS, TIMESTAMP
from etl.pipeline.context import Progress
from etl.pipeline.preflight import Check, Subject, checks_as_json
from etl.pipeline.summary import RunTestSummary, Summary
from tests.bundles import execution, plan_of
from tests.meanings import EVENTS, FIELDS, PURPOSE_MEANINGS, SUBJECT_MEANINGS
from tests.reference import json_paths, written

ROOT = Path(__file__).parents[1]
GENERATED = {"commands.md", "data-dictionary.md", "settings.md"}
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/results.md"])


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


READING = "\n".join(text(f"docs/{page}.md") for page in ("pandas", "engines"))


@pytest.mark.parametrize(("engine", "title"), [("pandas", "Without this package"), ("duckdb", "DuckDB")])
def test_page_shows_what_the_command_prints(engine: str, title: str) -> None:
    """Fix it with: metrics-etl schema executions --ddl ENGINE."""
    section = READING.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (shown,) = (block.splitlines()[1:] for block in section.split("```")[1::2] if "more columns" in block)
    printed = ddl([EXECUTIONS], engine).splitlines()
    (at,) = (number for number, line in enumerate(shown) if "…" in line)
    left_out = re.search(r"… (\d+) more columns$", shown[at])
    assert left_out
    columns = int(left_out[1])
    assert shown == [*printed[:at], shown[at], *printed[at + columns :]]
    assert columns < len(EXECUTIONS.columns)


def test_every_engine_is_told_with_its_type_of_a_time_and_what_it_wants_after_an_export() -> None:
    rows = re.findall(r"^\| \[(.+)\]\(#([a-z-]+)\) \| `([a-z-]+)` \| (.+) \| (.+) \|$", READING, re.MULTILINE)
    assert {row[2] for row in rows} == QUERY_ENGINES.keys() - {"pandas"}
    assert "metrics-etl schema --ddl pandas" in READING
    for title, anchor, engine, time, afterwards in rows:
        assert anchor == re.sub(r"[^a-z ]", "", title.lower()).replace(" ", "-")
        assert f"\n## {title}\n" in READING
        types = TYPES[engine]
        printed = ddl([EXECUTIONS], engine)
        assert not types or re.findall("^`(.+?)`", time) == [types[COLUMN_TYPES.index(TIMESTAMP)]], engine
        statements = re.findall("^`(.+)`$", afterwards)
        assert bool(statements) == ("after every export" in printed.lower()), engine
        assert all(part.strip() in printed for statement in statements for part in statement.split("…")), engine


def test_reference_is_what_the_code_says() -> None:
    different = [name for name, made in written().items() if text(f"docs/{name}") != made]
    assert not different, f"write {different} again: python -m tests.reference"


def test_every_word_has_a_meaning() -> None:
    for words, *tables in ((Purpose, PURPOSE_MEANINGS), (Subject, SUBJECT_MEANINGS)):
        assert all(list(table) == list(words) for table in tables), words


def test_every_finding_that_a_person_has_to_act_on_is_one() -> None:
    found = re.findall(r"^\| `([a-z_]+)`.* \| .+ \|$", text("docs/failed-night.md"), re.MULTILINE)
    assert found
    assert {*found} <= {*Kind}


def test_every_purpose_is_documented_with_the_reasons_that_it_is_for() -> None:
    [item] = plan_of([execution()], {})
    reasons: dict[Purpose, set[str]] = {purpose: set() for purpose in Purpose}
    for reason in Reason:
        if (planned := replace(item, reason=reason)).is_fetched:
            reasons[planned.purpose].add(reason.value)
    assert {purpose: set(re.findall(r"`([a-z]+)`", text)) for purpose, text in PURPOSE_MEANINGS.items()} == reasons


def documents() -> dict[str, Any]:
    """By command: its JSON, with an item in each list.

    Only of commands whose document can be made here; the others are tested end to end.
    """
    now = datetime.now(UTC)
    status = {field.name: None for field in fields(Status)} | {
        "lost_run": Attempt(started_at=now),
        "run_tests": [{field.name: None for field in fields(RunTestStatus)}],
        "tables": [TableStatus("", 0, 0, 0)],
        "runs": [RunStatus("", now, now, "", 0, 0, 0, 0, 0, 0)],
        "findings": [Finding(Kind.DAMAGED, "", "").as_json()],
        "last_load": LastLoad(warehouse="", tried_at=now),
    }
    report = VerifyReport("", findings=[Finding(Kind.DAMAGED, "", "")])
    report.warehouse = WarehouseReport("", rows=Counter(calls=1))
    summary = Summary("", "", "", now, now, run_tests=[RunTestSummary("", "")], findings=report.findings)
    summary.receipt.note_written("", b"", rows=0)
    found = Discovered({"a": [ListedRunTest(run_test_id="", name="a", payload={})]}, ())
    return {
        "run": summary.as_json(),
        "check": checks_as_json([Check(Subject.KEY, "")]),
        "discover": run_tests_as_json(found),
        "status": dict.fromkeys(("is_good", "verdict", "next")) | msgspec.to_builtins(status),
        "verify": report.as_json(),
        "load": LoadResult("").as_json(),
    }


@pytest.mark.parametrize("command", ["run", "check", "discover", "status", "verify", "load"])
def test_every_field_of_the_json_is_documented(command: str) -> None:
    assert set(json_paths(documents()[command], FIELDS[command])) == set(FIELDS[command])


@pytest.mark.parametrize(
    ("path", "title"),
    [("docs/failed-night.md", "## By exit code"), ("docs/orchestrators.md", "## What to do for each exit code")],
)
def test_every_exit_code_is_documented(path: str, title: str) -> None:
    table = text(path).partition(title)[2].partition("\n## ")[0]
    found = {int(code) for cell in re.findall(r"^\| ([0-9, ]+) \|", table, re.MULTILINE) for code in cell.split(",")}
    assert found == set(ExitCode)


def test_every_log_event_is_documented_with_its_fields() -> None:
    modules = [*(ROOT / "etl/pipeline").glob("*.py"), ROOT / "etl/cli/run_commands.py"]
    calls = [
        node
        for path in modules
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("notify")
        and isinstance(node.args[0], ast.Constant)
    ]
    assert {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)} == EVENTS.keys()
    for call in calls:
        if isinstance(call.args[0], ast.Constant) and (given := [each.arg for each in call.keywords if each.arg]):
            assert [f"`{name}`" for name in given] == EVENTS[str(call.args[0].value)][1].split(", ")


def test_every_warehouse_is_documented_with_its_extra() -> None:
    rows = re.findall(r"^\| (.+://.+) \| `([a-z]+)` \| .+ \|$", text("docs/warehouses.md"), re.MULTILINE)
    told = {scheme: extra for urls, extra in rows for scheme in re.findall(r"`([a-z0-9+]+)://", urls)}
    assert told == WAREHOUSES
    assert {extra for urls, extra in rows if "(experimental)" in urls} == EXPERIMENTAL


def test_what_a_receipt_holds_is_documented_word_by_word() -> None:
    receipt = Receipt()
    receipt.note_written("path", b"", rows=1)
    [file] = receipt.as_json()["written"]
    meanings = {path.removeprefix("receipt."): meaning for path, meaning in FIELDS["run"].items()}
    assert set(re.findall(r"`([a-z0-9]+)`", meanings["written"])) == file.keys()
    assert set(re.findall(r"`([a-z]+)`", meanings["executions"])) == set(get_args(Change))
    assert f"{_MOST_FILES:,}" in meanings["not_listed"]


def test_everything_public_can_be_imported_and_is_described_in_one_line_first() -> None:
    for name in etl.__all__:
        first, *rest = (getattr(etl, name).__doc__ or "").split("\n")
        assert name == "__version__" or (re.fullmatch(r"[A-Z].{10,125}[.)]", first) and "".join(rest[:1]) == ""), name
    shown = [name for name in dir(etl) if not name.startswith("_")]
    assert (len(shown), {*etl.__all__} >= {*shown}) == (16, True), "what a shell completes"
    page = pydoc.plain(pydoc.render_doc(etl))
    assert all(name in page for name in shown)
    assert page.index("etl.run(") < 300
    assert Progress.__doc__


def test_changelog_has_a_dated_section_for_the_version_that_is_read_in_two_minutes() -> None:
    unreleased, released, *_ = text("CHANGELOG.md").split("\n## ")[1:]
    assert unreleased.startswith("Unreleased\n")
    assert re.match(rf"{re.escape(etl.__version__)} \(\d{{4}}-\d\d-\d\d\)\n", released)
    assert len(re.findall(r"\w\S*", released)) <= 600


BANNED = re.compile(
    r"\bmend|\bask\w* again|\bg(?:o|oes|one) around|\bnothing of it|\bis left of it|what it lacks|\btold\b"
    r"|\bas it stands|\bof which\b|\bbeside\b|\bsay, |\banew\b|\bafresh\b|\bat work\b|\bno whole\b"
    r"|\bcan be had\b|\bnot come yet\b|\blets? nothing\b|\bno regular\b|\bis no (?:day|file|rate|regular)\b"
    r"|\bis not there yet\b|\bno \w+ any more\b",
    re.IGNORECASE,
)
"""What a native writer would say in other words.

fix, retry, skip, missing, next to, for example, again, running, is not a.
"""


def without_code(path: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_manual_is_written_in_plain_english(path: Path) -> None:
    assert BANNED.findall(without_code(path)) == []


def test_messages_are_written_in_plain_english() -> None:
    for path in (ROOT / "etl").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        found = [(match[0], each.value) for each in texts if (match := BANNED.search(str(each.value)))]
        assert [each for each in found if each[1] not in docstrings] == [], (path, "other words: see BANNED")


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_local_links_lead_somewhere() -> None:
    for path in MARKDOWN:
        for name, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", without_code(path)):
            target = path.parent / name if name else path
            assert target.exists(), (path, name)
            assert not anchor or anchor in anchors(target), (path, name, anchor)


def words(path: Path) -> int:
    """How many somebody has written: without code, the bars of tables, and the tables that benchmarks write."""
    written = re.sub(r"<!-- (.+?) -->.*?<!-- end of \1 -->", "", without_code(path), flags=re.DOTALL)
    return len(re.sub(r"\||---", " ", written).split())


def test_manual_can_be_finished() -> None:
    written = [path for path in (ROOT / "docs").glob("*.md") if path.name not in GENERATED]
    counts = {path.name: words(path) for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written]}
    longest = dict.fromkeys(counts, 900) | {"architecture.md": 2_300}
    assert {name: count for name, count in counts.items() if count > longest[name]} == {}, longest
    assert sum(counts.values()) <= 11_000, f"the manual may have 11,000 words: cut some elsewhere: {counts}"


def test_decisions_can_be_finished() -> None:
    """At most fourteen pages of half a page each, numbered without a gap.

    Whoever names a page has to name one that exists.
    """
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [path.name[:5] for path in pages] == [f"{number:04}-" for number in range(1, len(pages) + 1)]
    assert len(pages) <= 14
    counts = {path.name: words(path) for path in pages}
    assert {name: count for name, count in counts.items() if count > 430} == {}
    assert sum(counts.values()) <= 5_500, counts
    for path in pages:
        parts = re.findall(
            r"^\*\*(What|Why|What it costs|What would change our mind)\.\*\*", path.read_text("utf-8"), re.MULTILINE
        )
        assert parts == ["What", "Why", "What it costs", "What would change our mind"], path
    sources = [path for room in ("etl", "tests", "benchmarks") for path in (ROOT / room).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r"\b\d{4}-[a-z-]+\.md", path.read_text("utf-8"))}
    assert named <= counts.keys()


def test_index_leads_to_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\]\(([a-z-]+\.md)\)", text("docs/index.md")))
    assert "(docs/index.md)" in text("README.md")


def test_nothing_names_a_registry() -> None:
    for path in (*ROOT.glob("*.lock"), ROOT / "tests/readers.lock", ROOT / "pyproject.toml"):
        assert set(re.findall(r"https?://[^/]+", path.read_text(encoding="utf-8"))) <= {"https://github.com"}, path
