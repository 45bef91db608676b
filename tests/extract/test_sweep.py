"""Everything that is final is compared in time, at an even pace, whatever came and went before."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from etl.dataset.comparisons import Comparison
from etl.extract.sweep import choose, compared_at
from etl.model.lifecycle import LONG_AGO
from tests.bundles import execution, stored_of
from tests.support import examples

NOW = datetime(2026, 3, 3, 2, tzinfo=UTC)
NIGHT = timedelta(days=1)
FIRST = NOW - 1_000 * NIGHT


def choice(times, *, now=NOW, days=30, most_requests=10**9, compares=True):
    """What is compared now of executions that were compared at these times; half of these are known from rows."""
    final = {each: stored_of(execution(each), run_test_key=each[:1], verified_at=at) for each, at in times.items()}
    noted = {each: Comparison(at, "said") for each, at in times.items() if hash(at) % 2}
    final |= {each: replace(final[each], verified_at=FIRST) for each in noted}
    within = timedelta(days=days)
    return choose(final, noted, now=now, within=within, most_requests=most_requests, compares=compares)


def chosen(ages, **options):
    """The places, by age, of those that are compared now."""
    return sorted(map(int, choice({f"{number:03}": NOW - age for number, age in enumerate(ages)}, **options)))


@settings(max_examples=examples(60))
@given(st.integers(2, 40), st.integers(0, 200), st.floats(0, 3), st.integers(0, 99))
def test_nothing_gets_older_than_it_may_and_no_night_takes_more_than_its_share(days, first, new, seed):
    """Executions become final at any rate, and nights begin a little early or late."""
    rng = random.Random(seed)
    now, last, most = NOW, {str(number): NOW for number in range(first)}, 0
    for night in range(3 * days):
        began, now = now, now + NIGHT * rng.uniform(0.9, 1)
        last |= {f"{night} {number}": began for number in range(int(rng.random() * 2 * new))}
        found = choice(last, now=now, days=days)
        most = max(most, len(found) - len(last) / max(days - 1, 1))
        last |= dict.fromkeys(found, now)
        assert all(now + NIGHT - at <= timedelta(days=days) for at in last.values())
    assert most <= 1, "an even pace, and one that falls due"


def test_after_a_pause_it_catches_up_at_twice_the_pace_the_oldest_first():
    ages = [timedelta(days=100 - number) for number in range(58)]
    assert chosen(ages) == [0, 1, 2, 3]
    assert chosen(ages, days=1) == chosen(ages, days=2) == [*range(58)]
    assert chosen([timedelta(0)] * 58, days=1) == [*range(58)]
    assert chosen([timedelta(hours=1)] * 58) == [], "runs of every hour"


def test_it_takes_no_more_requests_than_it_may():
    ages = [timedelta(days=100)] * 58
    assert chosen(ages, most_requests=7) == [0, 1, 2]
    assert chosen(ages, most_requests=7, compares=False) == [0, 1], "a list and two calls each"


def test_what_lies_together_comes_together():
    assert choice(dict.fromkeys(("a1", "b1", "a2", "b2"), FIRST), days=4, most_requests=4).keys() == {"a1", "a2"}


def test_the_newest_time_counts_that_is_not_to_come():
    known = stored_of(execution(), verified_at=NOW - NIGHT)
    assert compared_at(known, LONG_AGO, NOW) == NOW - NIGHT
    assert compared_at(known, NOW, NOW) == NOW
    assert compared_at(known, NOW + NIGHT, NOW) == NOW - NIGHT
    assert compared_at(stored_of(execution(), verified_at=None), LONG_AGO, NOW) == LONG_AGO
