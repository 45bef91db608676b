"""How often ``metrics-etl compare`` is wrong: ``python -m benchmarks.regressions [--quick]``.

Two samples of made-up calls are compared, thousands of times, with no difference between the agents and with a regression of 20%.
The calls are like the sandbox's: log-normal latencies, costs in whole cents, an eval that nine calls of ten pass. Seeded; the full
form writes the tables of docs/compare.md and of decision 19.
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.document import publish
from benchmarks.measure import ROOT, table
from etl.compare.statistics import FEWEST, Outcome, Sample, Verdict, difference
from etl.model.metrics import Limit, Statistic

SIZES = (25, 50, 100, 200, 400, 800)
COMPARISONS = 2000
EXECUTIONS, CALLS = ((1, 1), (5, 5), (10, 1), (10, 10), (20, 1), (20, 20), (40, 40)), 25
REGRESSION = 0.2
LIMIT = Limit(0.1, is_relative=True)
ANY = "any of them"
VERDICTS = "verdicts of compare"
_METRICS = {
    "latency_p50": ("latency", Statistic.MEDIAN, True),
    "latency_p95": ("latency", Statistic.P95, True),
    "latency_mean": ("latency", Statistic.MEAN, True),
    "cost_mean": ("cost", Statistic.MEAN, True),
    "eval_…_pass_rate": ("passed", Statistic.RATE, False),
}


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
    return {name: Sample.of_one_execution(each) for name, each in values.items()}


def day_alarms(baseline: int, candidate: int, *, comparisons: int) -> tuple[float, float]:
    """Shares of false alarms about mean latency, "worse" and beyond the limit, where each execution has a slow or a quick day.

    It makes all of its calls slower or quicker alike, by 10% (standard deviation): calls are not independent then.
    """
    rng = np.random.default_rng(baseline)
    worse = beyond = 0
    for _ in range(comparisons):
        before, after = (
            Sample(
                (rng.lognormal(np.log(1150), 0.28, (count, CALLS)) * rng.lognormal(0, 0.1, (count, 1))).ravel(),
                np.repeat(np.arange(count), CALLS),
            )
            for count in (baseline, candidate)
        )
        found = difference(before, after, Statistic.MEAN, is_higher_worse=True)
        worse += found.verdict is Verdict.WORSE
        beyond += found.against(LIMIT) is Outcome.EXCEEDED
    return worse / comparisons, beyond / comparisons


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
        VERDICTS: of("false_alarms", "misses"),
        "limits of compare": of("false_alarms_of_limit", "misses_of_limit"),
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
        publish(ROOT / "docs" / "decisions" / "0019-what-compare-calls-worse.md", {VERDICTS: made.pop(VERDICTS)})
        publish(ROOT / "docs" / "compare.md", made)


if __name__ == "__main__":
    main()
