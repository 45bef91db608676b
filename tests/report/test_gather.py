"""The figures of many run tests: all are there, the worst in detail, and none depends on what was read beside it."""

from datetime import UTC, date, datetime

from etl.files.local import LocalFiles
from etl.inspect.read_status import read_status
from etl.report.figures import Standing
from etl.report.gather import MOST_DETAILS, gather_contents
from etl.settings.results import Compare
from tests.bundles import a_bundle
from tests.datasets import a_dataset, export_to


def a_dataset_of(path, run_tests):
    """Each with a call on two days."""
    keys = [f"run-test-{number:02}" for number in range(run_tests)]
    days = ("2026-09-01", "2026-09-20")
    bundles = [a_bundle(f"{key}-{day}", [f"{key}-{day}-c"], key=key, date=day) for key in keys for day in days]
    export_to(a_dataset(path), *bundles)
    return LocalFiles(path)


def read(files, since=None):
    return gather_contents(files, read_status(files, now=datetime.now(UTC)), None, since, rules=Compare())


def test_of_many_run_tests_so_many_have_details_and_all_have_figures(tmp_path):
    contents = read(a_dataset_of(tmp_path, MOST_DETAILS + 2))
    found = contents.run_tests
    assert (contents.judged.run_tests, {each.standing for each in found}) == ([], {Standing.NOT_YET})
    assert [each.key for each in found] == [f"run-test-{number:02}" for number in range(MOST_DETAILS + 2)]
    assert [each.details is not None for each in found] == [True] * MOST_DETAILS + [False] * 2
    assert {(each.calls, len(each.trends)) for each in found} == {(2, 1)}


def test_run_test_that_fell_silent_needs_a_person_before_those_that_are_new_whichever_days_are_shown(tmp_path):
    files = a_dataset_of(tmp_path, 2)
    export_to(a_dataset(tmp_path), a_bundle("old", ["old-c"], key="silent", date="2026-08-25"))
    contents = read(files, since=date(2026, 9, 1))
    assert [each.standing for each in contents.run_tests] == [Standing.NO_CALLS, Standing.NOT_YET, Standing.NOT_YET]
    assert contents.missing == ["'Silent' has no execution since 2026-09-01: older ones are shown"]
