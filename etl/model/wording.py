"""How messages count and list things. Pure."""

from collections.abc import Sequence


def first_few(things: Sequence[str], *, shown: int = 2) -> str:
    """``a, b and 3 more``."""
    rest = len(things) - shown
    return ", ".join(things[:shown]) + (f" and {rest:,} more" if rest > 0 else "")


def counted(count: int, thing: str) -> str:
    """``1 call``, ``1,200 calls``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
