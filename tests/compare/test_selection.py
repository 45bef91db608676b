"""Which executions are compared: finished ones that the source still has, of one run test, and none on both sides."""

from datetime import date

import pytest

from etl.compare import selection
from etl.compare.selection import Span, Version, select, select_latest
from etl.dataset.layout import Scope
from etl.errors import ConfigurationError
from etl.files.local import LocalFiles
from etl.inspect.read_tables import read_rows
from tests.compare.executions import AT, execution
from tests.datasets import a_dataset, write


def ids(executions, baseline, candidate):
    before, after, _ = select(executions, baseline, candidate, where="data")
    return [each.execution_id for each in before.executions], [each.execution_id for each in after.executions]


def notices(executions, baseline, candidate):
    return select(executions, baseline, candidate, where="data")[2]


def refusal(executions, baseline, candidate):
    with pytest.raises(ConfigurationError) as raised:
        select(executions, baseline, candidate, where="data")
    return str(raised.value)


def span(first, last):
    return Span(date(2026, 11, first), date(2026, 11, last))


MANY = [
    execution("e1"),
    execution("e2", day=1, status="failed"),
    execution("e3", day=2, status="cancelled", export_state="settling"),
    execution("gone", day=3, deleted_at=AT),
    execution("e4", day=4, export_state="incomplete"),
    execution("runs", day=5, status="running", export_state="waiting"),
]


def test_last_and_previous_are_the_newest_that_finished_and_were_not_deleted():
    assert ids(MANY, "previous", "last") == (["e3"], ["e4"])
    assert ids(list(reversed(MANY)), "previous", "last") == (["e3"], ["e4"])
    assert ids(MANY, "e1", "last") == (["e1"], ["e4"])


def test_span_holds_its_first_and_last_day_but_as_a_baseline_not_the_execution_that_is_judged():
    assert ids(MANY, span(1, 2), span(3, 5)) == (["e2", "e1"], ["e4", "e3"])

    assert ids(MANY, span(1, 5), "last") == (["e3", "e2", "e1"], ["e4"])
    assert ids(MANY, span(1, 5), "e2") == (["e4", "e3", "e1"], ["e2"])


def test_what_is_missing_settling_or_not_finished_is_told():
    assert notices(MANY, "previous", "last") == [
        "the baseline has 1 execution still settling, so more costs and evals may arrive",
        "the candidate has 1 execution with missing calls. Fetch the calls with metrics-etl run, then compare again",
        "the candidate has 1 execution that had not finished when last exported, and so cannot be compared",
    ]
    assert notices(MANY, "e1", span(5, 6))[-1].endswith(
        "had not finished when last exported, and so cannot be compared"
    )
    assert notices(MANY, "e1", "e2") == []


def test_two_executions_of_two_run_tests_may_be_compared_and_that_is_told():
    executions = [execution("e1"), execution("other", run_test="b")]
    assert ids(executions, "e1", "other") == (["e1"], ["other"])
    first, *_ = notices(executions, "e1", "other")
    assert first.startswith("the baseline belongs to run test 'A', the candidate to 'B'")


def test_words_mean_the_run_test_of_the_execution_beside_them():
    executions = [execution("e1"), execution("e2", day=1), execution("b1", day=2, run_test="b")]
    assert ids(executions, "e1", "last") == (["e1"], ["e2"])
    expected = "baseline and candidate have 1 execution in common (b1). Choose sides that do not overlap"
    assert refusal(executions, "b1", "last") == expected


def test_run_test_must_be_named_where_there_are_several():
    executions = [execution("e1"), execution("b1", run_test="b")]
    expected = "data holds several run tests: 'A' (a), 'B' (b). Name one with --run-test"
    assert refusal(executions, "previous", "last") == expected
    assert ids([*executions[:1], execution("e2", day=1)], "previous", "last") == (["e1"], ["e2"])


REFUSED = [
    ([], ("previous", "last"), "data holds no executions yet. Run metrics-etl run first"),
    (MANY, ("e9", "last"), "data has no execution 'e9'. Give an execution_id, last, previous, or a date range"),
    (MANY, ("gone", "last"), "execution 'gone' was deleted at the source"),
    (MANY, ("e1", "runs"), "execution 'runs' had not finished when it was exported (status running)"),
    (MANY[:1], ("previous", "last"), "'previous' execution, because data holds 1 finished execution of the run test"),
    (MANY[-1:], ("e1", "last"), "data has no execution 'e1'"),
    (MANY, (span(20, 21), "last"), ".2026-11-21. Its finished executions are from 2026-11-01 to 2026-11-03"),
    (MANY, (span(5, 5), "last"),
     "no finished execution of 2026-11-05..2026-11-05. Its finished executions are from 2026-11-01"),
    (MANY, (Version("v1"), "last"), "no finished execution of version=v1. No execution has an agent version"),
    ([execution(each, agent_version="v2") for each in "ab"], (Version("v1"), "last"), "=v1. Known versions: v2"),
    (MANY, (span(1, 5), span(5, 6)), "baseline and candidate have 1 execution in common (e4)"),
    (MANY, ("last", "last"), "baseline and candidate have 1 execution in common (e4)"),
]  # fmt: skip


@pytest.mark.parametrize(("executions", "sides", "message"), REFUSED)
def test_what_is_no_side_is_refused_in_one_line(executions, sides, message):
    told = refusal(executions, *sides)
    assert message in told
    assert "\n" not in told


def latest(*executions):
    found = select_latest(executions)
    return found and tuple([each.execution_id for each in side.executions] for side in found)


def test_latest_week_is_held_against_the_four_weeks_before_it():
    begun = {"newest": 40, "first of the week": 34, "last before": 33, "first before": 6, "too old": 5}
    executions = [execution(name, day=day) for name, day in begun.items()]
    assert latest(*executions) == (["last before", "first before"], ["newest", "first of the week"])
    assert latest(*reversed(executions)) == latest(*executions)


def test_last_two_executions_are_compared_where_the_weeks_before_have_none():
    assert latest(execution("old"), execution("a", day=60), execution("b", day=61)) == (["a"], ["b"])


def test_nothing_is_compared_before_two_executions_have_finished():
    running = execution("runs", day=5, status="running", export_state="waiting")
    assert latest() is None
    assert latest(execution("e1"), running, execution("gone", day=3, deleted_at=AT)) is None


def test_text_of_a_judge_is_read_once_a_part_however_many_executions_it_judged(tmp_path, monkeypatch):
    """As many long ones as there are executions are more than memory, or an array of texts, holds."""
    long, sizes = "x" * 10_000, []

    def read(*arguments, **options):
        rows = read_rows(*arguments, **options)
        sizes.append(rows.nbytes)
        return rows

    monkeypatch.setattr(selection, "read_rows", read)
    a_dataset(tmp_path)
    for month in ("2026-10", "2026-11"):
        judges = {"f": f"f{long}", "g": f"g{long}", None: None}
        own = [
            {"execution_id": f"{month}-{n}", "judged_by_fingerprint": each, "judged_by": judges[each], "started_at": AT}
            for n, each in enumerate([*judges] * 50)
        ]
        write(tmp_path, "executions", *own, date=f"{month}-01")
    found = selection.read_executions(LocalFiles(tmp_path), Scope(None))
    assert len(found) == 300
    assert all(each.judged_by == judges[each.judged_by_fingerprint] for each in found)
    assert sum(sizes) < 300 * 300
