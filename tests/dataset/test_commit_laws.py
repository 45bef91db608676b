"""After any nights, each of which may be killed at any write and repeated, the dataset is what a dictionary says."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bundles import a_bundle, an_unlisted_bundle
from tests.dataset.killed import killed_before
from tests.datasets import a_dataset, assert_sound, export_to, part, stored_in
from tests.support import examples

START = datetime(2026, 8, 1, 12, tzinfo=UTC)  # hours after their end: nothing is final yet


@dataclass(frozen=True)
class Fetched:
    """What a night brings of one execution: of each call of its list whether it was fetched, kept or given up."""

    execution_id: str
    seconds: float
    listed: dict[str, str] | None
    bare: frozenset[str]
    deleted: frozenset[str]
    is_proved: bool
    part_of: int | None

    def bundle(self):
        if self.listed is None:
            return an_unlisted_bundle(self.execution_id, is_given_up=not self.is_proved)
        given_up = self.calls("given up")
        bundle = a_bundle(
            self.execution_id, sorted(self.listed), seconds=self.seconds, given_up=given_up, is_proved=self.is_proved
        )
        for call in bundle.listed or ():
            if call.call_execution_id in self.bare:
                call.payload["eval_outputs"] = None
        calls = tuple(each for each in bundle.calls if self.listed[each.listed.call_execution_id] == "fetched")
        return msgspec.structs.replace(
            bundle, calls=calls, kept=self.calls("kept"), deleted=self.deleted, part_of=self.part_of
        )

    def calls(self, fate):
        return frozenset(call_id for call_id, each in (self.listed or {}).items() if each == fate)


@dataclass
class Model:
    """Calls and evals by id, each a value and whether it is marked; dead letters by execution; states."""

    calls: dict[tuple[str, str], tuple[float, bool]] = field(default_factory=dict)
    evals: dict[tuple[str, str], tuple[float, bool]] = field(default_factory=dict)
    letters: dict[str, set[str]] = field(default_factory=dict)
    executions: dict[str, tuple[str, int | None, int]] = field(default_factory=dict)

    def take(self, night):
        e, listed = night.execution_id, night.listed or {}
        for call_id, fate in listed.items():
            known = self.calls.get((e, call_id))
            if fate == "fetched":
                self.calls[e, call_id] = (night.seconds, False)
            elif known:
                self.calls[e, call_id] = (known[0], False)
            if call_id not in night.bare:
                self.evals[e, call_id] = (night.seconds, False)
        for rows, gone in ((self.calls, night.deleted), (self.evals, night.deleted | (night.bare & listed.keys()))):
            rows.update({(e, each): (rows[e, each][0], True) for each in gone if (e, each) in rows})
        in_doubt = night.listed is None or not night.is_proved or night.part_of is not None
        kept = {each for each in self.letters.get(e, ()) if in_doubt and each != e and each not in listed}
        self.letters[e] = kept | night.calls("given up") | (set() if night.is_proved else {e})
        living = sum(each == e and not is_deleted for (each, _), (_, is_deleted) in self.calls.items())
        told = night.part_of or len(listed) or (0 if night.is_proved else None)
        if night.listed is None:
            told = self.executions[e][1] if e in self.executions else None
        is_whole = night.is_proved and not night.calls("given up") and night.part_of is None
        if night.listed is not None and living != len(listed):
            is_whole = False
        state = "incomplete" if not is_whole else "waiting" if night.listed is None else "settling"
        self.executions[e] = (state, told, living)


ids = [f"c{number}" for number in range(3)]


@st.composite
def nights(draw):
    execution_id = draw(st.sampled_from(["e1", "e2"]))
    fates = st.sampled_from(["fetched"] * 4 + ["kept", "given up"])
    listed = draw(st.none() | st.dictionaries(st.sampled_from(ids), fates))
    own = None if listed is None else {f"{execution_id}-{call_id}": fate for call_id, fate in listed.items()}
    others = sorted({f"{execution_id}-{each}" for each in ids} - (own or {}).keys())
    return Fetched(
        execution_id=execution_id,
        seconds=draw(st.sampled_from([1.0, 2.0])),
        listed=own,
        bare=draw(st.frozensets(st.sampled_from(sorted(own)))) if own else frozenset(),
        deleted=draw(st.frozensets(st.sampled_from(others))) if own is not None and others else frozenset(),
        is_proved=draw(st.sampled_from([True, True, False])),
        part_of=draw(st.sampled_from([None, None, 9])) if own else None,
    )


@settings(max_examples=examples(64))
@given(
    history=st.lists(
        st.tuples(st.lists(nights(), unique_by=lambda each: each.execution_id, min_size=1), st.integers(0, 5)),
        max_size=4,
    )
)
def test_dataset_holds_what_a_dictionary_says_after_any_nights_and_kills(tmp_path_factory, history):
    root = tmp_path_factory.mktemp("dataset")
    dataset, model = a_dataset(root, compression="none"), Model()
    before = assert_sound(root)
    for number, (night, kill_at) in enumerate(history):
        at, run = START + timedelta(minutes=number), f"run-{number}"
        killed_at = {"run": f"killed-{number}", "fetched_at": at - timedelta(seconds=30)}
        with killed_before(kill_at):
            export_to(dataset, *(each.bundle() for each in night), **killed_at)
        export_to(dataset, *(each.bundle() for each in night), run=run, fetched_at=at)
        for each in night:
            model.take(each)
        now = assert_sound(root)
        assert_is(model, dataset, now)
        assert_stamped(before, now, {f"killed-{number}", run})
        before = now
        export_to(dataset, *(each.bundle() for each in night), run="again", fetched_at=at)
        is_unfinished = any(each.part_of or each.calls("given up") or not each.is_proved for each in night)
        told_again = ["errors"] + ["calls", "executions"] * is_unfinished
        assert dataset.receipt.written.keys() <= {part(table) for table in told_again}, "nothing new writes nothing"
        before = {**assert_sound(root), "errors": {}}


def assert_is(model, dataset, now):
    """The rows are those of the model, and their execution rows mark them complete."""
    for table, value, expected in (("calls", "duration_seconds", model.calls), ("evals", "output_score", model.evals)):
        found = {
            (row["execution_id"], row["call_execution_id"]): (row[value], row["deleted_at"] is not None)
            for row in now[table].values()
        }
        assert found == expected, table
    letters: dict[str, set[str]] = {each: set() for each in model.letters}
    for row in now["errors"].values():
        letters[row["execution_id"]].add(row["subject_id"])
    assert letters == model.letters
    told = ("export_state", "listed_calls", "exported_calls")
    assert {key: tuple(row[name] for name in told) for (key,), row in now["executions"].items()} == model.executions
    assert not any(each.is_damaged for each in stored_in(dataset).values())


def assert_stamped(before, now, runs):
    """What changed is of this run, with the row of its execution; what did not is as it was."""
    changed = set()
    for table in ("calls", "evals"):
        for key, row in now[table].items():
            is_same = row == before[table].get(key)
            assert is_same or row["export_run_id"] in runs
            changed |= set() if is_same else {row["execution_id"]}
    for (key,), row in now["executions"].items():
        assert key not in changed or row["export_run_id"] in runs
