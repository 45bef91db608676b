"""What a location is, from its text alone."""

import pytest

from etl.model.locations import has_few_slashes, scheme_of, without_secrets


@pytest.mark.parametrize(
    ("location", "scheme", "is_cut"),
    [("s3://b/c", "s3", False), ("c:data", None, False), ("://x", None, False), ("duckdb:x", None, True)],
)
def test_a_scheme_needs_its_slashes(location, scheme, is_cut):
    assert (scheme_of(location), has_few_slashes(location)) == (scheme, is_cut)


def test_only_the_scheme_is_repeated_of_what_may_hold_a_key_or_a_signature():
    assert [without_secrets(text) for text in ("s3:b", "s3://K:S@b", "az://b?sig=S")] == ["'s3:b'", "s3://…", "az://…"]
