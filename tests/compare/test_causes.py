"""What changed at the source: versions of the agent, and what judges."""

import json
from datetime import date
from typing import Any

import pytest

from etl.compare.causes import changes_text, judge_changes, new_versions, usual_version
from tests.compare.executions import execution


def judged(*configs: dict[str, Any]) -> str:
    return json.dumps({str(number): config for number, config in enumerate(configs)})


def test_version_counts_from_its_first_day_and_the_oldest_is_not_new() -> None:
    versions = ["v1", "v2", None, "v1", "v3", "v3"]
    executions = [execution(str(day), day=day, agent_version=version) for day, version in enumerate(versions)]
    assert new_versions(reversed(executions)) == [(date(2026, 11, 2), "v2"), (date(2026, 11, 5), "v3")]
    assert (usual_version(executions[:4]), usual_version(executions[2:3])) == ("v1", None)


def test_change_of_a_judge_names_what_differs_and_a_new_or_unknown_judge_is_none() -> None:
    """An eval that is made anew under another id is judged as before."""
    task = {"name": "Task", "model": "a", "template_id": "t", "mapping": {"x": 1}}
    tone = {"name": "Tone", "model": "a"}
    told = [
        judged(task),
        None,
        judged(tone, task),
        judged(tone, task | {"model": "b"}),
        judged(task | {"model": "b", "template_id": "u", "mapping": {}}),
    ]
    executions = [execution(str(day), day=day, judged_by=each) for day, each in enumerate(told)]
    found = [(each.eval_name, each.since.day, each.what) for each in judge_changes(reversed(executions))]
    assert found == [("Task", 4, "model from 'a' to 'b'"), ("Task", 5, "template, mapping")]


A, B = {"name": "Task", "model": "a"}, {"name": "Task", "model": "b"}


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        ({"1": A, "2": B}, {"2": B, "1": A}, None),
        ({"1": A, "2": B}, {"1": B, "2": A}, "model"),
        ({"1": A, "2": B}, {"1": A, "2": B | {"model": "c"}}, "model from 'b' to 'c'"),
        ({"1": A, "2": B}, {"3": B, "4": A}, None),
        ({"1": A, "2": B}, {"1": A}, "model"),
        ({"1": A}, {"1": A, "2": A}, None),
        ({"1": A}, {"1": A | {"eval_group": "g", "error_localizer": True, "filters": {"x": 1}, "weight": 2}}, None),
        ({"1": A}, {"1": A | {"mapping": {}, "template_id": None, "config": {"params": {}, "prompt": ""}}}, None),
        ({"1": A}, {"1": A | {"config": {"is_strict": False}}}, "config"),
    ],
)
def test_judge_is_what_decides_of_all_evals_of_a_name_by_their_ids_and_what_is_empty_may_be_missing(
    before: dict[str, Any], now: dict[str, Any], what: str | None
) -> None:
    sides = [execution(str(day), day=day, judged_by=json.dumps(each)) for day, each in enumerate((before, now))]
    assert [each.what for each in judge_changes(sides)] == ([what] if what else [])


def test_of_a_judge_that_flips_every_night_the_first_changes_are_told() -> None:
    flips = [execution(str(day), day=day, judged_by=json.dumps({"1": (A, B)[day % 2]})) for day in range(30)]
    told = changes_text(judge_changes(flips))
    assert told.endswith("the judge of eval 'Task' changed on 2026-11-03: model from 'b' to 'a' and 27 more")
