"""The metrics that ``compare`` and the nightly verdict judge, and the limits of how far each may get worse.

Pure: it declares and parses, and computes no figure.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Self

from etl.model.wording import nearest, quoted

SHARE = "share"
"""The unit of a rate: 0.05 is 5%."""
LINE_FAILURES = ("no answer", "did not answer", "busy", "failed to connect", "telephony", "sip", "phone call provider")
"""Words in the ``ended_reason`` of a failed call that mean: not the agent failed, but the telephone line."""
EVAL = re.compile(r"eval_\w+_(pass_rate|mean)")
"""What the names of metrics of evals look like; which evals there are, only the dataset can tell."""
_LIMIT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) *(%|pp)", re.ASCII)


class Statistic(StrEnum):
    """How the values of the calls become one figure."""

    MEDIAN = "p50"
    """Their median."""
    P95 = "p95"
    """Their 95th percentile."""
    MEAN = "mean"
    """Their arithmetic mean."""
    RATE = "rate"
    """The share of the calls for which something holds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a set of calls."""

    name: str
    """The name in settings, options and JSON."""
    title: str
    """The name in reports."""
    column: str
    """The column that it is made of: of ``calls``, or of ``evals`` if there is an ``eval_name``."""
    unit: str
    """The unit of the figure: that of the column, or ``SHARE``."""
    statistic: Statistic
    meaning: str
    """What it is, in words, for the reference."""
    is_higher_worse: bool = True
    """Whether the agent got worse if the figure rose; otherwise, if it fell."""
    eval_name: str | None = None
    """The eval whose outputs it is made of; None if it is made of the calls themselves."""

    @property
    def is_rate(self) -> bool:
        """Whether it is a share of calls, or of outputs."""
        return self.statistic is Statistic.RATE


def _of_times(name: str, title: str, column: str, meaning: str) -> Iterable[Metric]:
    """Median, 95th percentile and mean of a column of times."""
    words = {Statistic.MEDIAN: "median", Statistic.P95: "95th percentile", Statistic.MEAN: "mean"}
    for statistic, word in words.items():
        yield Metric(f"{name}_{statistic}", f"{title}, {word}", column, "ms", statistic, f"{word} of {meaning}")


def _interruptions(who: str, column: str, whom: str) -> Metric:
    """How often one side, ``who``, interrupts the other, ``whom``."""
    title = f"Interruptions by the {who}"
    meaning = f"mean number of times that the {who} interrupts the {whom}"
    return Metric(f"{who}_interruptions", title, f"conversation_{column}", "1/min", Statistic.MEAN, meaning)


def _failures(name: str, title: str, column: str, what: str) -> Metric:
    """How many calls failed in some way."""
    return Metric(name, title, column, SHARE, Statistic.RATE, f"share of completed and failed calls that {what}")


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_of_times(
            "latency", "Agent latency", "latency_avg_agent_latency_ms", "the time that the agent took to answer"
        ),
        *_of_times("chat_latency", "Chat latency", "chat_metrics_avg_latency_ms", "the latency of a chat's answers"),
        Metric("cost_mean", "Cost of a call", "cost_total_cost_cents", "US cents", Statistic.MEAN, "mean cost"),
        _interruptions("agent", "ai_interruption_rate", "user"),
        _interruptions("user", "user_interruption_rate", "agent"),
        Metric(
            "csat_mean",
            "Customer satisfaction",
            "chat_metrics_csat_score",
            "score",
            Statistic.MEAN,
            "mean customer satisfaction score (of voice calls, the score that the platform shows as CSAT)",
            is_higher_worse=False,
        ),
        _failures("failure_rate", "Failed calls", "status", "failed, but not on the telephone line"),
        _failures(
            "line_failure_rate", "Calls failed on the line", "ended_reason", "failed on the line (no answer, busy)"
        ),
    )
}
"""By name, the metrics of every dataset; those of evals are made by ``eval_metric``."""


def eval_metric(label: str, eval_name: str, statistic: Statistic) -> Metric:
    """The pass rate (``RATE``) or else the mean score of an eval, whose ``label`` stands in the metric's name."""
    metric = partial(Metric, statistic=statistic, is_higher_worse=False, eval_name=eval_name)
    if statistic is Statistic.RATE:
        meaning = f"share of the outputs of {eval_name} that passed"
        return metric(f"eval_{label}_pass_rate", f"{eval_name}, pass rate", "output_passed", SHARE, meaning=meaning)
    title = f"{eval_name}, mean"
    return metric(f"eval_{label}_mean", title, "output_score", "score", meaning=f"mean score of {eval_name}")


@dataclass(frozen=True, slots=True)
class Limit:
    """How far a metric may get worse. ``str`` gives it as ``10%`` or ``2 pp``."""

    amount: float
    """A share: 0.1 for 10% or for 10 percentage points."""
    is_relative: bool
    """Whether ``amount`` is a share of the baseline's value; otherwise, for a rate only, a share of the calls."""

    @classmethod
    def parse(cls, metric: str, text: str) -> Self:
        """Read the limit of the metric of this name: ``10%`` of the baseline's value, or ``2pp`` of a rate.

        Raises:
            ValueError: the text is not a limit, or not one for this metric.
        """
        is_rate = metric.endswith("_rate")
        match = _LIMIT.fullmatch(text.strip())
        if match is None or (match[2] == "pp" and not is_rate):
            examples = '"10%" or "2pp" (percentage points)' if is_rate else '"10%"'
            raise ValueError(f"needs a limit such as {examples} for {metric}, got {quoted(text)}")
        return cls(float(match[1]) / 100, is_relative=match[2] == "%")

    def __str__(self) -> str:
        return f"{self.amount * 100:g}{'%' if self.is_relative else ' pp'}"


def limits_of(texts: Mapping[str, str]) -> dict[str, Limit]:
    """The limits by metric name, from texts such as ``{"latency_p95": "10%"}``.

    The name of an eval's metric is accepted whether or not the eval exists: only the dataset can tell.

    Raises:
        ValueError: a name cannot be that of a metric, or a text is not a limit for its metric.
    """
    for name in texts:
        if name not in METRICS and not EVAL.fullmatch(name):
            raise ValueError(f"names {quoted(name)}, which is not a metric. {nearest(name, METRICS)}")
    return {name: Limit.parse(name, text) for name, text in texts.items()}
