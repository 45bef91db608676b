"""What ``compare`` compares: each metric's names, unit, meaning and worse direction, and how far it may get worse. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from etl.model.wording import nearest, quoted

SHARE = "share"
"""The unit of a rate: 0.05 is 5%."""
EVAL = re.compile(r"eval_\w+_(pass_rate|mean)")
LIMIT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) *(%|pp)", re.ASCII)


class Statistic(StrEnum):
    """What is made of the values of the calls."""

    MEDIAN = "p50"
    P95 = "p95"
    MEAN = "mean"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a set of calls, made of their ``column``; of the outputs of one eval when there is an ``eval_name``.

    ``name`` is what one types, ``title`` what one reads.
    """

    name: str
    title: str
    column: str
    unit: str
    statistic: Statistic
    meaning: str
    is_higher_worse: bool = True
    eval_name: str | None = None

    @property
    def is_rate(self) -> bool:
        """Whether it is a share of calls."""
        return self.statistic is Statistic.RATE


def _three(name: str, title: str, column: str, meaning: str) -> Iterable[Metric]:
    words = {Statistic.MEDIAN: "median", Statistic.P95: "95th percentile", Statistic.MEAN: "mean"}
    for statistic, word in words.items():
        yield Metric(f"{name}_{statistic}", f"{title}, {word}", column, "ms", statistic, f"{word} of {meaning}")


def _interruptions(who: str, column: str, whom: str) -> Metric:
    title = f"Interruptions by the {who}"
    meaning = f"mean number of times that the {who} interrupts the {whom}"
    return Metric(f"{who}_interruptions", title, f"conversation_{column}", "1/min", Statistic.MEAN, meaning)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_three("latency", "Agent latency", "latency_avg_agent_latency_ms", "the time that the agent took to answer"),
        *_three("chat_latency", "Chat latency", "chat_metrics_avg_latency_ms", "the latency of a chat's answers"),
        Metric("cost_mean", "Cost of a call", "cost_total_cost_cents", "US cents", Statistic.MEAN, "mean cost"),
        _interruptions("agent", "ai_interruption_rate", "user"),
        _interruptions("user", "user_interruption_rate", "agent"),
        Metric(
            "csat_mean",
            "Customer satisfaction",
            "chat_metrics_csat_score",
            "score",
            Statistic.MEAN,
            "mean customer satisfaction, or what the platform shows as such",
            is_higher_worse=False,
        ),
        Metric(
            "failure_rate", "Failed calls", "status", SHARE, Statistic.RATE, "failed among completed and failed calls"
        ),
    )
}


def eval_metric(label: str, eval_name: str, statistic: Statistic) -> Metric:
    """The pass rate (``RATE``) or the mean score (``MEAN``) of an eval that is called ``label`` in names."""
    if statistic is Statistic.RATE:
        meaning = f"share of the outputs of {eval_name} that passed"
        name, title, column, unit = f"eval_{label}_pass_rate", passed_title(eval_name), "output_passed", SHARE
    else:
        name, title, column, unit = f"eval_{label}_mean", f"{eval_name}: mean score", "output_score", "score"
        meaning = f"mean score of {eval_name}"
    return Metric(name, title, column, unit, statistic, meaning, is_higher_worse=False, eval_name=eval_name)


def passed_title(eval_name: str) -> str:
    """The title of the pass rate of an eval."""
    return f"{eval_name}: passed"


@dataclass(frozen=True, slots=True)
class Limit:
    """How far a metric may get worse: by a share of the baseline's value, or for a rate by a share of the calls."""

    amount: float
    is_relative: bool

    @classmethod
    def parse(cls, metric: str, text: str) -> Self:
        """The limit that is meant by ``10%``, of the baseline's value, or ``2pp``, percentage points of a rate.

        Raises:
            ValueError: it is no limit, or not one for this metric.
        """
        found, is_rate = LIMIT.fullmatch(text.strip()), metric.endswith("_rate")
        if found is None or (found[2] == "pp" and not is_rate):
            examples = '"10%" or "2pp" (percentage points)' if is_rate else '"10%"'
            raise ValueError(f"needs a limit such as {examples} for {metric}, got {quoted(text)}")
        return cls(float(found[1]) / 100, is_relative=found[2] == "%")

    def __str__(self) -> str:
        return f"{self.amount * 100:g}{'%' if self.is_relative else ' pp'}"


def limits_of(texts: Mapping[str, str]) -> dict[str, Limit]:
    """The limits of metrics by name, as ``{"latency_p95": "10%"}`` gives them; whether an eval exists only the dataset can tell.

    Raises:
        ValueError: a name can be none of a metric, or a limit is none.
    """
    for name in texts:
        if name not in METRICS and not EVAL.fullmatch(name):
            raise ValueError(f"names {quoted(name)}, which is not a metric: {nearest(name, METRICS)}")
    return {name: Limit.parse(name, text) for name, text in texts.items()}
