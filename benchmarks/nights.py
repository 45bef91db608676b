"""How often the nightly verdict is wrong, and how soon it is right: ``python -m benchmarks.nights [--quick]``.

Unchanged run tests are judged every night of a year, to count what is called worse; changed ones, to count nights until
the first alarm. A night has 30 calls, of 10 scenarios that explain 60% of the variance of the logarithm of the latency.
Nights differ by more than their calls: by the day (autocorrelated), by the weekday, and by a slow drift. Seeded; the
full form writes a table of docs/compare.md.
"""

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt

from benchmarks.document import publish
from benchmarks.measure import ROOT, table
from etl.compare.nights import NIGHTS_BEFORE, Alarm, figures_of_nights, find_alarms, threshold
from etl.compare.statistics import Sample
from etl.model.metrics import Statistic

RUN_TESTS = 50
CALLS = 30
SCENARIOS = 10
YEARS = 200
CHANGES = 400
METRICS = {
    "latency_mean": Statistic.MEAN,
    "cost_mean": Statistic.MEAN,
    "eval_…_pass_rate": Statistic.RATE,
    "failure_rate": Statistic.RATE,
}
CHANGED = {"latency_mean": math.log(1.2), "eval_…_pass_rate": 0.15}
"""20% slower; from 90% that pass to 75%."""
_SPREAD, _EXPLAINED = 0.45, 0.6
_RATES = {"eval_…_pass_rate": 0.1, "failure_rate": 0.03}
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """How nights differ from each other."""

    name: str
    day: float = 0.03
    """Standard deviation of days."""
    correlation: float = 0.2
    """Of a day with the next."""
    week: float = 0.02
    """Standard deviation of weekdays."""
    drift: float = 0.05
    """In a year."""

    def levels(self, rng: np.random.Generator, nights: int) -> Values:
        """The logarithm of how much each night differs."""
        shocks = rng.normal(0, self.day * math.sqrt(1 - self.correlation**2), nights)
        level = rng.normal(0, self.day)
        levels = np.empty(nights)
        for night, shock in enumerate(shocks):
            level = self.correlation * level + shock
            levels[night] = level
        weekdays = rng.normal(0, self.week, 7)[np.arange(nights) % 7]
        drift = rng.choice([-1, 0, 1]) * self.drift * np.arange(nights) / 365
        return np.asarray(levels + weekdays + drift)


WORLDS = (
    World("nights that differ by their calls alone", day=0.0, week=0.0, drift=0.0),
    World("days of 3%, weekdays of 2%, a drift of 5% a year"),
    World("the same, and each day much like the one before", correlation=0.6),
    World("days of 5%, weekdays of 4%", day=0.05, week=0.04),
    World("days of 8%, weekdays of 5%", day=0.08, week=0.05),
)
USUAL = WORLDS[1]


def sample(rng: np.random.Generator, metric: str, levels: Values, *, changed_at: int | None = None) -> Sample:
    """The calls of so many nights, which a change makes worse from one of them on."""
    nights = len(levels)
    by = np.where(np.arange(nights) >= (nights if changed_at is None else changed_at), CHANGED.get(metric, 0.0), 0.0)
    scenarios = np.tile(np.arange(SCENARIOS), nights * CALLS // SCENARIOS)
    of_nights = np.repeat(np.arange(nights), CALLS)
    if metric in _RATES:
        odds = (
            math.log(_RATES[metric] / (1 - _RATES[metric]))
            + 2 * levels[of_nights]
            + rng.normal(0, 0.5, SCENARIOS)[scenarios]
        )
        has_failed = rng.random(len(odds)) < 1 / (1 + np.exp(-odds)) + by[of_nights]
        values = (has_failed if metric == "failure_rate" else ~has_failed).astype(np.float64)
    else:
        explained = _EXPLAINED if metric == "latency_mean" else 0.0
        means = rng.normal(0, _SPREAD * math.sqrt(explained), SCENARIOS)[scenarios] + (levels + by)[of_nights]
        values = np.exp(means + rng.normal(0, _SPREAD * math.sqrt(1 - explained), len(means)))
    return Sample(values, of_nights, scenarios)


def alarms(made: Sample, metric: str, limit: float) -> list[Alarm]:
    """Those of all nights."""
    figures, variances = figures_of_nights(made, METRICS[metric])
    return find_alarms(-figures if metric == "eval_…_pass_rate" else figures, variances, limit)


def limit_of(run_tests: int = RUN_TESTS) -> float:
    """The threshold for one false alarm a year over all run tests and metrics."""
    return threshold(run_tests * len(METRICS), false_alarms_per_year=1.0)


def false_alarms(world: World, *, years: int) -> dict[str, float]:
    """How many a year, by metric, in all run tests."""
    rng = np.random.default_rng(41)
    told = dict.fromkeys(METRICS, 0)
    for _ in range(years * RUN_TESTS):
        for metric in METRICS:
            made = sample(rng, metric, world.levels(rng, NIGHTS_BEFORE + 365))
            told[metric] += sum(alarm.told_at >= NIGHTS_BEFORE for alarm in alarms(made, metric, limit_of()))
    return {metric: count / years for metric, count in told.items()}


def delays(world: World, metric: str, *, changes: int) -> list[float]:
    """After how many nights each change is told, the first being 1; infinite when it is not within four weeks."""
    rng = np.random.default_rng(14)
    found = []
    for _ in range(changes):
        made = sample(rng, metric, world.levels(rng, NIGHTS_BEFORE + 28), changed_at=NIGHTS_BEFORE)
        told = (alarm.told_at - NIGHTS_BEFORE + 1 for alarm in alarms(made, metric, limit_of()))
        found.append(float(next((each for each in told if each > 0), math.inf)))
    return found


def _row(world: World, years: int, changes: int) -> list[str]:
    told = sum(false_alarms(world, years=years).values())
    found = [delays(world, metric, changes=changes) for metric in CHANGED]
    nights = [f"{np.median(each):g} ({np.mean(np.array(each) <= 28) * 100:.0f}%)" for each in found]
    return [world.name, f"{told:.2f}", *nights]


def nights_table(*, years: int, changes: int) -> str:
    """The table of the document."""
    with ProcessPoolExecutor() as workers:
        rows = list(workers.map(_row, WORLDS, repeat(years), repeat(changes)))
    header = ["nights", "false alarms a year", "20% slower: nights (found)", "pass rate 90% to 75%: nights (found)"]
    return table(header, rows)


def main() -> None:
    """Simulate, print, and write the table into the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nights", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 years; writes nothing")
    is_quick = parser.parse_args().quick
    made = nights_table(years=2 if is_quick else YEARS, changes=50 if is_quick else CHANGES)
    print(made)
    if not is_quick:
        publish(ROOT / "docs" / "compare.md", {"nights of compare": made})


if __name__ == "__main__":
    main()
