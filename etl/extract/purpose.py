"""What requests are sent for: the price of a run, by purpose. Pure."""

from enum import StrEnum


class Purpose(StrEnum):
    """What a request is sent for."""

    LIST = "list"
    FIRST_FETCH = "first_fetch"
    SETTLE = "settle"
    DEAD_LETTERS = "dead_letters"
    SCRUB = "scrub"


def no_requests() -> dict[Purpose, int]:
    """A count for each purpose, from zero."""
    return dict.fromkeys(Purpose, 0)
