"""The one place that prints: messages, results, labelled lines, findings, JSON, and names, durations and prices as text.

Whatever came from outside (names, paths, texts of the API, of files) is printed with its control characters escaped.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from etl.model.wording import CONTROL, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from etl.extract.endpoints import Purpose
    from etl.model.findings import Finding

_LABEL_WIDTH = 11
_WIDE = 160
_STYLES = dict.fromkeys(("problem", "finding"), "bold red")
_NOT_IN_JSON = re.compile(f"(?!\n){CONTROL.pattern}")  # as JSON escapes it: the value stays the same


def stdout_console() -> "Console":
    """Standard output. When it is not a terminal, lines may be longer, for files and other programs."""
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDE)


def print_message(text: str) -> None:
    """A message, or several lines of them; to stderr."""
    print(_lines(text), file=sys.stderr)


def print_result(text: str) -> None:
    """Lines of a result; to stdout."""
    print(_lines(text), flush=True)


def print_line(label: str, *texts: str, style: str = "") -> None:
    """A line for each text, with the label in a ``style``; to stdout."""
    from rich.markup import escape

    style = style or _STYLES.get(label, "")
    styled = f"[{style}]{label}[/]" if style else label
    padding = " " * (_LABEL_WIDTH - len(label))
    for text in texts:
        stdout_console().print(f"{styled}{padding}{escape(shown(text))}", soft_wrap=True, highlight=False)


def by_purpose(requests: "Mapping[Purpose, int]") -> str:
    """``list 4, first fetch 53``: how many requests were for what, without what none was for."""
    return ", ".join(f"{purpose.replace('_', ' ')} {count:,}" for purpose, count in requests.items() if count)


def as_json(document: object, *, indent: int | None = None, is_ascii: bool = False) -> str:
    """The document as JSON, with every control character escaped."""
    import msgspec

    text = json.dumps(msgspec.to_builtins(document), indent=indent, ensure_ascii=is_ascii)
    return _NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_json(document: object) -> None:
    """A result for scripts; to stdout."""
    print(as_json(document, indent=2, is_ascii=not sys.stdout.encoding.lower().startswith("utf")))


def print_rate_limit_wait(seconds: float) -> None:
    """Why nothing happens for so many seconds; to stderr."""
    print_message(f"waiting for the rate limit, {seconds:.0f} s")


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence["str | int | Text"]], *, words: Collection[str] = ()
) -> None:
    """A table: first a column of names, one line each, then columns at the right, but those of ``words`` are folded; to stdout.

    A name too long to leave room for the others is cut here, and whole in the JSON.
    """
    from rich.table import Table
    from rich.text import Text

    console = stdout_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        if title in words:
            table.add_column(title, overflow="fold")
        elif title == titles[0]:
            widest = max(19, min(40, console.width - 55))
            table.add_column(title, overflow="ellipsis", no_wrap=True, max_width=widest)
        else:
            table.add_column(title, justify="right", no_wrap=True)
    for name, *cells in rows:
        texts = (f"{cell:,}" if isinstance(cell, int) else cell for cell in cells)
        table.add_row(Text(shown(str(name))), *(Text(text) if isinstance(text, str) else text for text in texts))
    console.print(table)


def print_alarms(findings: Sequence["Finding"], *, has_next_step: bool = True) -> None:
    """The first alarm of each kind with how many there are, and the next step of the gravest."""
    from etl.model.findings import alarms, gravest

    counts = Counter(finding.kind for finding in alarms(findings))
    for kind, count in counts.items():
        finding = next(each for each in findings if each.kind is kind)
        print_line("problem", f"{finding} (and {count - 1:,} more)" if count > 1 else str(finding))
    if has_next_step and (first := gravest(findings)):
        print_line("next", first.next_step)


def print_notices(findings: Sequence["Finding"]) -> None:
    """What is worth knowing."""
    print_line("notice", *(str(finding) for finding in findings if not finding.is_alarm))


def duration(seconds: float) -> str:
    """``4.2 s``, ``75 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _lines(text: str) -> str:
    return "\n".join(map(shown, text.split("\n")))
