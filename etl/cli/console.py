"""Printing that several commands share: the console, labelled lines, JSON, and names and durations as text."""

import sys

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_LABEL_WIDTH = 11


def stdout_console() -> Console:
    """Standard output. When it is not a terminal, lines may be longer, for files and other programs."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160)


def print_line(console: Console, label: str, text: str, *, style: str = "") -> None:
    """One line: a label, in its ``style``, and a text."""
    styled = f"[{style}]{label}[/]" if style else label
    console.print(f"{styled}{' ' * (_LABEL_WIDTH - len(label))}{escape(text)}", soft_wrap=True, highlight=False)


def print_json(document: object) -> None:
    """A result for scripts; to stdout."""
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def print_rate_limit_wait(seconds: float) -> None:
    """Why nothing happens for so many seconds; to stderr."""
    print(f"waiting for the rate limit, {seconds:.0f} s", file=sys.stderr)


def printable(name: str) -> Text:
    """A name without characters that could move the cursor."""
    return Text("".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name))


def add_name_column(console: Console, table: Table, title: str) -> None:
    """A column of names, one line each, that leaves room for figures: a long name is cut, and whole in the JSON."""
    table.add_column(title, overflow="ellipsis", no_wrap=True, max_width=max(16, min(40, console.width - 55)))


def duration(seconds: float) -> str:
    """``4.2 s``, ``75 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
