"""Keys hold for any name that anybody gives a run test."""

from hypothesis import assume, given
from hypothesis import strategies as st

from etl.model.keys import KEY_MAX_BYTES, default_key, is_key
from tests.strategies import run_test_names


@given(run_test_names)
def test_every_default_key_is_a_short_key_and_always_the_same(name):
    key = default_key(name)
    assert is_key(key)
    assert len(key.encode()) <= KEY_MAX_BYTES
    assert default_key(name) == key


@given(run_test_names, run_test_names)
def test_different_names_have_different_keys(name, other):
    assume(name != other)
    assert default_key(name) != default_key(other)


@given(run_test_names, st.sampled_from([str.upper, str.lower, str.swapcase, str.strip, " {}".format, "{}\n".format]))
def test_a_name_that_looks_alike_has_another_key(name, change):
    assume(change(name) != name)
    assert default_key(name) != default_key(change(name))


@given(run_test_names)
def test_a_key_survives_file_systems_that_fold_case_and_readers_that_guess_types(text):
    if is_key(text):
        assert text.isascii()
        assert text == text.lower()
        assert text[0].isalpha()
        assert not set(text) & set("/\\.=% \n'\"")
