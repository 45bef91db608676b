"""Compare the metrics of two sets of executions, and hold them to limits. Asks the dataset alone; never writes, takes no lock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from etl.compare.pairing import NONE, Pairing
from etl.compare.repeats import Repeats, repeats_of
from etl.compare.samples import Samples, difference_of, eval_metrics, read_samples
from etl.compare.selection import Selection, Selector, can_tell_slow_days, read_executions, select
from etl.compare.statistics import FEWEST_EXECUTIONS, Difference, Interval, Outcome, Verdict
from etl.dataset.last_run import read_last_run
from etl.errors import ConfigurationError, ExitCode
from etl.files.interface import Files
from etl.inspect.read_tables import find_scope
from etl.inspect.stored import read_lost
from etl.model import schema
from etl.model.findings import Finding, Kind
from etl.model.metrics import METRICS, SHARE, Limit, Metric
from etl.model.wording import counted, first_few, nearest, quoted, shown

_SHORT_UNITS = {"US cents": "ct", "score": ""}


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of baseline and candidate, held to its limit if it has one.

    ``is_demanded``: it should have been judged, since its limit was given for this comparison, or there are values.
    """

    metric: Metric
    found: Difference
    limit: Limit | None = None
    is_demanded: bool = False

    @property
    def outcome(self) -> Outcome | None:
        """What became of the limit."""
        return self.found.against(self.limit) if self.limit else None

    @property
    def detects(self) -> float:
        """The smallest change for the worse, beyond the limit if there is one, that such calls show in 9 of 10 cases."""
        return self.found.detects(self.limit or Limit(0, is_relative=not self.metric.is_rate))

    @property
    def surely_worse(self) -> float:
        """By how much it got worse at least: a share, of the calls for a rate, else of the value before.

        Negative when it may not have got worse, infinitely so with too few calls.
        """
        interval = self.found.difference if self.metric.is_rate else self.found.change
        if interval is None:
            return float("-inf")
        return interval.low if self.metric.is_higher_worse else -interval.high


@dataclass(frozen=True, slots=True)
class Repetition:
    """How reliably an eval passes the calls of a scenario on both sides, where both sides play the same scenarios."""

    metric: Metric
    baseline: Repeats
    candidate: Repeats

    @property
    def text(self) -> str:
        """``Task Completion passes 3 of 3: 86.1% before, 25.0% now``."""
        before, now = (value_text(each.whole.pass_power_k, SHARE) for each in (self.baseline, self.candidate))
        k = self.candidate.k
        return f"{self.metric.eval_name} passes {k} of {k}: {before} before, {now} now"

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        sides = {"baseline": self.baseline, "candidate": self.candidate}
        return {"metric": self.metric.name, "k": self.candidate.k} | {
            name: {"whole": side.whole, "scenarios": side.scenarios} for name, side in sides.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """Baseline and candidate, a row for each metric, and what is worth knowing; ``findings``: rows that are missing."""

    dataset: str
    baseline: Selection
    candidate: Selection
    calls: tuple[int, int]
    rows: Sequence[Row]
    pairing: Pairing = field(default_factory=Pairing)
    repetitions: Sequence[Repetition] = ()
    findings: Sequence[Finding] = ()
    notices: Sequence[str] = field(default_factory=list)

    @property
    def exceeded(self) -> list[str]:
        """The metrics that are worse than their limit allows, beyond doubt."""
        return [row.metric.name for row in self.rows if row.outcome is Outcome.EXCEEDED]

    @property
    def not_judged(self) -> list[str]:
        """The metrics whose limit says nothing, since there are too few calls."""
        return [row.metric.name for row in self.rows if row.outcome is Outcome.NOT_JUDGED and row.is_demanded]

    @property
    def incomplete(self) -> int:
        """How many executions lack something, which limits would pass over."""
        return self.baseline.incomplete + self.candidate.incomplete if any(row.limit for row in self.rows) else 0

    @property
    def exit_code(self) -> ExitCode:
        """What the command answers with."""
        if self.exceeded:
            return ExitCode.REGRESSION
        return ExitCode.PARTIAL if self.not_judged or self.findings or self.incomplete else ExitCode.COMPLETE

    @property
    def conclusion(self) -> str:
        """The whole in one line."""
        told = []
        if self.exceeded:
            told.append(f"regression beyond the limit: {first_few(self.exceeded, shown=5)}")
        if self.not_judged:
            told.append(f"too few calls for the limit: {first_few(self.not_judged, shown=5)}")
        if self.findings:
            told.append("rows are missing from the dataset")
        if self.incomplete:
            told.append(f"calls are missing: {counted(self.incomplete, 'incomplete execution')}")
        limits = sum(row.outcome is not None and row.outcome is not Outcome.NOT_JUDGED for row in self.rows)
        if not told:
            told.append(f"{counted(limits, 'limit')} checked, not exceeded" if limits else "compared, without limits")
        if free := [row.metric.name for row in self.rows if row.found.verdict is Verdict.WORSE and not row.limit]:
            told.append(f"worse without a limit: {first_few(free, shown=5)}")
        return "; ".join(told)

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "dataset": self.dataset,
            "exit_code": int(self.exit_code),
            "conclusion": self.conclusion,
            "exceeded": self.exceeded,
            "not_judged": self.not_judged,
            "findings": [finding.as_json() for finding in self.findings],
            "baseline": _selection_as_json(self.baseline, self.calls[0]),
            "candidate": _selection_as_json(self.candidate, self.calls[1]),
            "scenarios": self.pairing.common if self.pairing.is_paired else None,
            "are_rows": self.pairing.are_rows,
            "metrics": [_row_as_json(row) for row in self.rows],
            "repetitions": [_plain(each.as_json()) for each in self.repetitions],
            "notices": list(self.notices),
        }


def compare(  # noqa: PLR0913 one parameter for each option of the command
    files: Files,
    baseline: Selector,
    candidate: Selector,
    *,
    run_test: str | None = None,
    metrics: Sequence[str] = (),
    limits: Mapping[str, Limit] | None = None,
    default_limits: Mapping[str, Limit] | None = None,
    is_paired: bool = True,
) -> ComparisonReport:
    """The metrics by name, by default all of which baseline or candidate has values, and each that has a limit.

    ``default_limits`` are those of the settings: they are for any run test, so one of a metric without values says nothing.

    Raises:
        ConfigurationError: a metric or an eval is unknown, or as ``select``.
        DestinationError: a file of the dataset cannot be read.
    """
    limits, default_limits = limits or {}, default_limits or {}
    executions = read_executions(files, find_scope(files, schema.EXECUTIONS, run_test, None, None))
    before, after, notices = select(executions, baseline, candidate, where=files.where())
    samples, pairing = read_samples(files, before.executions, after.executions, is_paired=is_paired)
    notices += pairing.left_out
    known = METRICS | eval_metrics(samples)
    for name in (*metrics, *limits):
        if name not in known:
            raise ConfigurationError(f"no metric {name!r}: {nearest(name, known)}")
    notices += [
        f"[compare] max_regression: no metric {name} here: {nearest(name, known)}"
        for name in default_limits
        if name not in known
    ]
    both = [*before.executions, *after.executions]
    findings = read_lost(files, {each.run_test for each in both})
    for selection, name, there in zip((before, after), ("baseline", "candidate"), samples, strict=True):
        missing = sum(each.exported_calls or 0 for each in selection.executions) - there.calls
        if missing > 0:
            text = f"{counted(missing, 'call')} of the {name} missing from the dataset"
            findings.append(Finding(Kind.DAMAGED, selection.run_test, text))
    last_run = read_last_run(files, note=notices.append)
    keys = {each.name: each.key for each in last_run.run_tests}
    behind = {each.label for each in both if keys.get(each.label, each.run_test) in last_run.incomplete}
    if behind:
        names = ", ".join(map(quoted, sorted(behind)))
        notices.append(f"the last run did not export all of {names}: see metrics-etl status")
    if not can_tell_slow_days((before, after)):
        notices.append(
            f"one slow day can look like a worse agent: compare date ranges with at least {FEWEST_EXECUTIONS} executions"
        )
    rows = []
    for name, metric in known.items():
        found = difference_of(metric, samples)
        has_values = bool(found.baseline_calls or found.candidate_calls)
        limit = limits.get(name, default_limits.get(name))
        if name in metrics or name in limits or (has_values and (not metrics or limit)):
            rows.append(Row(metric, found, limit, is_demanded=name in limits or has_values))
    return ComparisonReport(
        dataset=files.where(),
        baseline=before,
        candidate=after,
        calls=(samples[0].calls, samples[1].calls),
        rows=rows,
        pairing=pairing,
        repetitions=_repetitions([row.metric for row in rows], samples, pairing),
        findings=findings,
        notices=notices,
    )


def _repetitions(metrics: Sequence[Metric], sides: Sequence[Samples], pairing: Pairing) -> list[Repetition]:
    """Of the Pass/Fail evals among the metrics: of the scenarios that both sides have, if these ran more than once."""
    found = []
    for metric in metrics if pairing.is_paired else ():
        if metric.eval_name and metric.is_rate:
            given = [side.of(metric) for side in sides]
            both = set.intersection(*({*sample.scenarios.tolist()} - {NONE} for sample in given))
            common = [sample.only(np.isin(sample.scenarios, [*both])) for sample in given]
            k = min(repeats_of(map(str, sample.scenarios), sample.values).k for sample in common)
            if both and k > 1:
                told = (repeats_of(map(str, sample.scenarios), sample.values, most=k) for sample in common)
                found.append(Repetition(metric, *(each.named(pairing.names) for each in told)))
    return found


def _selection_as_json(selection: Selection, calls: int) -> dict[str, Any]:
    return {
        "wanted": str(selection.selector),
        "run_test": selection.run_test,
        "executions": [each.execution_id for each in selection.executions],
        "calls": calls,
        "first_started_at": selection.executions[-1].started_at,
        "last_started_at": selection.executions[0].started_at,
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    found = row.found
    told = {
        "metric": row.metric.name,
        "unit": row.metric.unit,
        "worse_when": "higher" if row.metric.is_higher_worse else "lower",
        "baseline": found.baseline,
        "candidate": found.candidate,
        "baseline_calls": found.baseline_calls,
        "candidate_calls": found.candidate_calls,
        "difference": found.difference,
        "change": found.change,
        "verdict": found.verdict.value,
        "limit": str(row.limit) if row.limit else None,
        "limit_outcome": row.outcome.value if row.outcome else None,
        "detects": row.detects,
        "calls_needed": found.calls_needed(row.limit) if row.limit else None,
        "calls_for_limits": {str(limit): found.calls_needed(limit) for limit in planned_limits(row.metric)},
    }
    return _plain(told)


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity: that is null."""
    return msgspec.json.decode(msgspec.json.encode(told), type=dict[str, Any])


def planned_limits(metric: Metric) -> list[Limit]:
    """Limits of which people ask how many calls they need."""
    return [Limit(amount, is_relative=not metric.is_rate) for amount in (0.05, 0.1, 0.2)]


def detects_text(row: Row) -> str:
    """``20%``, or of a rate ``8.1 pp``."""
    if not math.isfinite(row.detects):
        return "-"
    is_share = row.limit.is_relative if row.limit else not row.metric.is_rate
    return f"{row.detects * 100:,.3g}{'%' if is_share else ' pp'}"


def value_text(value: float | None, unit: str) -> str:
    """``1,310 ms``, ``93.0%``; ``-`` when there is none."""
    if value is None:
        return "-"
    if unit == SHARE:
        return f"{value * 100:.1f}%"
    return f"{_rounded(value)} {_SHORT_UNITS.get(unit, unit)}".rstrip()


def _rounded(value: float) -> str:
    size = abs(value)
    if 0 < size < 0.1 or size >= 1e15:
        return f"{value:.2g}"
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def change_texts(metric: Metric, found: Difference) -> tuple[str, str]:
    """The change and its interval: of a rate in percentage points, else as a share of the baseline, where there is one."""
    if found.difference is None or found.change is None:
        return "-", "-"
    if metric.is_rate:
        return _signed(found.difference, 100, " pp")
    if found.baseline:
        return _signed(found.change, 100, "%")
    return _signed(found.difference, 1, f" {_SHORT_UNITS.get(metric.unit, metric.unit)}".rstrip())


def change_words(row: Row) -> str:
    """``Agent latency, mean +44.1% (1,310 ms to 1,888 ms)``; without the change where there are too few calls."""
    found, unit = row.found, row.metric.unit
    by, _ = change_texts(row.metric, found)
    values = f"({value_text(found.baseline, unit)} to {value_text(found.candidate, unit)})"
    return f"{shown(row.metric.title)} {'' if by == '-' else f'{by} '}{values}"


def _signed(interval: Interval, factor: float, unit: str) -> tuple[str, str]:
    value, low, high = (
        f"{round(each * factor, 1) + 0.0:+.1f}"  # no -0.0
        for each in (interval.value, interval.low, interval.high)
    )
    return f"{value}{unit}", f"{low} to {high}{unit}"
