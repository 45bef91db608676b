"""Tell histories: make their steps from a seed, play them, and make the one that fails as short as it can be.

A plain driver with seeds in place of hypothesis' state machine: it costs nothing beside the nights, each history is
told again by its number alone, and each has a mixture of its own, in which some rules never happen and others often do.

    python -m tests.machine --histories 300 --steps 30            # until one fails
    python -m tests.machine --seed 4711 --steps 30                # this one again, and what happens in it
    python -m tests.machine --seed 4711 --keep 3,4,9              # the same with these steps only, as a failure names
    them
"""

import gc
import random
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from tests.machine.driver import History, told
from tests.machine.expected.requests import assert_quiet
from tests.machine.oracle import judge
from tests.machine.rules import RULES, Rule
from tests.machine.source import SETTLE

_SHRINKING_SECONDS = 20.0
SWEEP_DAYS = 3
"""In so many nights, the sweep has compared everything."""
REAL = 16
"""One history of so many has real Parquet files."""


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    number: int

    @property
    def rule(self) -> Rule:
        return RULES[self.name][1]


@dataclass(frozen=True, slots=True)
class Failure:
    """A history that breaks a law: its seed, which of its steps it takes, what happens in them, and the law."""

    seed: int
    steps: int
    kept: tuple[int, ...]
    error: BaseException
    log: Sequence[str] = field(repr=False)

    @property
    def law(self) -> str:
        return str(self.error) or type(self.error).__name__

    def __str__(self) -> str:
        kept = ",".join(map(str, self.kept))
        lines = "\n".join(f"  {line}" for line in self.log)
        where = "".join(traceback.format_exception(self.error)[-3:])
        return (
            f"{self.law}\n\n{lines}\n\n{where}\nreplay: python -m tests.machine --seed {self.seed} "
            f"--steps {self.steps} --keep {kept or 'none'}"
        )


def steps_of(seed: int, number: int) -> list[Step]:
    """The steps of one history, all chances included: its mixture leaves some rules out and favours others."""
    rng = random.Random(f"steps {seed}")
    names = [name for name in RULES if name == "night" or rng.random() < 0.6]
    weights = [RULES[name][0] * rng.choice((0.5, 1, 2)) for name in names]
    return [Step(name, rng.randrange(1_000_000)) for name in rng.choices(names, weights, k=number)]


def play(
    seed: int, steps: Sequence[tuple[int, Step]], *, says: bool = False
) -> tuple[BaseException | None, list[str], int]:
    """What was wrong with this history, what happened in it, and how many nights it had."""
    with told(seed, judge, is_all=bool(seed % 2), has_real_files=not seed % REAL) as history:
        try:
            for index, step in steps:
                history.log.append(f"{index}: {step.name}")
                step.rule(history, random.Random(step.number))
            history.log.append("the end")
            end(history)
        except Exception as error:  # noqa: BLE001 whatever is raised breaks a law
            return error, history.log, history.nights
        finally:
            if says:
                print("\n".join(history.log))
        return None, history.log, history.nights


def end(history: History) -> None:
    """Faults end, everything finishes, and two nights pass: all is well, nobody is told anything. Then it is quiet."""
    history.source.calm_down()
    history.memory.healing.clear()
    for number, sweep_days in enumerate((0, 0, *[SWEEP_DAYS] * SWEEP_DAYS, 0, 0)):
        history.source.now += SETTLE if sweep_days else 2 * SETTLE
        last = history.night(accept_deletions=True, sweep_days=sweep_days)
        assert last is not None
        assert last.exit_code == 0 or number == 0, f"L9: nothing is wrong any more: {last}"
    assert last is not None
    listed = {each for each, name in history.source.listed().items() if name in last.names}
    assert not history.source.unseen & listed, "L8: the sweep has not seen everything"
    history.source.now += 2 * SETTLE
    last = history.night(sweep_days=0)
    assert last is not None
    assert last.exit_code == 0, f"L9: nothing is wrong any more: {last}"
    assert_quiet(history, last)


def shortened(failure: Failure) -> Failure:
    """The same law broken by fewer steps, as far as that is found in a minute."""
    all_steps, kept = steps_of(failure.seed, failure.steps), list(failure.kept)
    ends_at, size = time.monotonic() + _SHRINKING_SECONDS, max(1, len(kept) // 2)
    best, kind = failure, failure.law[:2]
    while size and time.monotonic() < ends_at:
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            error, log, _ = play(failure.seed, [(index, all_steps[index]) for index in fewer])
            if error is not None and (str(error) or type(error).__name__)[:2] == kind:
                kept, best = fewer, Failure(failure.seed, failure.steps, tuple(fewer), error, log)
                break
        else:
            size //= 2
    return best


def tell(seeds: Sequence[int], steps: int, *, shortens: bool = True) -> tuple[Failure | None, int]:
    """Play these histories until one breaks a law; the failure, and how many nights there were."""
    nights = 0
    gc.collect()
    gc.freeze()
    pa.set_cpu_count(1)  # to hand a few rows to other threads costs more than all that they do
    for seed in seeds:
        numbered = list(enumerate(steps_of(seed, steps)))
        error, log, count = play(seed, numbered)
        nights += count
        if error is not None:
            failure = Failure(seed, steps, tuple(range(steps)), error, log)
            return (shortened(failure) if shortens else failure), nights
    return None, nights
