"""How long requests wait for the quota, and when they do not. The gate's sleep only moves its clock: no test waits."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from etl.errors import SourceUnavailableError
from etl.extract import gate as module
from etl.extract.gate import Gate
from etl.extract.quota import Quota
from etl.extract.transport import Traffic


class Held:
    """A gate that is held for so many seconds; ``told`` is what ``on_hold`` heard, ``slept`` how long it slept."""

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept, self.told = 0.0, list[float]()
        self.now = asyncio.get_running_loop().time
        self.quota = Quota()
        self.quota.hold(self.now(), seconds)
        monkeypatch.setattr(module, "_sleep", self._sleep)
        self.gate = Gate(self.quota, Traffic(), self.told.append)
        monkeypatch.setattr(self.gate, "_now", lambda: self.now() + self.slept)

    async def _sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.mark.parametrize(("seconds", "told"), [(0, []), (4, []), (40, [40]), (3_600, [3_600])])
async def test_all_wait_until_the_hold_ends_and_a_long_one_is_told_once(
    seconds: float, told: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(seconds, monkeypatch)
    await asyncio.gather(*(held.gate.wait() for _ in range(3)))
    assert held.told == pytest.approx(told, abs=1)
    assert held.slept == pytest.approx(seconds, abs=1)


@pytest.mark.parametrize(("seconds", "run_seconds"), [(3_602, None), (86_000, None), (80, 60), (80, 0), (1, -1)])
async def test_nobody_waits_for_more_than_an_hour_or_beyond_the_end_of_the_run(
    seconds: float, run_seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(seconds, monkeypatch)
    if run_seconds is not None:
        held.gate.run_ends_at = held.now() + run_seconds
    ends = await asyncio.gather(*(held.gate.wait() for _ in range(3)), return_exceptions=True)
    assert [type(end) for end in ends] == 3 * [SourceUnavailableError]
    assert (held.told, held.slept) == ([], 0)

    said = str(ends[0]).removeprefix("the API allows no request until ").removesuffix(". Run again then")
    said, _, setting = said.partition(", which is after the end of [export] ")
    assert setting == ("" if run_seconds is None else "max_runtime_minutes")
    moment = datetime.strptime(said, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
    late = moment - datetime.now(UTC) - timedelta(seconds=seconds)
    assert -timedelta(minutes=1) < late <= timedelta(minutes=1)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_refusals_in_a_row_are_borne_for_an_hour_in_all(
    monkeypatch: pytest.MonkeyPatch, *, is_answered: bool
) -> None:
    held = Held(2_000, monkeypatch)
    held.gate.note_refusal()
    await held.gate.wait()
    if is_answered:
        held.gate.note_useful_answer()
    held.quota.hold(held.now() + held.slept, 2_000)
    held.gate.note_refusal()
    ends = await asyncio.gather(held.gate.wait(), return_exceptions=True)
    assert [type(end) for end in ends] == [type(None) if is_answered else SourceUnavailableError]
    assert held.slept == pytest.approx(4_000 if is_answered else 2_000, abs=1)
