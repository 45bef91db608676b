"""What got worse is told of run tests and metrics by name, from the dataset alone."""

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.compare.nightly import Worse, judge_nights, read_nights, read_worse
from etl.compare.samples import CALL_COLUMNS
from etl.inspect.read_tables import open_dataset
from etl.settings.results import Compare
from tests.e2e.demo_dataset import FRIDAY


def worse(data: Path) -> Sequence[Worse]:
    found = read_worse(open_dataset(str(data), {}), Compare(), FRIDAY.date())
    return [each for each in found if isinstance(each, Worse)]


def test_regression_of_the_demo_is_found_since_the_day_on_which_it_began(demo: Path) -> None:
    found = worse(demo)
    assert {(each.run_test, each.since) for each in found} == {("Checkout flow", date(2026, 11, 9))}
    assert {"latency_mean", "eval_task_completion_pass_rate"} <= {each.row.metric.name for each in found}
    latency = found[0]
    assert latency.text == (
        "Agent latency, mean +53.3% (1,260 ms to 1,932 ms) since 2026-11-09, 6 nights, 95% interval +39.3 to +68.7%; "
        "agent version v2, after v1"
    )
    assert [len(side) for side in latency.sides] == [13, 8]


def test_nothing_was_worse_before_and_nothing_is_of_other_run_tests(demo: Path) -> None:
    for run_tests, until in ((None, date(2026, 11, 9)), (["Refund chat"], None)):
        nights = read_nights(open_dataset(str(demo), {}), CALL_COLUMNS, run_tests, until)
        assert judge_nights(*nights, Compare()).worse == []


def test_eval_of_few_nights_is_not_said_to_be_judged(demo: Path) -> None:
    executions, calls, evals = read_nights(open_dataset(str(demo), {}), CALL_COLUMNS, ["Checkout flow"], None)
    recent = [each.execution_id for each in executions if each.started_at.date() >= date(2026, 11, 9)]
    young = evals.filter(pc.is_in(evals["execution_id"], pa.array(recent, pa.string())))
    without, few = (judge_nights(executions, calls, each, Compare()).metrics for each in (evals.slice(0, 0), young))
    assert few == without < judge_nights(executions, calls, evals, Compare()).metrics


def test_executions_that_were_deleted_do_not_count(demo: Path, tmp_path: Path) -> None:
    """With those of the bad nights goes what they showed."""
    data = shutil.copytree(demo, tmp_path / "data")
    for path in (data / "executions").rglob("*.parquet"):
        rows = pq.read_table(path, partitioning=None)
        began = rows["started_at"].to_pylist()
        gone = [each if each.date() >= date(2026, 11, 9) else None for each in began]
        column = rows.column_names.index("deleted_at")
        pq.write_table(
            rows.set_column(column, rows.schema.field(column), [pa.array(gone, rows.schema.field(column).type)]), path
        )
    assert worse(data) == []
