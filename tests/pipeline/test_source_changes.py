"""What happens at the source between two nights, or during one: one example a law, the rest is told by the histories."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl import sandbox
from etl.errors import DestinationError
from etl.files.local import LocalFiles
from etl.model.findings import Kind
from etl.model.keys import default_key
from etl.model.records import METRICS, RUN_TESTS
from etl.pipeline import lists
from etl.sandbox import Fault, SandboxRequest, SimulatedCall
from etl.sandbox.dispatch import not_found
from tests.dataset.killed import killed_before
from tests.e2e.truth import assert_equals_world
from tests.pipeline.nights import FOLLOWED, NIGHT, Nights, kinds
from tests.worlds import settled_world

EVERYTHING = 1_000_000


class TestAbsenceIsConfirmedById:
    async def test_deleted_calls_and_evals_are_marked_and_marked_no_longer_when_they_are_back(
        self, nights: Nights, tmp_path: Path
    ) -> None:
        await nights.export()
        execution = nights.world.run_tests[0].executions[0]
        call, other = execution.calls[:2]
        outputs, call.is_deleted = dict(other.eval_outputs), True
        other.eval_outputs = {}

        marked = await nights.export(export={"scrub_requests": EVERYTHING})
        assert marked.exit_code == 0
        assert nights.marked("calls", execution) == 1
        assert nights.marked("evals", execution) == len(call.eval_outputs) + len(outputs)
        assert_equals_world(tmp_path, nights.world)

        call.is_deleted, other.eval_outputs = False, outputs
        assert (await nights.export()).exit_code == 0, "it settles, so both are seen"
        assert (nights.marked("calls"), nights.marked("evals")) == (0, 0)
        assert_equals_world(tmp_path, nights.world)

    @pytest.mark.parametrize("table", ["evals", "executions"])
    async def test_rows_that_a_failed_run_left_without_an_execution_are_marked_when_that_is_gone(
        self, nights: Nights, monkeypatch: pytest.MonkeyPatch, table: str
    ) -> None:
        publish = LocalFiles.publish

        def fail(files: LocalFiles, path: str, data: bytes) -> None:
            if path.startswith(f"{table}/"):
                raise DestinationError(f"{path}: No space left on device")
            publish(files, path, data)

        monkeypatch.setattr(LocalFiles, "publish", fail)
        assert (await nights.export()).exit_code == 6
        monkeypatch.undo()
        gone = nights.world.run_tests[0].executions[0]
        gone.is_deleted = True

        first, quiet = await nights.export(), await nights.export()

        assert (first.exit_code, quiet.exit_code, quiet.requests) == (0, 0, 2)
        assert nights.marked("calls", gone) == 3 == nights.marked("calls")

    async def test_execution_that_a_killed_run_marked_by_half_is_marked_whole_though_its_run_test_is_gone(
        self, nights: Nights
    ) -> None:
        await nights.export(names="all")
        run_test = nights.world.run_tests[0]
        gone = run_test.executions[0]
        gone.is_deleted = True
        with suppress(BaseExceptionGroup), killed_before(2):  # after the note of its start and the marks of calls
            await nights.export(names="all")
        assert (nights.marked("calls", gone), nights.marked("executions", gone)) == (3, 0)
        nights.world.run_tests.remove(run_test)

        assert (await nights.export(names="all")).exit_code == 0
        assert (nights.marked("evals", gone) > 0, nights.marked("executions")) == (True, 1)

    async def test_execution_that_a_killed_run_unmarked_by_half_is_marked_whole_when_it_is_gone_again(
        self, nights: Nights
    ) -> None:
        await nights.export()
        gone = nights.world.run_tests[0].executions[0]
        gone.is_deleted = True
        await nights.export()
        gone.is_deleted = False
        with suppress(BaseExceptionGroup), killed_before(2):  # after the note of its start and its calls
            await nights.export()
        assert (nights.marked("calls", gone), nights.marked("executions", gone)) == (0, 1)
        gone.is_deleted = True

        with suppress(BaseExceptionGroup), killed_before(2):  # and once more, after its calls were marked
            await nights.export()
        assert nights.marked("calls", gone) == 3

        assert [(night.exit_code, night.requests) for night in (await nights.export(), await nights.export())][1] == (
            0,
            2,
        )
        assert nights.marked("calls", gone) == 3


class TestTheWorkspace:
    @pytest.mark.parametrize("names", ["all", None])
    async def test_key_of_another_workspace_brings_nothing_into_the_dataset_though_ids_are_answered(
        self, nights: Nights, names: Any
    ) -> None:
        """By id the API answers for the whole organization. A night that fails between the two forgets nothing."""
        names = names or [each.name for each in nights.world.run_tests]
        await nights.export(names=names)
        files, own = nights.files(), nights.world.run_tests
        for run_test in own:
            for execution in run_test.executions:
                assert nights.world.execution(execution.execution_id)
        other = settled_world(seed=5, run_tests=2, executions=3, calls=1).run_tests
        if names != "all":
            for mine, theirs in zip(own, other, strict=True):
                theirs.name = mine.name
        nights.world.run_tests = other
        nights.server.fault = lambda _request, _nth: Fault(status=503)
        failed = await nights.export(names=names, api={"max_tries": 1})
        nights.server.fault = None

        refused = await nights.export(names=names)

        assert (failed.exit_code, refused.exit_code) == (5, 2)
        assert nights.files() == files

    async def test_what_exists_of_other_run_tests_speaks_for_the_key_also_without_a_note_of_the_last_run(
        self, nights: Nights
    ) -> None:
        await nights.export(names="all")
        (nights.folder / "data" / "_state" / "last_run.json").unlink()
        emptied = nights.world.run_tests[0]
        for execution in emptied.executions:
            execution.is_deleted = True
        assert (await nights.export(names="all", only=[emptied.name])).exit_code == 0

    async def test_night_goes_on_where_the_api_does_not_say_whether_any_stored_execution_exists(
        self, nights: Nights
    ) -> None:
        await nights.export()
        for run_test in nights.world.run_tests:
            for execution in run_test.executions:
                execution.is_deleted = True
        nights.server.fault = lambda request, _nth: Fault(status=500) if "execution_id" in request.query else None
        unsure = await nights.export(api={"max_tries": 1})
        assert (unsure.exit_code, {*kinds(unsure)}) == (3, {Kind.LOOK_UP_FAILED})
        assert not nights.marked("executions")


class TestNothingMoves:
    async def test_renamed_run_test_keeps_its_place_and_all_its_rows_take_the_name(
        self, nights: Nights, tmp_path: Path
    ) -> None:
        """No request for any call; deleted executions follow, and new ones join the others."""
        await nights.export(names="all")
        first = nights.world.run_tests[0]
        old = first.name
        first.executions[0].is_deleted = True
        await nights.export(names="all")
        first.name = "A new name"

        renamed = await nights.export(names="all")

        assert (renamed.exit_code, kinds(renamed)) == (0, [Kind.RENAMED])
        assert not nights.server.count(METRICS, call_execution_id="")
        assert renamed.requests == 4, "the old name is asked for once"
        sandbox.add_execution(nights.world, first, random.Random(1), NIGHT, 2, status="completed")
        assert (await nights.export(names="all")).exit_code == 0
        for table in FOLLOWED:
            names = {row["run_test_name"]: row["run_test"] for row in nights.rows(table)}
            assert names["A new name"] == default_key(old)
            assert old not in names
        assert_equals_world(tmp_path, nights.world)
        assert (await nights.export(names="all")).requests == 3 + 2

    async def test_configured_key_counts_for_what_is_new_alone(self, nights: Nights, tmp_path: Path) -> None:
        first, second = nights.world.run_tests
        await nights.export()
        new = sandbox.add_execution(nights.world, first, random.Random(1), NIGHT, 2, status="completed")

        summary = await nights.export(names=[{"name": first.name, "key": "short"}, second.name])

        assert summary.exit_code == 0
        places = {row["execution_id"]: row["run_test"] for row in nights.rows("executions")}
        assert [each for each, key in places.items() if key == "short"] == [new.execution_id]
        assert_equals_world(tmp_path, nights.world)

    async def test_execution_that_two_lists_have_is_exported_once(self, nights: Nights) -> None:
        first, second = nights.world.run_tests
        second.executions.append(first.executions[0])

        for _ in range(2):
            assert (await nights.export()).exit_code == 0
        ids = [row["execution_id"] for row in nights.rows("executions")]
        assert len(ids) == len({*ids}) == 14

    async def test_call_that_two_executions_list_belongs_to_the_one_that_it_names(self, nights: Nights) -> None:
        first, second = nights.world.run_tests[0].executions[:2]
        first.calls.append(second.calls[0])
        await nights.export(names=[nights.world.run_tests[1].name])

        for is_full in (False, False, True):
            summary = await nights.export(full_refresh=is_full)
            assert (summary.exit_code, kinds(summary)) == (0, [])
        ids = [row["call_execution_id"] for row in nights.rows("calls")]
        assert len(ids) == len({*ids}) == 14 * 3


class TestRunTestsThatAreGone:
    async def test_rows_of_a_deleted_run_test_stay_as_they_are(self, nights: Nights) -> None:
        await nights.export(names="all")
        gone = nights.world.run_tests.pop()

        told = await nights.export(names="all")

        assert (told.exit_code, kinds(told), told.notices[0].startswith(repr(gone.name))) == (
            0,
            [Kind.RUN_TEST_GONE],
            True,
        )
        assert (nights.marked("executions"), len(nights.rows("executions"))) == (0, 14)
        assert nights.server.count(METRICS, run_test_name=gone.name) == 1, "its name is asked for once"
        await nights.export(names="all")
        assert nights.server.count(METRICS, run_test_name=gone.name) == 0

    async def test_executions_of_a_deleted_run_test_are_marked_where_another_one_has_its_name_now(
        self, nights: Nights, tmp_path: Path
    ) -> None:
        """By their ids the API still gives them; their details it does not."""
        await nights.export(names="all")
        gone = nights.world.run_tests.pop(0)
        nights.world.run_tests[0].name = gone.name

        summary = await nights.export(names="all")

        assert (summary.exit_code, kinds(summary)[:2]) == (0, [Kind.RENAMED, Kind.DELETED])
        assert nights.marked("executions") == len(gone.executions)
        assert nights.marked("calls") == sum(len(execution.calls) for execution in gone.executions)
        assert_equals_world(tmp_path, nights.world)

    async def test_run_test_that_exists_and_is_missing_from_the_list_of_run_tests_is_exported_as_ever(
        self, nights: Nights, tmp_path: Path
    ) -> None:
        await nights.export(names="all")
        hidden = nights.world.run_tests[0]
        sandbox.add_execution(nights.world, hidden, random.Random(1), NIGHT, 2, status="completed")
        nights.server.fault = lambda request, _nth: (
            Fault(edit=lambda body: _without(body, hidden.name)) if request.path == RUN_TESTS else None
        )

        summary = await nights.export(names="all")

        assert (summary.exit_code, len(summary.run_tests)) == (0, 2)
        assert_equals_world(tmp_path, nights.world)


def _without(body: bytes, name: str) -> bytes:
    document = msgspec.json.decode(body)
    document["results"] = [each for each in document["results"] if each["name"] != name]
    document["count"] = len(document["results"])
    return msgspec.json.encode(document)


class TestListsCountWithRespectToTheirStart:
    async def test_list_that_is_slow_holds_back_no_other_run_test(
        self, nights: Nights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Its answer comes only once the calls of the other run test were fetched."""
        monkeypatch.setattr(lists, "LIST_PATIENCE_SECONDS", 0.05)
        first, second = nights.world.run_tests
        last = second.executions[0].calls[0]

        def wait(request: SandboxRequest, _nth: int) -> Fault | None:
            is_slow = request.query.get("run_test_name") == first.name and not is_fetched(last)
            return Fault(is_hanging=True) if is_slow else None

        def is_fetched(call: SimulatedCall) -> bool:
            return nights.server.count(METRICS, call_execution_id=call.call_execution_id) > 0

        nights.server.fault = wait
        summary = await nights.export(api={"max_tries": 20, "read_timeout_seconds": 0.3})

        assert summary.exit_code == 0
        assert_equals_world(tmp_path, nights.world)


# what an incomplete execution may keep


async def test_key_of_another_workspace_is_refused_where_one_of_its_lists_fails(nights: Nights) -> None:
    await nights.export()
    before, mine = nights.files(), nights.world
    other = settled_world(seed=99, run_tests=2, executions=3, calls=2)
    for own, run_test in zip(mine.run_tests, other.run_tests, strict=True):
        run_test.name = own.name
    names = [run_test.name for run_test in mine.run_tests]
    nights.server.world = other
    nights.server.fault = lambda request, _nth: (
        Fault(status=500) if request.query.get("run_test_name") == names[1] else None
    )
    assert (await nights.export(names=names, api={"base_url": nights.server.base_url, "max_tries": 1})).exit_code == 2
    assert nights.files() == before


async def test_list_that_comes_late_shows_what_another_one_lacks(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where two run tests swap their names."""
    monkeypatch.setattr(lists, "LIST_PATIENCE_SECONDS", 0.1)
    first, second = nights.world.run_tests
    names = [first.name, second.name]
    await nights.export(names=names)
    first.name, second.name = second.name, first.name
    nights.server.fault = lambda request, _nth: (
        Fault(delay_seconds=0.5) if request.query.get("run_test_name") == names[1] else None
    )
    swapped = await nights.export(names=names)
    assert (swapped.exit_code, nights.marked("executions")) == (0, 0)


async def test_404_of_a_run_test_that_is_listed_suggests_no_other_name(nights: Nights) -> None:
    body = msgspec.json.encode(not_found("Run test"))
    nights.server.fault = lambda request, _nth: (
        Fault(status=404, body=body) if "run_test_name" in request.query else None
    )
    problems = (await nights.export()).problems
    assert len(problems) == 2
    assert all("although it is in the API's list of run tests" in each for each in problems)
