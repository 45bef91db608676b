"""The shape of the code: where things are, how large they may grow, and where each module is tested."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "etl").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
MAX_LINES = 350

TESTED_ELSEWHERE = {
    "etl/cli/compare_command.py": "tests/e2e/test_compare.py",
    "etl/cli/dataset_commands.py": "tests/e2e/test_commands.py",
    "etl/cli/demo.py": "tests/e2e/test_commands.py",
    "etl/cli/report_command.py": "tests/e2e/test_report.py",
    "etl/cli/run_commands.py": "tests/e2e/test_export.py",
    "etl/cli/sandbox_commands.py": "tests/e2e/test_commands.py",
    "etl/cli/show_compare.py": "tests/e2e/test_compare.py",
    "etl/cli/show_dataset.py": "tests/e2e/test_status.py",
    "etl/cli/source_commands.py": "tests/e2e/test_discover.py",
    "etl/extract/answers.py": "tests/extract/test_endpoints.py",
    "etl/extract/bad_rows.py": "tests/extract/test_executions.py",
    "etl/extract/call_list.py": "tests/extract/test_crawl.py",
    "etl/extract/listing.py": "tests/extract/test_listing_laws.py",
    "etl/extract/open_execution.py": "tests/extract/test_crawl.py",
    "etl/compare/statistics.py": "tests/compare/test_estimate.py",
    "etl/extract/run_tests.py": "tests/pipeline/test_all_run_tests.py",
    "etl/extract/settling.py": "tests/pipeline/test_settling.py",
    "etl/inspect/verify_warehouse.py": "tests/load/test_laws.py",
    "etl/load/contents.py": "tests/load/test_laws.py",
    "etl/load/drivers.py": "tests/load/test_laws.py",
    "etl/load/interface.py": "tests/load/test_laws.py",
    "etl/load/external_tables.py": "tests/load/test_ddl.py",
    "etl/load/synchronize.py": "tests/load/test_laws.py",
    "etl/load/statements.py": "tests/load/test_laws.py",
    "etl/load/tables.py": "tests/load/test_laws.py",
    "etl/model/arrow.py": "tests/dataset/test_merge.py",
    "etl/model/columns.py": "tests/model/test_schema.py",
    "etl/model/locations.py": "tests/files/test_open.py",
    "etl/model/records.py": "tests/extract/test_crawl.py",
    "etl/pipeline/apply.py": "tests/pipeline/test_source_changes.py",
    "etl/pipeline/conclude.py": "tests/pipeline/test_job.py",
    "etl/pipeline/engine/interface.py": "tests/pipeline/engine/test_worker.py",
    "etl/pipeline/engine/this_process.py": "tests/pipeline/test_job.py",
    "etl/pipeline/lists.py": "tests/pipeline/test_source_changes.py",
    "etl/pipeline/shared_steps.py": "tests/pipeline/test_job.py",
    "etl/sandbox/dispatch.py": "tests/sandbox/test_server.py",
    "etl/sandbox/measures.py": "tests/sandbox/test_generate.py",
    "etl/settings/results.py": "tests/settings/test_messages.py",
    "etl/transform/drift.py": "tests/pipeline/test_drift.py",
    "etl/version.py": "tests/e2e/test_commands.py",
}
"""Modules that no test file is named after, and where they are tested: mostly end to end."""


def lines(path: str) -> list[str]:
    return (ROOT / path).read_text(encoding="utf-8").splitlines()


def test_only_what_every_room_needs_lies_outside_of_the_rooms() -> None:
    assert {path.name for path in (ROOT / "etl").glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "errors.py",
        "extras.py",
        "version.py",
    }


def test_no_module_but_the_schema_is_long() -> None:
    assert [path for path in MODULES if len(lines(path)) > MAX_LINES and path != "etl/model/schema.py"] == []


def test_every_module_has_a_test_file_of_its_name_or_a_line_here() -> None:
    named = {path for path in MODULES if (ROOT / file_of_tests(path)).exists()}
    assert named | TESTED_ELSEWHERE.keys() == set(MODULES)
    assert not named & TESTED_ELSEWHERE.keys()
    for path in TESTED_ELSEWHERE.values():
        assert (ROOT / path).exists(), path


def file_of_tests(module: str) -> str:
    """``etl/dataset/merge.py`` → ``tests/dataset/test_merge.py``."""
    path = Path(module)
    return (Path("tests", *path.parts[1:-1]) / f"test_{path.name}").as_posix()


def test_no_two_tests_have_one_name() -> None:
    names = Counter(
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_each_question_of_a_newcomer_is_answered_by_a_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    decided = page.partition("\n## Where is it decided?\n")[2].partition("\n## ")[0]
    answers = re.findall(r"^\| .* \| (`.*`) \|$", decided, re.MULTILINE)
    assert len(answers) >= 20
    for path in re.findall(r"`(etl/[^`]+)`", decided):
        assert (ROOT / path).is_file(), path


def test_nothing_below_the_public_interface_of_aiohttp_is_used() -> None:
    hidden = re.compile(r"client_proto|connector\.connect\b|set_response_params|aiohttp\.\w+\._|session\._|response\._")
    assert [path for path in MODULES if hidden.search("\n".join(lines(path)))] == []


def test_only_the_storage_names_the_local_folder() -> None:
    named = [path for path in MODULES if "LocalFiles" in (ROOT / path).read_text(encoding="utf-8")]
    assert [path for path in named if not path.startswith("etl/files/")] == []
