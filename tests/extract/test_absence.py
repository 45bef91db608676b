"""What is missing from a list is asked for by its id: that decides, and as little is asked as decides it."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.errors import KeyRefusedError, NotFoundError, SourceError
from etl.extract.absence import decide, look_up_ids
from tests.support import examples

ANSWERS = st.sampled_from(["not found", "not found", "elsewhere", "unknown", "exists"])


class Source:
    """Answers as it is told, each after so many turns of the loop."""

    def __init__(self, answers: dict[str, tuple[str, int]]) -> None:
        self.answers = answers
        self.asked: Counter[str] = Counter()
        self.answered_existing = 0
        self.asked_after_that = 0
        self.under_way = self.most_under_way = 0

    async def exists(self, each: str) -> bool:
        self.asked[each] += 1
        self.asked_after_that += self.answered_existing
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        answer, turns = self.answers[each]
        for _ in range(turns):
            await asyncio.sleep(0)
        self.under_way -= 1
        if answer == "not found":
            raise NotFoundError(f"{each}: not found")
        if answer == "unknown":
            raise SourceError(f"{each}: 500", status=500)
        self.answered_existing |= answer == "exists"
        return answer == "exists"


@settings(max_examples=examples(1000))
@given(st.lists(st.tuples(ANSWERS, st.integers(0, 4)), max_size=12), st.integers(1, 5))
def test_what_does_not_exist_is_marked_unless_one_exists(told, workers):
    source = Source({f"id-{number:02}": answer for number, answer in enumerate(told)})
    answers = asyncio.run(look_up_ids(source.exists, source.answers.keys(), workers=workers))
    of = {kind: {each for each, (answer, _) in source.answers.items() if answer == kind} for kind, _ in told}
    absent, unknown, alive = (
        of.get("not found", set()) | of.get("elsewhere", set()),
        of.get("unknown", set()),
        of.get("exists", set()),
    )
    assert answers.gone <= absent
    assert answers.alive <= alive
    assert answers.unknown.keys() <= unknown
    assert decide(answers) == (frozenset() if alive else absent)
    assert bool(answers.alive) is bool(alive), "one that exists is never overlooked"
    if not alive:
        assert (set(answers.gone), set(answers.unknown)) == (absent, unknown)
    assert set(source.asked.values()) <= {1}
    assert source.asked_after_that == 0, "the others do not matter any more"
    assert source.most_under_way <= workers


async def test_error_that_ends_the_run_comes_through():
    async def exists(_each: str) -> bool:
        raise KeyRefusedError("401")

    with pytest.raises(ExceptionGroup) as caught:
        await look_up_ids(exists, ["a", "b"], workers=2)
    assert {type(error) for error in caught.value.exceptions} == {KeyRefusedError}
