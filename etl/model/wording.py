"""How messages count and list things. Pure."""

from collections.abc import Sequence


def some(things: Sequence[str], *, shown: int = 2) -> str:
    """The first of the things, and how many more there are."""
    rest = len(things) - shown
    return ", ".join(things[:shown]) + (f" and {rest:,} more" if rest > 0 else "")


def counted(count: int, thing: str) -> str:
    """How many of the things, in words."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
