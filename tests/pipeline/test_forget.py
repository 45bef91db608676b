"""What its owner forgets is gone for good: from the dataset, from what runs fetch and from what follows the feed."""

import json
import shutil
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from etl.dataset.parts import Dataset
from etl.errors import ConfigurationError, DestinationError
from etl.files.names import IDENTITY
from etl.files.open import open_files
from etl.inspect.read_status import status
from etl.inspect.verify import stored_scope, verify
from etl.model.findings import Kind
from etl.model.keys import default_key
from etl.pipeline.forget import forget
from tests.dataset.killed import killed_before
from tests.pipeline.nights import FOLLOWED, Nights, kinds
from tests.support import settings_for

KEPT = {"execution_id", "run_test_name", "started_at", "run_test", "month"}
OURS = {"export_state", "exported_calls", "fingerprint", "calls_digest", "deleted_at", "export_run_id", "exported_at"}


def forgotten(nights: Nights, *, is_agreed: bool = True, **what: Any) -> str:
    return forget(Dataset(open_files(str(nights.folder / "data"))), is_agreed=is_agreed, **what)


def rows_of(nights: Nights, execution_id: str) -> dict[str, list[dict[str, Any]]]:
    tables = {name: nights.rows(name) for name in FOLLOWED}
    return {name: [row for row in rows if row["execution_id"] == execution_id] for name, rows in tables.items()}


async def test_forgotten_execution_is_a_row_that_says_so_and_nothing_fetches_it_again(nights: Nights) -> None:
    exported = await nights.export()
    first, *others = nights.world.run_tests[0].executions
    newest = max(row["exported_at"] for row in nights.rows("executions"))
    before = nights.files()
    text = forgotten(nights, executions=[first.execution_id], is_agreed=False)
    assert text.startswith("1 execution, 3 calls, ")
    assert nights.files() == before
    assert forgotten(nights, executions=[first.execution_id]) == text

    left = rows_of(nights, first.execution_id)
    (row,) = left.pop("executions")
    assert not any(left.values())
    assert {name for name, value in row.items() if value is not None} == KEPT | OURS
    assert (row["export_state"], row["exported_calls"], row["exported_at"] > newest) == ("forgotten", 0, True)
    (record,) = (row for row in nights.rows("runs") if row["message"])
    assert text in record["message"]
    assert "(--execution)" in record["message"]
    before = nights.files()
    first.calls[0].duration_seconds = 1.0
    summary = await nights.export(full_refresh=True)
    assert (summary.exit_code, summary.receipt.follows) == (0, record["export_run_id"])
    assert json.loads(record["receipt"])["follows"] == exported.export_run_id
    assert summary.run_tests[0].reasons == {"requested": len(others), "forgotten": 1}
    assert not any(first.execution_id in request.target for request in nights.server.requests)
    assert rows_of(nights, first.execution_id)["executions"] == [row]
    settings = settings_for(nights.server, nights.folder / "data")
    assert verify(settings, stored_scope(settings, (), None)).findings == []
    with pytest.raises(ConfigurationError, match="or was forgotten"):
        forgotten(nights, executions=[first.execution_id])
    assert forgotten(nights, deleted_before=nights.now.date() + timedelta(days=9)) == ""


async def test_what_is_deleted_is_forgotten_by_its_call_or_by_a_day_and_the_rest_stays_whole(nights: Nights) -> None:
    await nights.export()
    first, second, *_ = nights.world.run_tests[0].executions
    first.calls[0].is_deleted = first.calls[1].is_deleted = second.is_deleted = True
    first.calls[2].eval_outputs.popitem()
    await nights.export(full_refresh=True)
    call, other = (each.call_execution_id for each in first.calls[:2])
    forgotten(nights, calls=[call])
    assert call not in {row["call_execution_id"] for name in FOLLOWED[1:] for row in nights.rows(name)}
    day = nights.now.date()
    assert forgotten(nights, deleted_before=day, is_agreed=False) == ""
    forgotten(nights, deleted_before=day + timedelta(days=1))
    assert nights.marked("calls") == nights.marked("evals") == 0
    assert {row["call_execution_id"] for row in rows_of(nights, first.execution_id)["calls"]} == {
        first.calls[2].call_execution_id
    }
    assert [row["export_state"] for row in nights.rows("executions") if row["deleted_at"]] == ["forgotten"]
    summary = await nights.export()
    assert (summary.exit_code, summary.problems) == (0, [])
    assert other not in {row["call_execution_id"] for row in nights.rows("calls")}


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"executions": ["nobody"]}, "execution nobody was never in the dataset, or was forgotten"),
        ({"run_tests": ["Nothing"]}, "no execution of run test 'Nothing'"),
        ({"calls": ["nobody"]}, "call nobody was never in the dataset, or was forgotten"),
    ],
)
async def test_what_is_not_there_is_refused(nights: Nights, what: Any, error: str) -> None:
    await nights.export()
    with pytest.raises(ConfigurationError, match=error):
        forgotten(nights, **what)
    living = nights.world.run_tests[0].executions[0].calls[0].call_execution_id
    with pytest.raises(ConfigurationError, match="which the source still had in the last run"):
        forgotten(nights, calls=[living])


async def test_what_somebody_took_away_is_told_by_a_run_before_anything_is_forgotten(nights: Nights) -> None:
    await nights.export()
    first, second, *_ = nights.world.run_tests
    (gone,) = (nights.folder / "data" / "evals").glob(f"run_test={default_key(first.name)}/*/*.parquet")
    gone.unlink()
    with pytest.raises(ConfigurationError, match="First run metrics-etl run"):
        forgotten(nights, run_tests=[second.name])
    assert Kind.FETCHED_AGAIN in kinds(await nights.export())
    assert forgotten(nights, run_tests=[default_key(second.name)]).startswith(f"{len(second.executions)} executions")


async def test_what_is_lost_while_a_killed_one_waits_is_told_or_fetched_again(nights: Nights) -> None:
    await nights.export()
    gone, other, *_ = nights.world.run_tests
    call = other.executions[0].calls[0]
    call.is_deleted = True
    for execution in gone.executions:
        execution.is_deleted = True
    for _ in range(2):
        await nights.export(full_refresh=True)
    with killed_before(1):
        forgotten(nights, calls=[call.call_execution_id])
    data = nights.folder / "data"
    for table in FOLLOWED:
        shutil.rmtree(data / table / f"run_test={default_key(gone.name)}")
    shutil.rmtree(data / "calls" / f"run_test={default_key(other.name)}")
    summary = await nights.export()
    assert [kind for kind in kinds(summary) if kind is Kind.LOST_ROWS]
    assert summary.exit_code == 3
    left = [len([each for each in execution.calls if not each.is_deleted]) for execution in other.executions]
    assert [len(rows_of(nights, each.execution_id)["calls"]) for each in other.executions] == left


async def test_killed_at_any_write_it_is_forgotten_by_the_next_run_or_not_at_all(nights: Nights) -> None:
    await nights.export()
    run_test = nights.world.run_tests[1]
    ids, data = {each.execution_id for each in run_test.executions}, nights.folder / "data"
    for write in count():
        nights.folder = data.parent / str(write)
        shutil.copytree(data, nights.folder / "data")
        with killed_before(write):
            forgotten(nights, run_tests=[run_test.name])
        identity = json.loads((nights.folder / "data" / IDENTITY).read_bytes())
        is_whole = identity["layout"] == 3 and identity["forgetting"] is None
        if identity.get("forgetting"):
            with pytest.raises(DestinationError, match="forget is removing rows"):
                status(nights.folder / "data")
        assert (await nights.export()).exit_code == 0
        held = ids & {row["execution_id"] for name in FOLLOWED[1:] for row in nights.rows(name)}
        records = [row for row in nights.rows("runs") if row["message"]]
        states = {row["export_state"] for row in nights.rows("executions") if row["execution_id"] in ids}
        if write:
            assert (held, states, len(records)) == (set(), {"forgotten"}, 1)
        else:
            assert (held, records) == (ids, [])
        if is_whole:
            break
