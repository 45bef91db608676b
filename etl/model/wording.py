"""How messages count, list and quote things, and how results show themselves in a shell or a notebook. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from html import escape
from typing import Any, Self

# What moves a cursor, ends a line, or reorders it: C0, DEL and C1, separators of lines, overrides of the writing
# direction. Also what is not a character, and lone surrogates, which stand for bytes of a file name. What joins emoji
# does none of that.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]")
_LONGEST_REASON = 200
"""Of a reason in the source's words, so many characters are kept."""
_MOST_LINES = 3
"""Of one label, so many lines are shown."""
_MOST_CHARACTERS = 300
"""Of a line, so many characters are shown."""


class Word(StrEnum):
    """Base class of enumerations whose words stand in results, each with its meaning."""

    meaning: str
    """What the reference, and a message, says about the word."""

    def __new__(cls, value: str, meaning: str) -> Self:
        """Make a member that is its word and carries its meaning."""
        word = str.__new__(cls, value)
        word._value_, word.meaning = value, meaning
        return word


def shown(text: str) -> str:
    """A text from outside as it is printed and logged: in one line, each control character escaped as in Python."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def reason_line(text: str) -> str:
    """A reason from outside, which may quote an exception or a caller, as it is kept: one line, cut, nothing hidden."""
    return "".join(filter(str.isprintable, " ".join(text.split())))[:_LONGEST_REASON]


def quoted(name: str) -> str:
    """A name from outside as it stands in a message: in quotation marks, and ``shown``."""
    return f"'{shown(name)}'"


def nearest(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """What a message says about an unknown name: which known names it may mean, whatever their case.

    These are the names that end in it after a ``_`` or a dot, or else the one that is spelled most like it. If there
    are none, the message says ``otherwise``, or else names all that are known.
    """
    known_by_folded = {known_name.casefold(): known_name for known_name in known}
    folded = name.casefold()
    endings = [known_name for known_name in known_by_folded if known_name.endswith((f"_{folded}", f".{folded}"))]
    candidates = endings or get_close_matches(folded, known_by_folded, n=1)
    if candidates:
        return f"Did you mean {' or '.join(quoted(known_by_folded[candidate]) for candidate in candidates)}?"
    names = [quoted(known_name) for known_name in sorted(known_by_folded.values())]
    return otherwise or (f"Choose from {first_few(names, shown=12)}" if names else "There are none to choose from")


def first_few(things: Sequence[str], *, shown: int = 2) -> str:
    """The first ``shown`` things, and how many more there are: ``a, b and 3 more``."""
    rest = len(things) - shown
    return ", ".join(things[:shown]) + (f" and {rest:,} more" if rest > 0 else "")


def counted(count: int, thing: str) -> str:
    """A count with its noun, in the plural unless it is one: ``1 call``, ``1,200 calls``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use: ``4.2 s``, ``75 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def by_purpose(requests: Mapping[Any, int], for_single_calls: int = 0) -> str:
    """How many requests were sent for each purpose that had any: ``list 4, first fetch 53 (40 for single calls)``."""
    texts = [f"{purpose.replace('_', ' ')} {count:,}" for purpose, count in requests.items() if count]
    return ", ".join(texts) + (f" ({for_single_calls:,} for single calls)" if for_single_calls else "")


class ShownInLines:
    """Base class of results that a shell shows as a few labelled lines, and a notebook as a table of these lines."""

    __slots__ = ()

    def lines(self) -> Iterable[tuple[str, str]]:
        """The label and the text of each line. Of the lines with one label, only the first few are shown."""
        return ()

    def __repr__(self) -> str:
        return "\n".join([type(self).__name__, *(f"  {label:10} {text}" for label, text in self._few_lines())])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{label}</th><td>{escape(text)}</td></tr>" for label, text in self._few_lines())
        return f"<table>{''.join(rows)}</table>"

    def _few_lines(self) -> Iterator[tuple[str, str]]:
        """The lines that are shown, grouped by label, cut, and without control characters."""
        texts_by_label = defaultdict[str, list[str]](list)
        for label, text in self.lines():
            short = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
            texts_by_label[label].append(shown(short))
        for label, texts in texts_by_label.items():
            yield from ((label, text) for text in texts[:_MOST_LINES])
            if len(texts) > _MOST_LINES:
                yield label, f"and {len(texts) - _MOST_LINES:,} more"
