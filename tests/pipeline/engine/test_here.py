"""What several crawls did is the sum of what each did."""

from dataclasses import fields
from typing import Any

from etl.pipeline.engine.here import Counts


def test_all_counts_add_up() -> None:
    numbers = [each.name for each in fields(Counts) if each.name not in ("deleted_executions", "failure")]
    some: dict[str, Any] = {name: index + 1 for index, name in enumerate(numbers)}
    total = Counts(**some, deleted_executions={"a"}, failure="first")
    total.add(Counts(**some, deleted_executions={"a", "b"}, failure="last"))
    total.add(Counts())
    assert [getattr(total, name) for name in numbers] == [2 * value for value in some.values()]
    assert total.deleted_executions == {"a", "b"}
    assert total.failure == "last"
