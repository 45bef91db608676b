"""What hypothesis draws from: JSON as servers send it, and payloads that look like the API's until they do not."""

import re
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from etl.model import schema
from etl.model.keys import default_key
from etl.model.records import NumberLiteral

lone_surrogates = st.characters(categories=["Cs"])  # a pair would be one character to any JSON decoder
any_text = st.text(max_size=12) | st.tuples(st.text(max_size=3), lone_surrogates).map("".join)
numeric_text = (
    st.integers().map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.decimals(allow_nan=False, allow_infinity=False).map(str)
    | st.decimals(-100, 100, places=20).map("{:f}".format)
)
run_test_names = any_text | st.text(max_size=300) | st.text("aZ7 -", min_size=60, max_size=90)
run_test_keys = run_test_names.map(default_key) | st.from_regex(
    re.compile(r"[a-z][a-z0-9]{1,20}(-[a-z0-9]{1,9}){1,3}"), fullmatch=True
)
times = st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-1000, 1000).map(float)
    | any_text
    | numeric_text
    | times
    | st.sampled_from(["NaN", "1e400", "-Infinity"]).map(NumberLiteral)
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3), max_leaves=6
)


def payloads(table: schema.Table, *, without: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any fields that the table knows, of any type, at any depth, among fields that it does not know."""
    known: dict[str, Any] = {}
    for column in table.columns:
        for path in column.paths:
            node = known
            for step in path[:-1]:
                node = node.setdefault(step, {})
            node[path[-1]] = None
    return _objects({name: inner for name, inner in known.items() if name not in without}, ("", *without))


def _objects(known: Mapping[str, Any], without: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    fields = {
        name: json_values if inner is None else _objects(inner) | json_values for name, inner in sorted(known.items())
    }
    dotted = st.sampled_from(sorted(known) or ["a"]).map(lambda name: f"{name}.a")
    unknown = (any_text | dotted | st.sampled_from(["extra", "raw", "metrics_from"])).filter(
        lambda name: name not in known and name not in without
    )
    return st.tuples(
        st.fixed_dictionaries({}, optional=fields), st.dictionaries(unknown, json_values, max_size=2)
    ).flatmap(lambda parts: st.permutations([*parts[0].items(), *parts[1].items()]).map(dict))
