"""Which final executions a run compares with the source again, so that none goes unseen for long: the sweep. Pure.

An even pace would compare the same number every night. A run takes, oldest comparison first, as many executions as are
needed so that an even pace brings the others in time: after a large first export a thirtieth a night, not all of them
after thirty days. Where it is behind, after a pause or in a dataset of an older version, it takes at most twice the
even pace. So this follows from the times alone, whatever ran when.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import accumulate

from etl.dataset.comparisons import Comparison
from etl.model.lifecycle import LONG_AGO, StoredExecution, unless_future

_NIGHT = timedelta(days=1)
"""The time from one run to the next: what is due before the next one is due now."""
_CATCHING_UP = 2
"""At most so many times the even pace."""
_NEVER = Comparison(LONG_AGO, "")
_REQUESTS = 2
"""What it takes to find that nothing has changed: two lists."""


def compared_at(known: StoredExecution, noted: datetime, now: datetime) -> datetime:
    """When it was fetched or compared last, by its row and by what earlier runs ``noted``; a time to come is wrong."""
    return max(unless_future(moment, now) or LONG_AGO for moment in (known.verified_at, noted))


def choose(
    final: Mapping[str, StoredExecution],
    compared: Mapping[str, Comparison],
    *,
    now: datetime,
    within: timedelta,
    most_requests: float,
    compares: bool,
) -> dict[str, str]:
    """The final executions to compare now, by id, so that all are ``within`` that time; none if that is zero.

    Each with the fingerprint that earlier runs noted, if any did (``compared``). What was compared together and lies
    together comes together. Without ``compares``, each call is fetched again.
    """
    noted = {key: compared.get(key, _NEVER) for key in final}
    times = {key: compared_at(known, noted[key].at, now) for key, known in final.items() if within}
    oldest_first = sorted(times, key=lambda key: (times[key], final[key].run_test_key, final[key].place, key))
    due = oldest_first[: _how_many([now - times[key] for key in oldest_first], within - _NIGHT)]
    spent = accumulate(_REQUESTS if compares else 1 + final[key].exported_calls for key in due)
    return {key: noted[key].fingerprint for key, requests in zip(due, spent, strict=True) if requests <= most_requests}


def _how_many(ages: list[timedelta], within: timedelta) -> int:
    """How many of them, from the oldest on, so that the rest is in time at an even pace."""
    total = len(ages)
    if within <= timedelta(0):
        return total
    # The one at this place must be among them if it is too old, or too near the end for its age.
    needed = (min(place, int(place - total * (1 - age / within))) for place, age in enumerate(ages, start=1))
    return max(0, min(max(needed, default=0), -int(-_CATCHING_UP * total // max(within / _NIGHT, 1))))
