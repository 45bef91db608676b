"""What several crawls did is the sum of what each did."""

from dataclasses import fields
from typing import Any

from etl.pipeline.engine.counts import Counts


def test_all_counts_add_up() -> None:
    numbers = [each.name for each in fields(Counts) if each.name not in ("doubted", "moved", "failure")]
    some: dict[str, Any] = {name: index + 1 for index, name in enumerate(numbers)}
    total = Counts(**some, doubted={"a"}, moved={("e", "c"): "f"}, failure="first")
    total.add(Counts(**some, doubted={"a", "b"}, moved={("e", "d"): "f"}, failure="last"))
    total.add(Counts())
    assert [getattr(total, name) for name in numbers] == [2 * value for value in some.values()]
    assert total.doubted == {"a", "b"}
    assert total.moved == {("e", "c"): "f", ("e", "d"): "f"}
    assert total.failure == "last"
