"""How many requests may go out, in made-up time: nothing sleeps. Times are monotonic seconds, resets unix seconds."""

import math
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from heapq import heappop, heappush
from itertools import count

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.extract.answers import retry_after_seconds
from etl.extract.quota import WINDOW_SECONDS, Quota

UNIX = 1_800_000_000.0  # the server's clock when the monotonic one shows 0


def headers(limit: object, remaining: object, reset: object, date: float | None = None) -> dict[str, str]:
    values = {"X-RateLimit-Limit": limit, "X-RateLimit-Remaining": remaining, "X-RateLimit-Reset": reset}
    return {name: str(value) for name, value in values.items()} | (
        {} if date is None else {"Date": formatdate(date, usegmt=True)}
    )


def window(limit: int, remaining: int, *, ends_at: float, now: float) -> dict[str, str]:
    """The headers of an answer sent at ``now``, in a window that ends at ``ends_at``; both monotonic."""
    return headers(limit, remaining, UNIX + ends_at, UNIX + now)


def ask(quota: Quota, now: float, answer: dict[str, str] | None = None) -> None:
    """One request, answered at once."""
    assert quota.wait_seconds(now) == 0
    quota.sent()
    quota.answered(now, answer or {})


def send_all(quota: Quota, now: float, most: int = 10_000) -> int:
    """Send whatever may be sent now, and answer none of it."""
    for sent in range(most):
        if quota.wait_seconds(now) > 0:
            return sent
        quota.sent()
    return most


Answer = tuple[dict[str, str], tuple[float | None, ...]]
"""Headers; and of a refusal, when to come back."""


class Server:
    """Answers requests in made-up time as ``take`` says, which sees when each arrives."""

    def __init__(self, quota: Quota, take: Callable[[float], Answer], now: float = 0.0) -> None:
        self.quota, self.now = quota, now
        self.under_way = self.accepted = 0
        self._take, self._numbers = take, count()
        self._events: list[tuple[float, int, float, Answer | None]] = []

    def send(self, pause: int = 0, to_server: int = 0, from_server: int = 0, *, most: float = math.inf) -> None:
        """A request, after the pause and once it may be sent, at most so many at a time; in 1/1024 s."""
        self.wait(pause)
        while (seconds := self.quota.wait_seconds(self.now)) or self.under_way >= most:
            assert seconds >= 0
            self.wait(max(1, int(seconds * 1024)))
        self.quota.sent()
        self.under_way += 1
        heappush(self._events, (self.now + to_server / 1024, next(self._numbers), from_server / 1024, None))

    def wait(self, ticks: float = 0) -> None:
        self.now += ticks / 1024
        while self._events and self._events[0][0] <= self.now:
            at, _, from_server, answer = heappop(self._events)
            if answer is None:
                heappush(self._events, (at + from_server, next(self._numbers), 0, self._take(at)))
                continue
            self.under_way -= 1
            self.quota.answered(at, answer[0])
            if answer[1]:
                self.quota.refused(at, *answer[1])
            else:
                self.accepted += 1


# Nothing is known


def test_nothing_known_limits_nothing_and_takes_no_memory():
    quota = Quota()
    assert send_all(quota, 0.0, 5000) == 5000
    assert (quota.requests_per_minute, quota.seconds_for(1000, 0.0)) == (None, None)
    quota = Quota()
    for second in range(600):
        ask(quota, float(second))
    assert len(quota._answered_at) <= WINDOW_SECONDS + 1


# The server tells its window


def test_headers_that_cease_leave_their_limit_behind():
    """A proxy's error pages carry none: without a memory, nothing at all would be limited after the window's end."""
    quota = Quota()
    ask(quota, 0.0, window(10, 0, ends_at=40, now=0))
    sent = 0
    for tenth in range(410, 900):  # all of it within 60 s
        while quota.wait_seconds(tenth / 10) == 0:
            quota.sent()
            quota.answered(tenth / 10, {})
            sent += 1
    assert sent <= 10
    assert quota.requests_per_minute == 10
    ask(quota, 200.0, window(20, 19, ends_at=240, now=200))
    assert quota.requests_per_minute == 20


@pytest.mark.parametrize(
    "malformed",
    [
        headers("many", 9, UNIX + 40),
        headers(10, "", UNIX + 40),
        headers(0, 0, UNIX + 40),
        headers("9" * 400, "9" * 400, UNIX + 40),
        headers(10, 0, (UNIX + 40) * 1000, UNIX),  # milliseconds
        headers(10, 0, 40, UNIX),  # counted from now
        headers(10, 0, "inf"),
        headers(10, 0, "nan"),
        {"X-RateLimit-Limit": "10"},
    ],
)
def test_malformed_headers_are_as_good_as_none(malformed):
    quota = Quota()
    ask(quota, 0.0, malformed)
    assert quota.requests_per_minute is None
    assert quota.wait_seconds(0.0) == 0


odd_values = (
    st.text(max_size=12)
    | st.integers(0, 5000).map(lambda digits: "9" * digits)
    | st.sampled_from(["-" + "9" * 400, "1e400", "-inf", "nan", str(2**63), str(UNIX + 40), "10", "0", "-1"])
    | st.sampled_from([formatdate(UNIX, usegmt=True), f"Thu, 26 Nov 2026 00:00:00 +{10**19}"])
)
odd_headers = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Date", "Retry-After"), odd_values
    ),
)


@given(st.lists(st.tuples(odd_headers, st.sampled_from([200, 429, 503])), max_size=5), st.sampled_from([0.3, 1.0]))
@example([({**headers("9" * 400, "9" * 400, UNIX + 40), "Date": f"Thu, 26 Nov 2026 00:00:00 +{10**19}"}, 200)], 0.3)
def test_no_header_raises_or_holds_for_more_than_a_day(answers, share):
    quota = Quota(share=share)
    for number, (answer, status) in enumerate(answers):
        now = float(number)
        quota.sent()
        quota.answered(now, answer)
        if status == 429:
            quota.refused(now, retry_after_seconds(answer, b""))
        elif (seconds := retry_after_seconds(answer, b"")) is not None:
            quota.hold(now, seconds)
        assert 0 <= quota.wait_seconds(now) <= 86_400
        assert (quota.seconds_for(100, now) or 0) >= 0
        assert (quota.left(now) or 0) >= 0
        assert (quota.requests_per_minute or 1) >= 1


# A limit that is kept without the server's help


@given(
    limit=st.integers(1, 8),
    arrivals=st.lists(st.tuples(st.integers(0, 20_000), *[st.integers(0, 90_000)] * 2), min_size=1, max_size=60),
    refuse=st.sets(st.integers(0, 59)),
)
@example(limit=1, arrivals=[(0, 0, 0), (59 * 1024 + 512, 0, 0)], refuse=set())
@example(limit=2, arrivals=[(0, 0, 0)] * 4, refuse={0, 1})
def test_no_window_of_the_server_sees_more_than_the_limit(limit, arrivals, refuse):
    """Whatever its phase: if each answer comes no earlier than the server counted the request."""
    counted_at: list[float] = []

    def take(now: float) -> Answer:
        counted_at.append(now)
        number = len(counted_at) - 1
        return {}, ([None, 0.0, 7.0][number % 3],) if number in refuse else ()

    server = Server(Quota(requests_per_minute=limit), take)
    for arrival in arrivals:
        server.send(*arrival)
    server.wait(math.inf)
    for first, last in zip(counted_at, counted_at[limit:], strict=False):
        assert last - first >= WINDOW_SECONDS


@given(
    limit=st.integers(1, 10),
    share=st.sampled_from([1.0, 0.5]),
    requests=st.lists(st.tuples(st.integers(0, 8_000), *[st.integers(0, 3_000)] * 2), max_size=60),
    told=st.sets(st.integers(1, 60)),
)
@example(limit=2, share=1.0, requests=[(0, 0, 0)] * 2, told=set())
# An answer that tells the window is overtaken by others that do not.
@example(limit=3, share=1.0, requests=[(0, 0, 0)] * 12 + [(0, 0, 1)] + [(0, 0, 0)] * 3, told={13})
def test_told_window_is_never_overspent(limit, share, requests, told):
    """A calendar minute, headers on some of the answers only, any number under way: no request is refused."""
    spent: Counter[float] = Counter()

    def take(now: float) -> Answer:
        minute = now // 60
        spent[minute] += 1
        headers = window(limit, max(0, limit - spent[minute]), ends_at=(minute + 1) * 60, now=now)
        return (headers if spent.total() - 1 in {0, *told} else {}), ()

    server = Server(Quota(share=share), take)
    server.send()  # the first answer tells the window; before it nothing can be known
    for request in requests:
        server.send(*request)
    server.wait(math.inf)
    assert max(spent.values()) <= limit


# Refusals


def refuse_after(quota: Quota, accepted: int, *, late: int = 0, refused: int = 3, now: float = 30.0) -> None:
    """So many are let through, and then some refused before the late ones of the accepted are answered."""
    for _ in range(accepted + refused):
        assert quota.wait_seconds(now) == 0
        quota.sent()
    for _ in range(accepted - late):
        quota.answered(now, {})
    for _ in range(refused):
        quota.answered(now + 1, {})
        quota.refused(now + 1, 29.0)
    for _ in range(late):
        quota.answered(now + 2, {})


def test_learned_limit_of_which_a_share_is_ours_is_forgotten_after_a_while():
    """What goes beyond it may be the share of the others: it is not tested."""
    quota = Quota(share=0.5)
    refuse_after(quota, 10)
    assert send_all(quota, 60.0) == 5
    for _ in range(5):
        quota.answered(60.0, {})
    assert quota.wait_seconds(659.0) == 0
    assert quota.requests_per_minute == 5
    assert quota.wait_seconds(660.0) == 0
    assert quota.requests_per_minute is None


def fixed_minute(
    limit: int, others: Callable[[int], int] = lambda _window: 0, *, window_seconds: float = 60.0
) -> tuple[Callable[[float], Answer], Counter[int]]:
    """A server that allows so many requests in each window and tells no window, and what it refused in each.

    Others take ``others(number of the window)``.
    """
    taken: Counter[int] = Counter()
    refused: Counter[int] = Counter()

    def take(now: float) -> Answer:
        number = int(now // window_seconds)
        taken[number] += 1
        if taken[number] + others(number) <= limit:
            return {}, ()
        refused[number] += 1
        return {}, (max(1, math.ceil((number + 1) * window_seconds - now)),)

    return take, refused


def seconds_to_send(requests: int, take: Callable[[float], Answer], quota: Quota, *, latency: int = 20) -> float:
    """When the last request is answered: at most 32 at a time, refused ones sent again, from second 10 of a minute."""
    server = Server(quota, take, now=10.0)
    while server.accepted < requests:
        if server.accepted + server.under_way < requests:
            server.send(0, latency // 2, latency // 2, most=32)
        else:
            server.wait(1)
    return server.now - 10.0


def test_limit_by_the_second_paces_no_minute():
    take, _ = fixed_minute(20, window_seconds=1.0)
    assert seconds_to_send(441, take, Quota()) < 1.3 * 22


@given(st.integers(20, 400), st.lists(st.floats(0, 0.95), min_size=1, max_size=6), st.sampled_from([20, 200]))
def test_whatever_others_take_each_minute_the_limit_is_found_again(limit, shares, latency):
    """They take what they like for some minutes, and then nothing: soon each minute is used up."""
    take, _ = fixed_minute(limit, lambda window: int(limit * shares[window]) if window < len(shares) else 0)
    quota = Quota()
    seconds = seconds_to_send(limit * (len(shares) + 8), take, quota, latency=latency)
    assert seconds < 60 * (2 * len(shares) + 11)
    assert quota.requests_per_minute is None or quota.requests_per_minute <= limit


def test_headers_that_appear_later_replace_what_was_learned():
    quota = Quota()
    refuse_after(quota, 2)
    ask(quota, 60.0, window(100, 99, ends_at=120, now=60))
    assert quota.requests_per_minute == 100
    assert send_all(quota, 61.0) == 99


# How long it will take


@given(
    configured=st.none() | st.integers(1, 40),
    share=st.sampled_from([0.3, 0.8, 1.0]),
    told=st.none() | st.tuples(st.integers(1, 40), st.integers(0, 40)),
    answered=st.integers(0, 30),
    in_flight=st.integers(0, 10),
    later=st.sampled_from([0.0, 10.0, 45.0, 100.0]),
)
def test_what_is_left_is_what_is_let_through(configured, share, told, answered, in_flight, later):
    quota = Quota(requests_per_minute=configured, share=share)
    answer = window(told[0], min(told), ends_at=40.0, now=1.0) if told else {}
    for number in range(answered):
        quota.sent()
        quota.answered(1.0, answer if number % 3 == 0 else {})
    for _ in range(in_flight):
        quota.sent()
    now = 1.0 + later
    quota.wait_seconds(now)  # answers that count no more are forgotten when somebody asks
    left = quota.left(now)
    if left is None:
        assert quota.requests_per_minute is None
        assert send_all(quota, now, 1000) == 1000
    else:
        assert send_all(quota, now) == left


@given(
    limit=st.integers(1, 40),
    share=st.sampled_from([1.0, 0.8, 0.5]),
    begun_at=st.integers(0, 59),
    requests=st.integers(1, 200),
    has_headers=st.booleans(),
)
def test_whoever_begins_now_ends_when_it_was_predicted(limit, share, begun_at, requests, has_headers):
    """Answers come at once; the server's minute begins at 0."""
    taken: Counter[float] = Counter()

    def take(now: float) -> Answer:
        minute = now // 60
        taken[minute] += 1
        told = window(limit, limit - taken[minute], ends_at=(minute + 1) * 60, now=now)
        return (told if has_headers else {}), ()

    server = Server(Quota(requests_per_minute=None if has_headers else limit, share=share), take, float(begun_at))
    if has_headers:
        server.send()
        server.wait()
    predicted = server.quota.seconds_for(requests, server.now)
    for _ in range(requests):
        server.send()
        server.wait()
    assert server.now - begun_at == pytest.approx(predicted, abs=0.01)
