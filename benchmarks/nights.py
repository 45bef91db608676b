"""How often the nightly verdict is wrong, and how soon it is right: ``python -m benchmarks.nights [--quick]``.

Unchanged run tests are judged every night of a year, to count what is called worse; changed ones, to count nights until
the first alarm. A night has 30 calls of 10 scenarios; within a scenario, latencies have a gamma distribution. Nights
differ by more than their calls: by the day (autocorrelated), by the weekday, and by a slow drift. Beside, calls hang,
nights fail, and scenarios come and go. Seeded; the full form writes a table of decision 12.
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
from etl.compare.nights import Alarm, figures_of_nights, find_alarms, threshold
from etl.compare.statistics import Sample
from etl.model.metrics import Statistic

RUN_TESTS = 50
CALLS = 30
SCENARIOS = 10
YEARS = 20
CHANGES = 400
METRICS = {
    "latency_mean": Statistic.MEAN,
    "cost_mean": Statistic.MEAN,
    "eval_…_pass_rate": Statistic.RATE,
    "failure_rate": Statistic.RATE,
}
CHANGED = {
    "20% slower": ("latency_mean", math.log(1.2)),
    "10% slower": ("latency_mean", math.log(1.1)),
    "pass rate 90% to 80%": ("eval_…_pass_rate", 0.10),
    "pass rate 90% to 75%": ("eval_…_pass_rate", 0.15),
}
"""What changes, and by how much: a logarithm of a latency, or a share of the outputs."""
_SPREAD, _EXPLAINED = 0.45, 0.6
"""The standard deviation of the logarithm of latencies, and the share of its variance that scenarios explain."""
_RATES = {"eval_…_pass_rate": 0.1, "failure_rate": 0.03}
_MEANS = {"latency_mean": 1.5, "cost_mean": 0.1}
_HANGS = 60.0
"""How long a call hangs, in seconds."""
_BROKEN = 0.7
"""The share of a night's calls that an outage breaks."""
_BEFORE = 56
"""How many nights there are before a change, or before the year in which false alarms are counted."""
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
    outages: float = 0.0
    """The share of nights in which most calls fail or, in half of the run tests, hang."""
    outage_at: int | None = None
    """A night of such an outage."""
    hung: float = 0.0
    """The share of calls that hang."""
    has_one_hung: bool = False
    """Whether one call hangs in all nights before the change."""
    is_unequal: bool = False
    """Whether nights have 5 to 55 calls, of any scenarios."""
    replaced: float = 0.0
    """The share of scenarios that another one replaces each night."""

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
    World("calls alone differ", day=0.0, week=0.0, drift=0.0),
    World("usual: days of 3%, weekdays of 2%, drift of 5% a year"),
    World("each day much like the one before", correlation=0.6),
    World("days of 5%, weekdays of 4%", day=0.05, week=0.04),
    World("days of 8%, weekdays of 5%", day=0.08, week=0.05),
    World("weekdays of 10%", week=0.1),
    World("0.5% of calls hang", hung=0.005),
    World("one call has hung", has_one_hung=True),
    World("outage two weeks before", outage_at=_BEFORE - 14),
    World("outage every 60 nights", outages=1 / 60),
    World("5 to 55 calls a night", is_unequal=True),
    World("scenarios last for 30 nights", replaced=1 / 30),
)
USUAL = WORLDS[1]


def sample(
    rng: np.random.Generator, metric: str, levels: Values, world: World = USUAL, by: float = 0.0, changed_at: int = 0
) -> Sample:
    """The calls of so many nights; from ``changed_at`` on they are worse ``by`` that much."""
    nights = len(levels)
    calls = rng.integers(5, 56, nights) if world.is_unequal else np.full(nights, CALLS)
    of_nights = np.repeat(np.arange(nights), calls)
    scenarios = (
        rng.integers(0, SCENARIOS, len(of_nights)) if world.is_unequal else np.arange(len(of_nights)) % SCENARIOS
    )
    if world.replaced:
        generations = np.cumsum(rng.random((nights, SCENARIOS)) < world.replaced, axis=0)
        scenarios = scenarios + SCENARIOS * generations[of_nights, scenarios]
    worse = np.where(of_nights >= changed_at, by, 0.0)
    is_outage = (rng.random(nights) < world.outages) | (np.arange(nights) == world.outage_at)
    is_broken = is_outage[of_nights] & (rng.random(len(of_nights)) < _BROKEN)
    if metric in _RATES:
        odds = math.log(_RATES[metric] / (1 - _RATES[metric])) + 2 * levels[of_nights]
        odds += rng.normal(0, 0.5, scenarios.max() + 1)[scenarios]
        has_failed = is_broken | (rng.random(len(odds)) < 1 / (1 + np.exp(-odds)) + worse)
        values = (has_failed if metric == "failure_rate" else ~has_failed).astype(np.float64)
        return Sample(values, of_nights, scenarios)
    explained = _EXPLAINED if metric == "latency_mean" else 0.0
    variance = _SPREAD**2 * (1 - explained)
    of_scenarios = rng.normal(0, _SPREAD * math.sqrt(explained), scenarios.max() + 1)[scenarios]
    values = _MEANS[metric] * np.exp(of_scenarios + levels[of_nights] + worse)
    values *= rng.gamma(1 / variance, variance, len(values))
    hangs, has_ended = np.zeros(len(values), dtype=bool), ~is_broken
    if metric == "latency_mean":
        hangs = rng.random(len(values)) < world.hung
        hangs[: world.has_one_hung] = True
        if rng.random() < 0.5:
            hangs, has_ended = hangs | is_broken, np.ones(len(values), dtype=bool)
    return Sample(np.where(hangs, _HANGS, values), of_nights, scenarios).only(has_ended)


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
            made = sample(rng, metric, world.levels(rng, _BEFORE + 365), world)
            told[metric] += sum(alarm.told_at >= _BEFORE for alarm in alarms(made, metric, limit_of()))
    return {metric: count / years for metric, count in told.items()}


def delays(world: World, changed: str, *, changes: int) -> list[float]:
    """After how many nights each change is told, the first being 1; infinite when it is not within four weeks."""
    rng = np.random.default_rng(14)
    metric, by = CHANGED[changed]
    found = []
    for _ in range(changes):
        made = sample(rng, metric, world.levels(rng, _BEFORE + 28), world, by, changed_at=_BEFORE)
        told = (alarm.told_at - _BEFORE + 1 for alarm in alarms(made, metric, limit_of()))
        found.append(float(next((each for each in told if each > 0), math.inf)))
    return found


def _row(world: World, years: int, changes: int) -> list[str]:
    told = sum(false_alarms(world, years=years).values())
    found = [delays(world, changed, changes=changes) for changed in CHANGED]
    nights = [f"{np.median(each):g} ({np.mean(np.isinf(each)) * 100:.0f}%)" for each in found]
    return [world.name, f"{told:.1f}", *(each.replace("inf", "29+") for each in nights)]


def nights_table(*, years: int, changes: int) -> str:
    """The table of the document."""
    with ProcessPoolExecutor() as workers:
        rows = list(workers.map(_row, WORLDS, repeat(years), repeat(changes)))
    return table(["nights", "false alarms a year", *CHANGED], rows)


def main() -> None:
    """Simulate, print, and write the table into the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nights", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 years; writes nothing")
    is_quick = parser.parse_args().quick
    made = nights_table(years=2 if is_quick else YEARS, changes=50 if is_quick else CHANGES)
    print(made)
    if not is_quick:
        publish(ROOT / "docs" / "decisions" / "0012-one-false-alarm-a-year.md", {"nights of compare": made})


if __name__ == "__main__":
    main()
