"""Compare the metrics of two sets of executions, and hold them to limits. Asks the dataset alone; never writes, takes no lock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etl.compare.samples import difference_of, eval_metrics, read_samples
from etl.compare.selection import Selection, Selector, can_tell_slow_days, select_from
from etl.compare.statistics import FEWEST_EXECUTIONS, Difference, Interval, Outcome
from etl.errors import ConfigurationError, ExitCode
from etl.inspect.stored import read_lost
from etl.load.files.contract import Files
from etl.load.last_run import read_last_run
from etl.model.findings import Finding, Kind
from etl.model.metrics import METRICS, Limit, Metric, nearest
from etl.model.wording import counted, first_few, quoted


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """Baseline and candidate, a row for each metric, and what is worth knowing; ``findings``: rows that somebody took away."""

    dataset: str
    baseline: Selection
    candidate: Selection
    calls: tuple[int, int]
    rows: Sequence[Row]
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
        if told:
            return "; ".join(told)
        limits = sum(row.outcome is not None and row.outcome is not Outcome.NOT_JUDGED for row in self.rows)
        return f"no regression beyond {counted(limits, 'limit')}" if limits else "compared, without limits"

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
            "metrics": [_row_as_json(row) for row in self.rows],
            "notices": list(self.notices),
        }


def compare(
    files: Files,
    baseline: Selector,
    candidate: Selector,
    *,
    run_test: str | None = None,
    metrics: Sequence[str] = (),
    limits: Mapping[str, Limit] | None = None,
    default_limits: Mapping[str, Limit] | None = None,
) -> ComparisonReport:
    """The metrics by name, by default all of which baseline or candidate has values, and each that has a limit.

    ``default_limits`` are those of the settings: they are for any run test, so one of a metric without values says nothing.

    Raises:
        ConfigurationError: a metric or an eval is unknown, or as ``select_from``.
        DestinationError: a file of the dataset cannot be read.
    """
    limits, default_limits = limits or {}, default_limits or {}
    before, after, notices = select_from(files, run_test, baseline, candidate)
    samples = [read_samples(files, selection.executions) for selection in (before, after)]
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
        notices.append(f"the last run did not export everything of {names}: metrics-etl status says more")
    if not can_tell_slow_days((before, after)):
        notices.append(
            f"a slow day looks like a worse agent here: date ranges with {FEWEST_EXECUTIONS} executions tell them apart"
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
        findings=findings,
        notices=notices,
    )


def _selection_as_json(selection: Selection, calls: int) -> dict[str, Any]:
    starts = sorted(each.started_at for each in selection.executions if each.started_at)
    return {
        "wanted": str(selection.selector),
        "run_test": selection.run_test,
        "executions": [each.execution_id for each in selection.executions],
        "calls": calls,
        "first_started_at": starts[0] if starts else None,
        "last_started_at": starts[-1] if starts else None,
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    found = row.found
    return {
        "metric": row.metric.name,
        "unit": row.metric.unit,
        "worse_when": "higher" if row.metric.is_higher_worse else "lower",
        "baseline": _finite(found.baseline),
        "candidate": _finite(found.candidate),
        "baseline_calls": found.baseline_calls,
        "candidate_calls": found.candidate_calls,
        "difference": _interval_as_json(found.difference),
        "change": _interval_as_json(found.change),
        "verdict": found.verdict.value,
        "limit": str(row.limit) if row.limit else None,
        "limit_outcome": row.outcome.value if row.outcome else None,
    }


def _interval_as_json(interval: Interval | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    bounds = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {name: _finite(bound) for name, bound in bounds.items()}


def _finite(value: float | None) -> float | None:
    """JSON knows no infinity: that is null."""
    return value if value is not None and math.isfinite(value) else None
