"""What changed at the source between two executions: the version of the agent, and what judges their evals. Pure."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from etl.compare.selection import ComparedExecution
from etl.model.wording import first_few, quoted


@dataclass(frozen=True, slots=True)
class JudgeChange:
    """An eval that is judged in another way than before."""

    eval_name: str
    since: date
    """The day on which the first execution began that is judged so."""
    what: str
    """``model gpt-4o, then gpt-4.1``, or the names of the settings that differ."""

    def __str__(self) -> str:
        return f"the judge of {quoted(self.eval_name)} changed on {self.since}: {self.what}"


def new_versions(executions: Iterable[ComparedExecution]) -> list[tuple[date, str]]:
    """The first day of each version of the agent, in the order of these days, but for the oldest version."""
    first: dict[str, date] = {}
    for execution in _by_age(executions):
        if execution.agent_version:
            first.setdefault(execution.agent_version, execution.started_at.date())
    return [(day, name) for name, day in first.items()][1:]


def usual_version(executions: Iterable[ComparedExecution]) -> str | None:
    """The version of the agent in most of the executions; None where none is known."""
    named = Counter(each.agent_version for each in executions if each.agent_version).most_common(1)
    return named[0][0] if named else None


def judge_changes(executions: Iterable[ComparedExecution]) -> list[JudgeChange]:
    """Each change of an eval's configuration from one execution to a later one, oldest first.

    An eval that is new, or whose configuration is not known, has not changed.
    """
    judges: dict[str, dict[str, Any]] = {}
    changes = []
    for execution in _by_age(executions):
        for name, config in _judges(execution.judged_by or "{}").items():
            before = judges.get(name, config)
            if differing := [key for key in sorted({*before, *config}) if before.get(key) != config.get(key)]:
                what = [_difference(key, before.get(key), config.get(key)) for key in differing]
                changes.append(JudgeChange(name, execution.started_at.date(), first_few(what, shown=3)))
            judges[name] = config
    return changes


@lru_cache(maxsize=64)
def _judges(judged_by: str) -> dict[str, dict[str, Any]]:
    """By the name of the eval, its configuration."""
    return {str(config.get("name")): config for config in json.loads(judged_by).values()}


def _difference(key: str, before: Any, after: Any) -> str:
    are_short = all(isinstance(value, str) and len(value) <= 40 for value in (before, after))
    return f"{key} {before}, then {after}" if are_short and key != "template_id" else key.removesuffix("_id")


def _by_age(executions: Iterable[ComparedExecution]) -> list[ComparedExecution]:
    return sorted(executions, key=lambda execution: execution.age)
