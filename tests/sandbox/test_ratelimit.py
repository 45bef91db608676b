"""The simulated quota never lets more than its limit through."""

from hypothesis import given
from hypothesis import strategies as st

from etl.sandbox.ratelimit import FixedWindow


@given(st.integers(1, 5), st.lists(st.floats(0, 300), max_size=30))
def test_window_never_lets_more_than_its_limit_through(limit, moments):
    window = FixedWindow(limit)
    allowed: dict[float, int] = {}
    for now in sorted(moments):
        verdict = window.take(now)
        allowed[now // 60] = allowed.get(now // 60, 0) + verdict.is_allowed
        assert verdict.resets_at - 60 <= now < verdict.resets_at
        assert 1 <= verdict.retry_after_seconds <= 60
        assert verdict.is_allowed or verdict.remaining == 0
    assert all(1 <= count <= limit for count in allowed.values())
