"""Keys and paths hold for any name that anybody gives a run test."""

import re

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from etl.load.layout import Partition, parse_partition_path, partition_path
from etl.model.keys import KEY_MAX_BYTES, default_key, is_key
from tests.strategies import any_text

names = any_text | st.text(max_size=300) | st.text("aZ7 -", min_size=60, max_size=90)
keys = names.map(default_key) | st.from_regex(re.compile(r"[a-z][a-z0-9]{1,20}(-[a-z0-9]{1,9}){1,3}"), fullmatch=True)


@settings(deadline=None)
@given(names)
def test_every_default_key_is_a_short_key_and_always_the_same(name):
    key = default_key(name)
    assert is_key(key)
    assert len(key.encode()) <= KEY_MAX_BYTES
    assert default_key(name) == key


@settings(deadline=None)
@given(names, names)
def test_different_names_have_different_keys(name, other):
    assume(name != other)
    assert default_key(name) != default_key(other)


@settings(deadline=None)
@given(names, st.sampled_from([str.upper, str.lower, str.swapcase, str.strip, " {}".format, "{}\n".format]))
def test_a_name_that_looks_alike_has_another_key(name, change):
    assume(change(name) != name)
    assert default_key(name) != default_key(change(name))


@settings(deadline=None)
@given(st.sampled_from(["executions", "calls", "evals", "errors"]), keys, st.dates().map(lambda day: day.isoformat()))
def test_a_path_gives_back_the_partition_that_it_was_made_of(table, key, date):
    partition = Partition(key, date)
    assert parse_partition_path(partition_path(table, partition)) == (table, partition)


@settings(deadline=None)
@given(names)
def test_a_key_survives_file_systems_that_fold_case_and_readers_that_guess_types(text):
    if is_key(text):
        assert text.isascii()
        assert text == text.lower()
        assert text[0].isalpha()
        assert not set(text) & set("/\\.=% \n'\"")
