"""What all that is printed has in common: the console, names that do no harm to it, and durations as people say them."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.text import Text


def stdout_console() -> Console:
    """Standard output; piped, it is for files and other programs: no folding at a width that nobody sees."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)


def print_line(console: Console, label: str, text: str, *, style: str = "") -> None:
    """A line that begins with what it is about; ``style`` is the label's."""
    shown = f"[{style}]{label}[/]" if style else label
    console.print(f"{shown}{' ' * (11 - len(label))}{escape(text)}", soft_wrap=True, highlight=False)


def plain(name: str) -> Text:
    """A run test's name with nothing in it that could move the cursor."""
    return Text("".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name))


def duration(seconds: float) -> str:
    """``4.2 s``, ``75 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
