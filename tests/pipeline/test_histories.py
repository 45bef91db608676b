"""After any history of changes, faults, crashes, damage and runs the dataset is the truth, and at no time it is broken."""

import random
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, note, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from etl import sandbox
from etl.load.layout import INDEX
from etl.pipeline.summary import Summary
from etl.sandbox import Execution, Fault, SandboxRequest
from tests.pipeline.histories import EVERYTHING, FINISHED, NAMES, Death, Entry, History, calls_of

which = st.integers(0, 11)
page_limits = st.sampled_from([1024, 1, 2, 4, 16])
KEYS = (None, "alpha", "beta", "gamma")


class Histories(RuleBasedStateMachine):
    """Each rule is one thing that may happen; a number picks to which execution, call, file or run test."""

    postgresql_url = ""
    """Of a server, where one is installed."""
    is_all = False

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()

    @initialize(
        seed=st.integers(0, 999),
        run_tests=st.integers(1, 3),
        executions=st.sampled_from([3, 1, 2, 4, 5, 6, 0]),
        calls=st.sampled_from([2, 1, 0]),
    )
    def begin(self, seed: int, run_tests: int, executions: int, calls: int) -> None:
        self.history = History(
            Path(self._folder.name),
            seed=seed,
            run_tests=run_tests,
            executions=executions,
            calls=calls,
            postgresql_url=self.postgresql_url,
            is_all=self.is_all,
        )

    def teardown(self) -> None:
        try:
            if hasattr(self, "history"):
                try:
                    self.history.settle()
                finally:
                    self.history.close()
        finally:
            self._folder.cleanup()

    # the source

    @rule(kind=st.sampled_from(["start", "finished"]), pick=which, calls=st.integers(0, 5))
    def execution_begins(self, kind: str, pick: int, calls: int) -> None:
        run_tests = self.history.world.run_tests
        self.history.start(run_tests[pick % len(run_tests)], calls, is_finished=kind == "finished")

    @rule(kind=st.sampled_from(["finish", "rerun", "delete", "archive", "lose times"]), pick=which)
    def execution_changes(self, kind: str, pick: int) -> None:
        self._change_execution(kind, pick, self.history.executions())

    def _change_execution(self, kind: str, pick: int, among: list[Execution]) -> None:
        history = self.history
        possible = {
            "finish": [each for each in among if each.status not in FINISHED],
            "delete": [each for each in among if not each.is_deleted],
        }.get(kind, [each for each in among if each.status in FINISHED])
        if not possible:
            return
        execution = possible[pick % len(possible)]
        match kind:
            case "finish":
                history.finish(execution, FINISHED[pick % len(FINISHED)])
            case "rerun":
                history.rerun(execution)
            case "delete":
                history.delete(execution)
            case "archive":
                execution.status = "archived"
            case "lose times":
                history.lose_times(execution)

    @rule(kind=st.sampled_from(["late", "touch", "delete", "poison", "hold", "odd eval"]), pick=which)
    def call_changes(self, kind: str, pick: int) -> None:
        self._change_call(kind, pick, self.history.executions())

    def _change_call(self, kind: str, pick: int, among: list[Execution]) -> None:
        history = self.history
        if not (possible := calls_of(among)):
            return
        execution, call = possible[pick % len(possible)]
        if kind in ("late", "delete", "hold", "odd eval"):
            history.change_unseen(execution)
        match kind:
            case "late":
                sandbox.add_late_data(execution, history.rng, history.now)
            case "touch":
                sandbox.touch_call(call, history.now)
            case "delete":
                sandbox.delete_call(call)
            case "poison":
                history.poison(call)
            case "hold":
                call.status = "on_hold"
            case "odd eval":
                history.give_odd_eval(execution, call)

    @rule(pick=which, to=which)
    def call_moves(self, pick: int, to: int) -> None:
        calls, executions = self.history.calls(), self.history.executions()
        if calls:
            (source, call), target = calls[pick % len(calls)], executions[to % len(executions)]
            if source is not target:
                self.history.move_call(source, call, target)

    @rule(pick=which, liar=which)
    def call_is_listed_twice_for_a_night(self, pick: int, liar: int) -> None:
        calls, executions = self.history.calls(), self.history.executions()
        if calls:
            owner, call = calls[pick % len(calls)]
            if (other := executions[liar % len(executions)]) is not owner:
                self.history.list_too(other, call)
                self._run(full_refresh=True)
                self.history.server.fault = None

    @rule(number=st.integers(0, 2), full_refresh=st.booleans())
    def calls_vanish_from_their_lists_for_a_night(self, number: int, *, full_refresh: bool) -> None:
        """Of an execution that was never exported, one may be missing without a word."""
        everything = {each.execution_id for each in self.history.executions()}
        self.history.list_only(number)
        self.history.unseen |= everything
        self._run(full_refresh=full_refresh)
        self.history.unseen |= everything
        self.history.server.fault = None

    @rule(pick=which, name=st.sampled_from(NAMES))
    def run_test_is_renamed(self, pick: int, name: str) -> None:
        run_tests = self.history.world.run_tests
        sandbox.rename_run_test(run_tests[pick % len(run_tests)], name)

    @rule(pick=which)
    def run_test_is_deleted(self, pick: int) -> None:
        run_tests = self.history.world.run_tests
        if self.is_all and len(run_tests) > 1:
            self.history.deleted.append(run_tests.pop(pick % len(run_tests)))

    @rule(name=st.sampled_from(NAMES))
    def run_test_is_new(self, name: str) -> None:
        history, run_tests = self.history, self.history.world.run_tests
        if self.is_all and len(run_tests) < len(NAMES):
            sandbox.add_run_test(
                history.world, sandbox.new_run_test(history.rng, name, history.now, run_tests[0].profile)
            )

    @rule(hours=st.sampled_from([1, 12, 25, 72]))
    def time_passes(self, hours: int) -> None:
        self.history.now += timedelta(hours=hours)

    @rule(limit=st.sampled_from([None, 1, 3, 7]))
    def pages_are_capped(self, limit: int | None) -> None:
        self.history.cap_pages(limit)

    @rule(seed=st.integers(0, 99), share=st.sampled_from([0.0, 0.1, 0.4, 0.8, 1.0]))
    def requests_fail(self, seed: int, share: float) -> None:
        self.history.server.fault = sandbox.random_faults(random.Random(seed), share)

    @rule(seed=st.integers(0, 99), share=st.sampled_from([0.4, 0.8, 1.0]), pick=which, calls=st.integers(1, 4))
    def details_fail_while_data_comes_late(self, seed: int, share: float, pick: int, calls: int) -> None:
        """What cannot be compared is fetched whole: where a run without the faults was complete, one with them is."""
        history, run_tests = self.history, self.history.world.run_tests
        settling = [history.start(run_tests[pick % len(run_tests)], calls, is_finished=True) for _ in range(2)]
        history.server.fault = None
        before = self._run()
        for execution in settling:
            sandbox.add_late_data(execution, history.rng, history.now)
        history.fail_details(seed, share)
        after = self._run()
        assert before is None or after is None or before.exit_code or not after.exit_code

    @rule(pick=which, endpoint=st.sampled_from(["metrics", "runs"]))
    def one_subject_fails_for_ever(self, pick: int, endpoint: str) -> None:
        found = self.history.calls() if endpoint == "metrics" else [(each, None) for each in self.history.executions()]
        if found:
            execution, call = found[pick % len(found)]
            subject = call.call_execution_id if call else execution.execution_id

            def fail(request: SandboxRequest, _nth: int) -> Fault | None:
                return Fault(status=500) if endpoint in request.path and subject in request.target else None

            self.history.server.fault = fail

    # the settings

    @rule(kind=st.sampled_from(["settings", "faults", "poison"]))
    def something_is_mended(self, kind: str) -> None:
        match kind:
            case "settings":
                self.history.follow()
            case "faults":
                self.history.server.fault = None
            case "poison":
                self.history.heal()

    @rule(pick=which, key=st.sampled_from(KEYS))
    def settings_give_another_key(self, pick: int, key: str | None) -> None:
        entry = self._entry(pick)
        holder = next((each for each in self.history.entries if key and each.key == key), entry)
        holder.key, entry.key = entry.key, key

    @rule(pick=which)
    def settings_leave_a_run_test_out_or_take_it_in(self, pick: int) -> None:
        entry = self._entry(pick)
        entry.is_exported = not entry.is_exported

    def _entry(self, pick: int) -> Entry:
        return self.history.entries[pick % len(self.history.entries)]

    # the dataset

    @rule(
        pick=which,
        table=st.sampled_from(["calls", "evals", "calls", "evals", "executions", "errors"]),
        kind=st.sampled_from(["drop", "restore", "drop", "restore", "cut", "empty", "garbage", "flip"]),
    )
    def file_is_damaged(self, pick: int, table: str, kind: str) -> None:
        history = self.history
        found = [path for path in history.files.paths() if path.relative_to(history.files.data).parts[0] == table]
        if not found:
            return
        path = found[pick % len(found)]
        data = path.read_bytes()
        older = [each for each in history.older.get(path, []) if each != data]
        match kind:
            case "cut":
                history.damage(path, data[: len(data) // 2])
            case "empty":
                history.damage(path, b"")
            case "garbage":
                history.damage(path, random.Random(pick).randbytes(len(data)))
            case "flip" if len(data) >= 12:
                history.damage(path, data[:-12] + bytes([data[-12] ^ 0xFF]) + data[-11:])
            case "drop":
                history.damage(path, None)
            case "restore" if older and table != "errors":
                history.damage(path, older[pick % len(older)])
                if table == "executions":  # they vouch for older calls and evals, if those came back before
                    history.unseen |= {each.execution_id for each in history.executions()}

    @rule(pick=which, kind=st.sampled_from(["drop", "cut", "garbage", "older", "older"]))
    def index_is_damaged_or_an_older_one(self, pick: int, kind: str) -> None:
        """It is a cache: whatever becomes of it, runs find what they would have found."""
        history = self.history
        index = history.files.data / INDEX
        if not index.exists():
            return
        history.is_index_ours = False
        match kind:
            case "drop":
                index.unlink()
            case "cut":
                index.write_bytes(index.read_bytes()[: pick * 50])
            case "garbage":
                index.write_bytes(random.Random(pick).randbytes(300))
            case "older" if history.indexes:
                index.write_bytes(history.indexes[pick % len(history.indexes)])

    # the runs

    @rule(
        page_limit=page_limits,
        scrub_requests=st.sampled_from([0, 0, 6, EVERYTHING]),
        full_refresh=st.sampled_from([False, False, False, True]),
        accept_deletions=st.booleans(),
        calls=st.sampled_from(["finished", "finished", "all"]),
        commit_interval_seconds=st.sampled_from([3600, 1e-6]),
        settle_by=st.sampled_from(["detail", "detail", "refetch"]),
        ahead=st.sampled_from([timedelta(0), timedelta(0), timedelta(days=1), timedelta(days=365)]),
    )
    def run(self, **options: object) -> None:
        self._run(**options)

    @rule(pick=which, is_narrowed=st.booleans(), accept_deletions=st.booleans())
    def run_for_one_run_test(self, pick: int, *, is_narrowed: bool, accept_deletions: bool) -> None:
        configured = self.history.configured()
        if configured:
            one = configured[pick % len(configured)]
            self._run(only=one, is_narrowed=is_narrowed, accept_deletions=accept_deletions)

    @rule(
        nth=st.integers(0, 3) | st.integers(0, 20),
        is_after=st.booleans(),
        page_limit=page_limits,
        commit_interval_seconds=st.sampled_from([3600, 1e-6]),
    )
    def run_is_killed(self, nth: int, page_limit: int, commit_interval_seconds: float, *, is_after: bool) -> None:
        self._run(death=Death(nth, is_after), page_limit=page_limit, commit_interval_seconds=commit_interval_seconds)

    @rule(event=st.sampled_from(["run_started", "planned", "committed"]))
    def run_overlaps_with_another(self, event: str) -> None:
        self._run(overlap_at=event)

    @rule(pick=which, key=st.sampled_from(KEYS), nth=st.integers(0, 12), is_after=st.booleans())
    def move_is_killed(self, pick: int, key: str | None, nth: int, *, is_after: bool) -> None:
        self.settings_give_another_key(pick, key)
        self._run(death=Death(nth, is_after))

    @rule(
        change=st.sampled_from(["delete execution", "delete call", "touch"]),
        nth=st.integers(0, 12),
        times=st.integers(1, 4),
        pick=which,
        page_limit=st.sampled_from([1, 2]),
    )
    def new_rows_shift_while_a_run_lists_them(
        self, change: str, nth: int, times: int, pick: int, page_limit: int
    ) -> None:
        """Only what the dataset does not know yet can be missed by a list: the head of it goes, or its tail jumps to the head."""
        history = self.history
        new = [history.start(history.world.run_tests[0], 3, is_finished=True) for _ in range(3)]

        def shift() -> None:
            living = [each for each in new if not each.is_deleted]
            calls = [calls for each in living if (calls := sandbox.listable_calls(each))]
            if change == "delete execution" and living:
                history.delete(living[-1])
            elif change == "delete call" and calls:
                sandbox.delete_call(calls[pick % len(calls)][0])
            elif change == "touch" and calls:
                sandbox.touch_call(calls[pick % len(calls)][-1], history.now)

        self._run(change=shift, nth_request=nth, times=times, page_limit=page_limit)

    @rule(
        change=st.sampled_from(
            ["finish", "rerun", "delete execution", "start", "late", "touch", "delete call", "poison"]
        ),
        nth=st.integers(0, 20),
        pick=which,
        page_limit=page_limits,
    )
    def source_changes_while_a_run_reads_it(self, change: str, nth: int, pick: int, page_limit: int) -> None:
        run_tests, among = self.history.world.run_tests, self.history.executions()

        def happen() -> None:
            match change.split():
                case ["start"]:
                    self.history.start(run_tests[pick % len(run_tests)], 2, is_finished=True)
                case ["finish" | "rerun" as kind] | ["delete" as kind, "execution"]:
                    self._change_execution(kind, pick, among)
                case [kind, *_]:
                    self._change_call(kind, pick, among)

        self._run(change=happen, nth_request=nth, page_limit=page_limit)

    def _run(self, **options: object) -> Summary | None:
        summary = self.history.run(**options)  # type: ignore[arg-type]
        note(f"# {'killed or nothing to export' if summary is None else (summary.exit_code, *summary.problems)}")
        return summary


def test_a_run_test_of_a_history_has_several_parts_and_a_part_several_executions(tmp_path: Path) -> None:
    """Else nothing here could go wrong between two of them."""
    history = History(tmp_path, seed=1, run_tests=1, executions=6, calls=2)
    try:
        history.run()
        places = [held.part.place for held in history.rows["executions"]]
        assert 1 < len(set(places)) < len(places)
    finally:
        history.close()


@pytest.mark.parametrize("table", ["calls", "evals"])
def test_history_whose_execution_runs_again_is_told_what_is_lost_of_it(tmp_path: Path, table: str) -> None:
    history = History(tmp_path, seed=1, run_tests=1, executions=3, calls=2)
    try:
        history.run(accept_deletions=True)
        history.rerun(history.executions(is_finished=True)[0])
        for path in [each for each in history.files.paths() if table in each.parts]:
            history.damage(path, None)
        codes = [summary.exit_code for _ in range(2) if (summary := history.run())]
        assert codes == [3, 3]
        assert history.torn
        history.settle()
    finally:
        history.close()


QUICK = [(2, 20, number) for number in (0, 5)]
FULL = [pytest.param(100, 50, number, marks=pytest.mark.slow) for number in range(100, 120)]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("examples", "steps", "number"), [*QUICK, *FULL])
def test_dataset_is_the_truth_after_any_history_and_sound_at_all_times(
    examples: int, steps: int, number: int, postgresql_if_installed: str
) -> None:
    """And so is the warehouse, after one load that nothing disturbs. With an odd number the settings say "all" run tests.

    In parts, for all processors to share; each has a seed of its own and is the same at every run.
    """
    members = {"postgresql_url": postgresql_if_installed, "is_all": bool(number % 2)}
    run_state_machine_as_test(
        seed(number)(type(f"Histories{number}", (Histories,), members)),
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
