"""The one place that prints: messages, results, lines with a label, tables and JSON.

Control characters are escaped in everything that came from outside: names, paths, and texts of the API or of files.
"""

import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from etl.model.wording import CONTROL, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

T = TypeVar("T")

_LABEL_WIDTH = 11
_WIDE = 10_000
"""Columns of a line where stdout is not a terminal: no row and no word is broken."""
_STYLES = dict.fromkeys(("problem", "finding"), "bold red")
_NOT_IN_JSON = re.compile(f"(?!\n){CONTROL.pattern}")
"""Every control character but the line breaks of an indented document."""


def stdout_console() -> "Console":
    """Standard output, as wide as the terminal; for files and other programs, lines may be longer."""
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDE)


def print_message(*texts: str) -> None:
    """Print messages, each of one or several lines, to stderr."""
    for text in texts:
        print(_escaped(text), file=sys.stderr)


def print_result(text: str) -> None:
    """Print one or several lines of a result to stdout, at once even if it is a pipe."""
    print(_escaped(text), flush=True)


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Print a line for each label and text to stdout."""
    for label, text in lines:
        print_line(label, text)


def print_line(label: str, *texts: str, style: str = "") -> None:
    """Print a line for each text to stdout, each after the same label; without texts, print nothing.

    ``style`` is rich's name of a style for the label. By default problems and findings are bold and red.
    """
    from rich.markup import escape

    style = style or _STYLES.get(label, "")
    styled = f"[{style}]{label}[/]" if style else label
    padding = " " * (_LABEL_WIDTH - len(label))
    for text in texts:
        stdout_console().print(f"{styled}{padding}{escape(shown(text))}", soft_wrap=True, highlight=False)


def as_json(document: object, *, indent: int | None = None, is_ascii: bool = False) -> str:
    """The document as JSON with every control character escaped, so that it reads back as the same values."""
    import msgspec

    text = json.dumps(msgspec.to_builtins(document), indent=indent, ensure_ascii=is_ascii)
    return _NOT_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_json(document: object) -> None:
    """Print a result for scripts to stdout: as ASCII, unless stdout is UTF-8."""
    print(as_json(document, indent=2, is_ascii=not sys.stdout.encoding.lower().startswith("utf")))


def print_in_form(
    outcome: T, document_of: Callable[[T], object], print_text: Callable[[T], None], *, as_json: bool, quiet: bool
) -> None:
    """Print what a command found in the form that its options want: for scripts, for people, or not at all."""
    if as_json:
        print_json(document_of(outcome))
    elif not quiet:
        print_text(outcome)


def print_rate_limit_wait(seconds: float) -> None:
    """Say on stderr why nothing happens for so many seconds."""
    print_message(f"waiting {seconds:.0f} s for the rate limit")


def print_hold(event: str, **fields: Any) -> None:
    """As ``print_rate_limit_wait``, for the event of that; other events print nothing."""
    if event == "held":
        print_rate_limit_wait(fields["seconds"])


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence["str | int | Text"]], *, words: Collection[str] = ()
) -> None:
    """Print a table to stdout: a column of names, one line each, then columns that are aligned to the right.

    On a terminal, a column whose title is in ``words`` is aligned to the left, and wrapped where it is too wide. A name
    that leaves too little room for the other columns is cut; the JSON of the same command has it whole.
    """
    from rich.table import Table
    from rich.text import Text

    console = stdout_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        if title in words:
            table.add_column(title, overflow="fold")
        elif title == titles[0]:
            table.add_column(
                title,
                overflow="ellipsis",
                no_wrap=True,
                max_width=max(19, min(max(40, console.width // 4), console.width - 55)),
            )
        else:
            table.add_column(title, justify="right", no_wrap=True)
    for name, *cells in rows:
        texts = (f"{cell:,}" if isinstance(cell, int) else cell for cell in cells)
        table.add_row(Text(shown(str(name))), *(Text(text) if isinstance(text, str) else text for text in texts))
    console.print(table)


def _escaped(text: str) -> str:
    """The text with control characters escaped in each of its lines."""
    return "\n".join(map(shown, text.split("\n")))
