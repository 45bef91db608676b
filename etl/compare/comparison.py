"""Compare the metrics of two sets of executions, and hold them to limits.

Owns the comparison as a whole: its rows, exit code and conclusion, and how figures and changes are written in words.
Reads the dataset alone; never writes, and takes no lock.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from etl.compare.causes import JudgeChange, changes_text, judge_changes
from etl.compare.pairing import Pairing
from etl.compare.samples import Samples, difference_of, eval_metrics, read_samples
from etl.compare.selection import ComparedExecution, Selection, Selector, can_tell_slow_days, read_executions, select
from etl.compare.statistics import CHANCE_OF_WORSE, FEWEST, FEWEST_EXECUTIONS, Difference, Interval, Outcome, Verdict
from etl.dataset.last_run import read_last_run
from etl.errors import ConfigurationError, ExitCode
from etl.files.interface import Files
from etl.inspect.read_tables import find_scope
from etl.inspect.stored import read_lost
from etl.model import schema
from etl.model.findings import Finding, Kind
from etl.model.metrics import METRICS, SHARE, Limit, Metric
from etl.model.values import fields_of
from etl.model.wording import counted, first_few, nearest, quoted, shown
from etl.settings.results import Compare

_SIDES = ("baseline", "candidate")
_SHORT_UNITS = {"US cents": "ct", "score": ""}


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of baseline and candidate, held to its limit if it has one."""

    metric: Metric
    found: Difference
    """How the metric differs between both sides."""
    limit: Limit | None = None
    limits: int = 1
    """How many limits the comparison has."""
    lacking: str = ""
    """Why no limit is kept, in words: nothing, or too little of the candidate, is compared. Empty where enough is."""

    @property
    def outcome(self) -> Outcome | None:
        """What became of the limit; None without one."""
        if self.limit is None:
            return None
        outcome = self.found.against(self.limit, limits=self.limits)
        return Outcome.NOT_JUDGED if self.lacking and outcome is Outcome.KEPT else outcome

    @property
    def why_not_judged(self) -> str:
        """What is missing to judge the limit, in words; empty if it is judged, or there is none."""
        if self.limit is None or self.outcome is not Outcome.NOT_JUDGED:
            return ""
        if self.lacking:
            return self.lacking
        if self.found.estimate is None:
            return f"at least {FEWEST[self.metric.statistic]} calls are needed on each side"
        if self.limit.is_relative and not self.found.baseline:
            return f"the baseline is zero{', so give the limit in pp' if self.metric.is_rate else ''}"
        needed = self.found.calls_needed(self.limit)
        if needed is None:
            return "the executions of a side differ too much, so compare more executions on each side"
        return f"{f'about {needed:,}' if needed > self.found.calls else 'more'} calls are needed on each side"

    @property
    def surely_worse(self) -> float:
        """By how much it got worse at least, by the interval: a share of the calls for a rate, else of the baseline.

        Negative when it may not have got worse, infinitely so with too few calls.
        """
        worsening = self.found.worsening(is_relative=not self.metric.is_rate)
        return worsening.low if worsening else -math.inf


@dataclass(frozen=True, slots=True)
class Group:
    """The candidate's executions of one version of the agent, against the whole baseline."""

    agent_version: str | None
    """As the executions have it; None where that is not known."""
    rows: Sequence[Row]
    """The metrics of the report, without limits."""
    notices: Sequence[str]
    """Which calls are not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """What ``compare`` found, as a whole."""

    dataset: str
    """Where the dataset is, without secrets."""
    baseline: Selection
    candidate: Selection
    calls: tuple[int, int]
    """How many calls baseline and candidate have, with values or without."""
    rows: Sequence[Row]
    """One for each metric."""
    groups: Sequence[Group] = ()
    """One of each version of the candidate's agent, the oldest first, if that was wanted."""
    pairing: Pairing = field(default_factory=Pairing)
    """How the calls of both sides are matched."""
    judges: Sequence[JudgeChange] = ()
    """The evals that are not judged in the same way in all these executions."""
    unapplied: Sequence[str] = ()
    """The metrics of limits of the settings that the run test does not have: other run tests may."""
    findings: Sequence[Finding] = ()
    """What is missing from the dataset: none of it is judged, so the exit code is 3."""
    notices: Sequence[str] = field(default_factory=list)
    """What else is worth knowing, in words."""

    @property
    def exceeded(self) -> list[str]:
        """The names of the metrics that are worse than their limit allows, beyond doubt."""
        return [row.metric.name for row in self.rows if row.outcome is Outcome.EXCEEDED]

    @property
    def not_judged(self) -> dict[str, str]:
        """By the metric of a limit that is not judged, why; if no limit of the settings applies, all of these."""
        if any(row.limit for row in self.rows):
            return {row.metric.name: row.why_not_judged for row in self.rows if row.why_not_judged}
        return dict.fromkeys(self.unapplied, "the run test does not have this metric")

    @property
    def incomplete(self) -> int:
        """How many executions are incomplete, if there are limits: missing calls may be those that got worse."""
        return self.baseline.incomplete + self.candidate.incomplete if any(row.limit for row in self.rows) else 0

    @property
    def exit_code(self) -> ExitCode:
        """10 if a limit is exceeded, 3 if one cannot be judged or anything is missing, else 0."""
        if self.exceeded:
            return ExitCode.REGRESSION
        return ExitCode.PARTIAL if self.not_judged or self.findings or self.incomplete else ExitCode.COMPLETE

    @property
    def conclusion(self) -> str:
        """The outcome in one line, after the judges that changed: without these, its figures would be misread."""
        return "; ".join(filter(None, (changes_text(self.judges), self.outcome)))

    @property
    def outcome(self) -> str:
        """Why the exit code is what it is, and what is worse without a limit."""
        parts = []
        if self.exceeded:
            parts.append(f"regression beyond the limit: {first_few(self.exceeded, shown=5)}")
        if self.not_judged:
            causes = [f"{name} ({cause})" for name, cause in self.not_judged.items()]
            parts.append(f"the limit was not judged for {first_few(causes, shown=5)}")
        if self.findings:
            parts.append("rows are missing from the dataset")
        if self.incomplete:
            parts.append(f"calls are missing from {counted(self.incomplete, 'incomplete execution')}")
        if not parts:
            kept = sum(row.outcome is Outcome.KEPT for row in self.rows)
            parts.append(f"pass: {counted(kept, 'limit')} not exceeded" if kept else "compared without limits")
        elif not self.exceeded:
            parts[0] = f"not a pass, because {parts[0]}"
        if worse := [row.metric.name for row in self.rows if row.found.verdict is Verdict.WORSE and not row.limit]:
            one_in = max(2, round(1 / (CHANCE_OF_WORSE * len(self.rows))))
            chance = f"by chance, 1 in {one_in} comparisons of {counted(len(self.rows), 'metric')} shows a worse metric"
            parts.append(f"worse, but without a limit: {first_few(worse, shown=5)} ({chance})")
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """The document of ``compare --json``; what is infinite is null."""
        return {
            **fields_of(self, "dataset", "exit_code", "conclusion", "exceeded"),
            "not_judged": list(self.not_judged),
            "findings": [finding.as_json() for finding in self.findings],
            "baseline": self.baseline.as_json(self.calls[0]),
            "candidate": self.candidate.as_json(self.calls[1]),
            "judges_changed": [fields_of(each, "eval_name", "since", "what") for each in self.judges],
            "scenarios": self.pairing.common if self.pairing.is_paired else None,
            "are_rows": self.pairing.are_rows,
            "metrics": [_row_as_json(row) for row in self.rows],
            "groups": [
                {**fields_of(each, "agent_version", "notices"), "metrics": list(map(_row_as_json, each.rows))}
                for each in self.groups
            ],
            "notices": list(self.notices),
        }


def compare(  # noqa: PLR0913 one parameter for each option of the command
    files: Files,
    baseline: Selector,
    candidate: Selector,
    *,
    run_test: str | None = None,
    metrics: Sequence[str] = (),
    limits: Mapping[str, Limit],
    rules: Compare,
    is_paired: bool = True,
    group_by: Literal["agent_version"] | None = None,
) -> ComparisonReport:
    """Compare the named metrics, by default all of which a side has values; and each that has a limit.

    With ``group_by``, each of the candidate's agent versions is compared with the whole baseline, too, without limits.

    ``limits`` are those of this comparison. Those of ``rules``, the settings, are for any run test, so the limit of a
    metric that this one never had says nothing, unless there is no other.

    Raises:
        ConfigurationError: a metric or an eval is unknown, or as ``select``.
        DestinationError: a file of the dataset cannot be read.
    """
    executions = read_executions(files, find_scope(files, schema.EXECUTIONS, run_test, None, None))
    before, after, notices = select(executions, baseline, candidate, where=files.where())
    samples, pairing = read_samples(files, before.executions, after.executions, rules=rules, is_paired=is_paired)
    notices += pairing.left_out
    known = METRICS | eval_metrics(samples)
    for name in (*metrics, *limits):
        if name not in known:
            raise ConfigurationError(f"there is no metric {name!r}. {nearest(name, known)}")
    present = {name for name, metric in known.items() if any(len(side.of(metric)) for side in samples)}
    if absent := [name for name in rules.limits if name not in present]:
        # What both sides lack is gone, unless only other run tests have it.
        earlier, _ = read_samples(
            files, [each for each in executions if each.label == after.run_test and not each.deleted_at], rules=rules
        )
        known = METRICS | eval_metrics(earlier) | known
        gone = {name for name in absent if name in known and len(earlier[0].of(known[name]))}
        present |= gone
        for name in sorted({*absent} - gone):
            notices.append(f"[compare] max_regression: the run test has no metric {name}. {nearest(name, known)}")
    applied = {**{name: limit for name, limit in rules.limits.items() if name in present}, **limits}
    notices += _notices_of_last_run(files, [*before.executions, *after.executions])
    if not can_tell_slow_days((before, after)):
        ranges = f"Compare date ranges with at least {FEWEST_EXECUTIONS} executions each"
        notices.append(f"one slow day can look like a worse agent. {ranges}")
    rows = [
        Row(metric, found, applied.get(name), len(applied), _lacking(metric, samples, found))
        for name, metric in known.items()
        if name in metrics or name in applied or (name in present and not metrics)
        for found in [difference_of(metric, samples)]
    ]
    groups = []
    for version in dict.fromkeys(each.agent_version for each in reversed(after.executions)) if group_by else ():
        own = [execution for execution in after.executions if execution.agent_version == version]
        both, of_group = read_samples(files, before.executions, own, rules=rules, is_paired=is_paired)
        found = [Row(row.metric, difference_of(row.metric, both)) for row in rows]
        groups.append(Group(version, found, list(of_group.left_out)))
    return ComparisonReport(
        dataset=files.where(),
        baseline=before,
        candidate=after,
        calls=(samples[0].calls, samples[1].calls),
        rows=rows,
        groups=groups,
        pairing=pairing,
        judges=judge_changes([*before.executions, *after.executions]),
        unapplied=[name for name in rules.limits if name not in applied],
        findings=_missing_rows(files, (before, after), samples),
        notices=notices,
    )


def _lacking(metric: Metric, samples: Sequence[Samples], found: Difference) -> str:
    """What is missing for a limit to be kept: values of at least half as many of the calls as the baseline has."""
    sides = [name for name, side in zip(_SIDES, samples, strict=True) if not len(side.of(metric))]
    failures = samples[1].of(METRICS["failure_rate"]).values
    if sides == ["candidate"] and len(failures) and failures.all():
        return "all calls of the candidate failed"
    if sides:
        return f"there are no values in the {' and the '.join(sides)}"
    if not found.candidate_calls:
        return "the two sides have no scenario in common"
    counts = len(samples[0].of(metric)), found.candidate_calls
    before, now = (count / max(1, side.calls) for count, side in zip(counts, samples, strict=True))
    if now < before / 2:
        return f"only {found.candidate_calls:,} of {counted(samples[1].calls, 'call')} of the candidate can be compared"
    return ""


def _missing_rows(files: Files, selections: Sequence[Selection], samples: Sequence[Samples]) -> list[Finding]:
    """A finding for each file that is gone, and for each side with fewer calls than were exported."""
    findings = read_lost(files, {execution.run_test for side in selections for execution in side.executions})
    for name, selection, held in zip(_SIDES, selections, samples, strict=True):
        missing = sum(execution.exported_calls or 0 for execution in selection.executions) - held.calls
        if missing > 0:
            text = f"the dataset is missing {counted(missing, 'call')} of the {name}"
            findings.append(Finding(Kind.DAMAGED, selection.run_test, text))
    return findings


def _notices_of_last_run(files: Files, executions: Sequence[ComparedExecution]) -> list[str]:
    """Whether the last run did not export all of these executions' run tests; and what is wrong with its record."""
    notices: list[str] = []
    last_run = read_last_run(files, note=notices.append)
    keys = {run_test.name: run_test.key for run_test in last_run.run_tests}
    incomplete = {each.label for each in executions if keys.get(each.label, each.run_test) in last_run.incomplete}
    if incomplete:
        names = ", ".join(map(quoted, sorted(incomplete)))
        notices.append(f"the last run did not fully export {names}. To see why, run metrics-etl status")
    return notices


def _row_as_json(row: Row) -> dict[str, Any]:
    found = row.found
    document = {
        "metric": row.metric.name,
        "unit": row.metric.unit,
        "worse_when": "higher" if row.metric.is_higher_worse else "lower",
        **fields_of(found, "baseline", "candidate", "baseline_calls", "candidate_calls", "difference", "change"),
        "verdict": found.verdict.value,
        "limit": str(row.limit) if row.limit else None,
        "limit_outcome": row.outcome.value if row.outcome else None,
        "calls_needed": found.calls_needed(row.limit) if row.limit else None,
    }
    # Dicts, lists and numbers alone; an infinity, which JSON does not know, is None.
    return msgspec.json.decode(msgspec.json.encode(document), type=dict[str, Any])


def value_text(value: float | None, unit: str) -> str:
    """A figure with its unit: ``1,310 ms``, ``93.0%``; ``-`` if there is none."""
    if value is None:
        return "-"
    if unit == SHARE:
        return f"{value * 100:.1f}%"
    return f"{_rounded(value)} {_SHORT_UNITS.get(unit, unit)}".rstrip()


def _rounded(value: float) -> str:
    """Three digits, or all before the point; two where the value is tiny or huge."""
    size = abs(value)
    if 0 < size < 0.1 or size >= 1e15:
        return f"{value:.2g}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def change_texts(metric: Metric, found: Difference) -> tuple[str, str]:
    """``+44.1%`` and ``+30.2 to +59.5%``: the change and its interval, a rate's in points; ``-`` with too few calls."""
    if found.difference is None or found.change is None:
        return "-", "-"
    if metric.is_rate:
        # Rates stand beside it with one digit: the difference is that of what stands there.
        before, after = (round(100 * (rate or 0.0), 1) for rate in (found.baseline, found.candidate))
        return f"{after - before:+.1f} pp", _signed(found.difference, 100, " pp")[1]
    if found.baseline:
        return _signed(found.change, 100, "%")
    return _signed(found.difference, 1, f" {_SHORT_UNITS.get(metric.unit, metric.unit)}".rstrip())


def change_words(row: Row) -> str:
    """``Agent latency, mean +44.1% (1,310 ms to 1,888 ms)``; without the change where there are too few calls."""
    before, now = (value_text(value, row.metric.unit) for value in (row.found.baseline, row.found.candidate))
    change, _ = change_texts(row.metric, row.found)
    title = shown(row.metric.title) if change == "-" else f"{shown(row.metric.title)} {change}"
    return f"{title} ({before} to {now})"


def _signed(interval: Interval, factor: float, unit: str) -> tuple[str, str]:
    """The value, and its bounds, each with a sign and one digit."""
    rounded = [round(each * factor, 1) + 0.0 for each in (interval.value, interval.low, interval.high)]  # no -0.0
    value, low, high = (f"{number:+.1f}" for number in rounded)
    return f"{value}{unit}", f"{low} to {high}{unit}"
