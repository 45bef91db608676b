"""What changed at the source between two executions: the version of the agent, and what judges their evals. Pure."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from etl.compare.selection import ComparedExecution
from etl.model.wording import first_few, quoted

_JUDGING = ("template_id", "model", "config", "mapping")
"""What of an eval's configuration decides how it judges."""
_Judges = dict[str, dict[str, str]]
"""The evals of one name: by id, what decides how each judges."""


@dataclass(frozen=True, slots=True)
class JudgeChange:
    """An eval that is judged in another way than before."""

    eval_name: str
    since: date
    """The day on which the first execution began that is judged so."""
    what: str
    """``model 'gpt-4o', then 'gpt-4.1'``, or the names of the settings that differ."""

    def __str__(self) -> str:
        return f"the judge of eval {quoted(self.eval_name)} changed on {self.since}: {self.what}"


def changes_text(changes: Iterable[JudgeChange]) -> str:
    """The first few in a sentence, in words that may come from outside; empty where there are none."""
    return first_few(list(map(str, changes)), shown=2)


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
    """Each change of what judges under an eval's name from one execution to a later one, oldest first.

    A name that is new, or whose evals are not known, has not changed.
    """
    judges: dict[str, _Judges] = {}
    changes = []
    for execution in _by_age(executions):
        for name, now in _judges(execution.judged_by or "{}").items():
            if what := list(_differences(judges.get(name, now), now)):
                changes.append(JudgeChange(name, execution.started_at.date(), first_few(what, shown=3)))
            judges[name] = now
    return changes


@lru_cache(maxsize=64)
def _judges(judged_by: str) -> dict[str, _Judges]:
    """The evals by their name, which several may have."""
    by_name = defaultdict[str, _Judges](dict)
    for eval_id, config in json.loads(judged_by).items():
        by_name[str(config.get("name"))][eval_id] = {key: _text(config.get(key)) for key in _JUDGING}
    return by_name


def _text(value: Any) -> str:
    """The value as text, without what is empty: that may be missing as well."""
    if isinstance(value, dict):
        told = {key: text for key, each in sorted(value.items()) if (text := _text(each))}
        return json.dumps(told) if told else ""
    return "" if value in (None, []) else value if isinstance(value, str) else json.dumps(value)


def _differences(before: _Judges, now: _Judges) -> Iterator[str]:
    """What differs, in words: in an eval that both sides have, or else in all of the name together."""
    for key in _JUDGING:
        was, is_now = ({judge[key] for judge in side.values()} for side in (before, now))
        if was != is_now or any(before[each][key] != now[each][key] for each in before.keys() & now.keys()):
            gone, new = was - is_now, is_now - was
            is_told = key == "model" and len(gone) == len(new) == 1 and all(0 < len(each) <= 40 for each in gone | new)
            yield f"{key} from {quoted(*gone)} to {quoted(*new)}" if is_told else key.removesuffix("_id")


def _by_age(executions: Iterable[ComparedExecution]) -> list[ComparedExecution]:
    return sorted(executions, key=lambda execution: execution.age)
