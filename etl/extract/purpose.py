"""What requests are sent for: the price of a run, by purpose. Pure."""

from enum import StrEnum


class Purpose(StrEnum):
    """What a request is sent for."""

    LIST = "list"
    FIRST_FETCH = "first_fetch"
    SETTLE = "settle"
    DEAD_LETTERS = "dead_letters"
    SCRUB = "scrub"


PURPOSE_MEANINGS: dict[Purpose, str] = {
    Purpose.LIST: "lists of run tests and executions, and look-ups of executions that are no longer in any list",
    Purpose.FIRST_FETCH: "executions that are `new`, `changed`, `damaged`, `requested` or `unfinished`",
    Purpose.SETTLE: "`settling` executions: two lists each, and each call that differs",
    Purpose.DEAD_LETTERS: "`incomplete` executions: two lists each, and each call that is missing or differs",
    Purpose.SCRUB: "`scrub` executions",
}


def no_requests() -> dict[Purpose, int]:
    """A count for each purpose, from zero."""
    return dict.fromkeys(Purpose, 0)
