"""How often ``metrics-etl compare`` is wrong: ``python -m benchmarks.regressions [--quick]``.

Two samples of made-up calls are compared, thousands of times, with no difference between the agents and with a
regression of 20%. The calls are like the sandbox's: log-normal latencies, costs in whole cents, an eval that nine calls
of ten pass. Then with scenarios, of which some are slower; and with slow days. Seeded; the full form writes the tables
of decision 11.
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.document import publish
from benchmarks.measure import ROOT, table
from etl.compare.estimate import difference
from etl.compare.statistics import FEWEST, Outcome, Sample, Values, Verdict
from etl.model.metrics import Limit, Statistic

SIZES = (25, 50, 100, 200, 400, 800)
COMPARISONS = 2000
EXECUTIONS = ((1, 1), (5, 1), (10, 1), (20, 1), (28, 2), (5, 5), (10, 10), (20, 20))
CALLS = 25
REGRESSION = 0.2
LIMIT = Limit(0.1, is_relative=True)
_SPREAD, _EXPLAINED = 0.45, 0.6
ANY = "any of them"
_METRICS = {
    "latency_p50": ("latency", Statistic.MEDIAN, True),
    "latency_p95": ("latency", Statistic.P95, True),
    "latency_mean": ("latency", Statistic.MEAN, True),
    "cost_mean": ("cost", Statistic.MEAN, True),
    "eval_…_pass_rate": ("passed", Statistic.RATE, False),
}
_OF_SCENARIOS = ("latency_mean", "latency_p50", "eval_…_pass_rate")


@dataclass(frozen=True, slots=True)
class Chances:
    """Shares of the comparisons: "worse" and a limit of 10% exceeded without a regression, neither of them with one."""

    false_alarms: float
    misses: float
    false_alarms_of_limit: float
    misses_of_limit: float


def chances(size: int, *, comparisons: int) -> dict[str, Chances]:
    """By metric, with so many calls on each side; and for all of the metrics together."""
    rng = np.random.default_rng(size)
    same = _alarms(rng, size, comparisons, 0.0)
    worse = _alarms(rng, size, comparisons, REGRESSION)
    return {
        name: Chances(
            same["worse", name] / comparisons,
            1 - worse["worse", name] / comparisons,
            same["limit", name] / comparisons,
            1 - worse["limit", name] / comparisons,
        )
        for name in (*_METRICS, ANY)
    }


def _alarms(rng: np.random.Generator, size: int, comparisons: int, regression: float) -> Counter[tuple[str, str]]:
    """How often a metric was called worse, and how often it was beyond the limit."""
    alarms: Counter[tuple[str, str]] = Counter()
    for _ in range(comparisons):
        before, after = _calls(rng, size, 0.0), _calls(rng, size, regression)
        found = {
            name: difference(before[column], after[column], statistic, is_higher_worse=is_higher_worse)
            for name, (column, statistic, is_higher_worse) in _METRICS.items()
        }
        told = {
            "worse": [name for name, each in found.items() if each.verdict is Verdict.WORSE],
            "limit": [name for name, each in found.items() if each.against(LIMIT) is Outcome.EXCEEDED],
        }
        for kind, names in told.items():
            alarms.update((kind, name) for name in names)
            alarms[kind, ANY] += bool(names)
    return alarms


def _calls(rng: np.random.Generator, size: int, regression: float) -> Mapping[str, Sample]:
    values = {
        "latency": rng.lognormal(np.log(1150), 0.28, size) * (1 + regression),
        "cost": np.round(rng.lognormal(np.log(17), 0.5, size) * (1 + regression)),
        "passed": (rng.random(size) < 0.9 * (1 - regression)).astype(np.float64),
    }
    return {name: Sample.of(each) for name, each in values.items()}


@dataclass(frozen=True, slots=True)
class ScenarioWorld:
    """So many calls of each of some scenarios, which explain 60% of the variance of the logarithm of the latency."""

    scenarios: int
    calls: int

    def sides(
        self, rng: np.random.Generator, regression: float, *, is_mix_shifted: bool
    ) -> dict[str, tuple[Sample, Sample]]:
        """Baseline and candidate, by ``latency`` and ``passed``.

        A candidate whose mix is shifted has additional calls of a slow scenario.
        """
        levels = rng.normal(0, _SPREAD * np.sqrt(_EXPLAINED), self.scenarios)
        passing = 1 / (1 + np.exp(-rng.normal(np.log(9), 1, self.scenarios)))
        levels[0] = np.log(1.5) if is_mix_shifted else levels[0]
        played = np.repeat(np.arange(self.scenarios), self.calls)
        more = np.zeros(len(played) * is_mix_shifted, dtype=np.int64)
        made = []
        for scenarios, by in ((played, 0.0), (np.concatenate([played, more]), regression)):
            noise = rng.normal(0, _SPREAD * np.sqrt(1 - _EXPLAINED), len(scenarios))
            latency = 1150 * (1 + by) * np.exp(levels[scenarios] + noise)
            passed = (rng.random(len(scenarios)) < passing[scenarios] * (1 - by)).astype(np.float64)
            made.append(
                {"latency": Sample.of(latency, scenarios=scenarios), "passed": Sample.of(passed, scenarios=scenarios)}
            )
        return {column: (made[0][column], made[1][column]) for column in ("latency", "passed")}


def scenario_alarms(
    world: ScenarioWorld, regression: float, *, comparisons: int, is_paired: bool = True, is_mix_shifted: bool = False
) -> dict[str, tuple[float, float]]:
    """Shares of "worse" and of a limit of 10% exceeded, by metric."""
    rng = np.random.default_rng(world.scenarios)
    told = {name: [0, 0] for name in _OF_SCENARIOS}
    for _ in range(comparisons):
        sides = world.sides(rng, regression, is_mix_shifted=is_mix_shifted)
        for name in _OF_SCENARIOS:
            column, statistic, is_higher_worse = _METRICS[name]
            before, after = sides[column] if is_paired else (Sample.of(each.values) for each in sides[column])
            found = difference(before, after, statistic, is_higher_worse=is_higher_worse)
            told[name][0] += found.verdict is Verdict.WORSE
            told[name][1] += found.against(LIMIT) is Outcome.EXCEEDED
    return {name: (worse / comparisons, beyond / comparisons) for name, (worse, beyond) in told.items()}


def _scenario_table(*, comparisons: int) -> str:
    rows = []
    for world in WORLDS:
        pooled, paired = (
            scenario_alarms(world, REGRESSION, comparisons=comparisons, is_paired=each) for each in (False, True)
        )
        same = scenario_alarms(world, 0.0, comparisons=comparisons)
        shifted, mixed = (
            scenario_alarms(world, 0.0, comparisons=comparisons, is_paired=each, is_mix_shifted=True)
            for each in (False, True)
        )
        rows += [
            [
                f"{world.scenarios} x {world.calls}",
                name,
                f"{_percent(1 - pooled[name][1])}, {_percent(1 - paired[name][1])}",
                _percent(same[name][0]),
                f"{_percent(shifted[name][1])}, {_percent(mixed[name][1])}",
            ]
            for name in _OF_SCENARIOS
        ]
    header = [
        "scenarios x calls",
        "metric",
        "missed by a limit of 10%: together, by scenario",
        'unchanged, but "worse"',
        "unchanged, more calls of a slow scenario, limit fails: together, by scenario",
    ]
    return table(header, rows)


def day_alarms(baseline: int, candidate: int, *, comparisons: int) -> tuple[float, float]:
    """Shares of false alarms about mean latency, "worse" and beyond the limit, with slow and quick days.

    It makes all of its calls slower or quicker alike, by 10% (standard deviation). Each execution plays all scenarios
    once.
    """
    rng = np.random.default_rng(baseline)
    worse = beyond = 0
    for _ in range(comparisons):
        levels = rng.normal(0, _SPREAD * np.sqrt(_EXPLAINED), CALLS)
        before, after = (
            Sample(
                np.exp(
                    levels
                    + rng.normal(0, _SPREAD * np.sqrt(1 - _EXPLAINED), (count, CALLS))
                    + rng.normal(0, 0.1, (count, 1))
                ).ravel(),
                np.repeat(np.arange(count), CALLS),
                np.tile(np.arange(CALLS), count),
            )
            for count in (baseline, candidate)
        )
        found = difference(before, after, Statistic.MEAN, is_higher_worse=True)
        worse += found.verdict is Verdict.WORSE
        beyond += found.against(LIMIT) is Outcome.EXCEEDED
    return worse / comparisons, beyond / comparisons


GATE_LIMITS = {
    "latency_mean": (Statistic.MEAN, True, LIMIT),
    "latency_p50": (Statistic.MEDIAN, True, LIMIT),
    "cost_mean": (Statistic.MEAN, True, LIMIT),
    "csat_mean": (Statistic.MEAN, False, LIMIT),
    "failure_rate": (Statistic.RATE, True, Limit(0.05, is_relative=False)),
    "eval_…_pass_rate": (Statistic.RATE, False, LIMIT),
}
GATES = ((14, 1, 0.0), (14, 1, 0.03), (14, 1, 0.05), (28, 1, 0.05), (14, 1, 0.08), (28, 2, 0.08))
"""Nights of the baseline and of the candidate, and by how much nights differ: a standard deviation."""


def _gated_calls(
    rng: np.random.Generator, scenarios: Mapping[str, Values], nights: int, spread: float, by: float
) -> dict[str, Sample]:
    """The calls of one side by the metrics of ``GATE_LIMITS``: so many nights of 25 scenarios, each played 4 times.

    Values within a scenario have a gamma distribution; a night makes all of its calls slower and dearer alike.
    """
    played = np.tile(np.repeat(np.arange(CALLS), 4), nights)
    night = np.repeat(np.arange(nights), CALLS * 4)

    def drawn(name: str, variation: float) -> Values:
        level = scenarios[name][played] * np.exp(rng.normal(0, spread, nights))[night]
        return level * (1 + by) * rng.gamma(variation**-2, variation**2, len(played))

    odds = scenarios["passing"][played] + rng.normal(0, 5 * spread, nights)[night]
    latency, cost = drawn("latency", 0.28), np.round(drawn("cost", 0.35))
    values = {
        "latency_mean": latency,
        "latency_p50": latency,
        "cost_mean": cost,
        "csat_mean": np.clip((1 - by) * (scenarios["csat"][played] + rng.normal(0, 1.2, len(played))), 0, 10),
        "failure_rate": rng.random(len(played)) < 0.03 + by / 4,
        "eval_…_pass_rate": rng.random(len(played)) < (1 - by) / (1 + np.exp(-odds)),
    }
    return {name: Sample(each.astype(np.float64), night, played) for name, each in values.items()}


def gate_outcomes(
    nights: tuple[int, int], spread: float, by: float, *, comparisons: int
) -> tuple[Counter[Outcome], Counter[Outcome]]:
    """How a gate with one limit, of the mean latency, and one with all of ``GATE_LIMITS`` ended."""
    rng = np.random.default_rng(nights)
    one, all_of_them = Counter[Outcome](), Counter[Outcome]()
    for _ in range(comparisons):
        scenarios = {
            "latency": 1150 * np.exp(rng.normal(0, _SPREAD * np.sqrt(_EXPLAINED), CALLS)),
            "cost": 17 * np.exp(rng.normal(0, 0.3, CALLS)),
            "csat": rng.normal(8, 1, CALLS),
            "passing": rng.normal(np.log(9), 1, CALLS),
        }
        before, after = (
            _gated_calls(rng, scenarios, count, spread, worse) for count, worse in zip(nights, (0.0, by), strict=True)
        )
        found = {
            name: (difference(before[name], after[name], statistic, is_higher_worse=is_higher_worse), limit)
            for name, (statistic, is_higher_worse, limit) in GATE_LIMITS.items()
        }
        latency, limit = found["latency_mean"]
        one[latency.against(limit)] += 1
        outcomes = {each.against(limit, limits=len(found)) for each, limit in found.values()}
        ranked = (Outcome.EXCEEDED, Outcome.NOT_JUDGED, Outcome.KEPT)
        all_of_them[next(outcome for outcome in ranked if outcome in outcomes)] += 1
    return one, all_of_them


def _gate_table(*, comparisons: int) -> str:
    rows = []
    for before, after, spread in GATES:
        row = [f"{before}, {after}", f"{spread:.0%}"]
        for by in (0.0, REGRESSION):
            for outcomes in gate_outcomes((before, after), spread, by, comparisons=comparisons):
                shares = (outcomes[each] / comparisons for each in (Outcome.KEPT, Outcome.NOT_JUDGED, Outcome.EXCEEDED))
                row.append(" / ".join(map(_percent, shares)))
        rows.append(row)
    header = ["nights", "nights differ by", *(f"{agent}: {limits}" for agent in AGENTS for limits in ("1 limit", "6"))]
    return table(header, rows)


AGENTS = ("unchanged", "20% worse")
WORLDS = [ScenarioWorld(*each) for each in ((7, 20), (25, 4), (50, 4), (50, 1))]


def tables(*, comparisons: int) -> dict[str, str]:
    """The tables of the document, by the name of their place."""
    found = {size: chances(size, comparisons=comparisons) for size in SIZES}

    def cell(size: int, name: str, false_alarms: float, misses: float) -> str:
        if name in _METRICS and size < FEWEST[_METRICS[name][1]]:
            return "too few calls"
        return f"{_percent(false_alarms)}, {_percent(misses)}"

    def of(false_alarms: str, misses: str) -> str:
        rows = [
            [
                size,
                *(cell(size, name, getattr(each, false_alarms), getattr(each, misses)) for name, each in row.items()),
            ]
            for size, row in found.items()
        ]
        return table(["calls on each side", *found[SIZES[0]]], rows)

    return {
        "verdicts of compare": of("false_alarms", "misses"),
        "limits of compare": of("false_alarms_of_limit", "misses_of_limit"),
        "scenarios of compare": _scenario_table(comparisons=comparisons),
        "gate of compare": _gate_table(comparisons=comparisons // 4),
        "days of compare": table(
            ["executions", '"worse"', "beyond a limit of 10%"],
            [
                [f"{before}, {after}", *map(_percent, day_alarms(before, after, comparisons=comparisons))]
                for before, after in EXECUTIONS
            ],
        ),
    }


def _percent(share: float) -> str:
    return f"{share * 100:.1f}%" if share < 0.0995 else f"{share * 100:.0f}%"


def main() -> None:
    """Simulate, print, and write the tables into the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regressions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50 comparisons; writes nothing")
    is_quick = parser.parse_args().quick
    made = tables(comparisons=50 if is_quick else COMPARISONS)
    for name, text in made.items():
        print(f"\n{name}\n\n{text}")
    if not is_quick:
        publish(ROOT / "docs" / "decisions" / "0011-compare-scenario-by-scenario.md", made)


if __name__ == "__main__":
    main()
