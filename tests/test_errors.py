"""Errors are found in groups of any depth."""

from etl.errors import leaves


def test_leaves_of_nested_groups() -> None:
    first, second = ValueError("1"), KeyError("2")
    assert list(leaves(ExceptionGroup("a", [first, ExceptionGroup("b", [second])]))) == [first, second]
    assert list(leaves(first)) == [first]
