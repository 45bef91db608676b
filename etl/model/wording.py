"""How messages count, list and quote things, and how values show themselves. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from html import escape
from typing import Any, Self

# What moves a cursor, ends a line, or reorders it: C0, DEL and C1, separators, overrides of the direction of writing; what is no
# character, and the halves of characters that stand for bytes of a file name. What joins emoji does none of that.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]")
_FEW, _LONG = 3, 300


class Word(StrEnum):
    """One of several words that stand in results; ``meaning`` is what a person is told of it."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        """A word and what it means."""
        word = str.__new__(cls, value)
        word._value_, word.meaning = value, meaning
        return word


def shown(text: str) -> str:
    """A text from outside as it is printed and logged: in one line, each control character escaped as in Python."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def quoted(name: str) -> str:
    """A name from outside in a message, in quotation marks."""
    return f"'{shown(name)}'"


def nearest(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """What a message says of an unknown name: which known ones are most like it, else ``otherwise``, else all that are known."""
    folded = {each.casefold(): each for each in known}
    name = name.casefold()
    meant = [each for each in folded if each.endswith(f"_{name}")] or get_close_matches(name, folded, n=1)
    if meant:
        return f"did you mean {' or '.join(quoted(folded[each]) for each in meant)}?"
    names = [quoted(each) for each in sorted(folded.values())]
    return otherwise or (f"choose from {first_few(names, shown=12)}" if names else "there are none yet")


def first_few(things: Sequence[str], *, shown: int = 2) -> str:
    """``a, b and 3 more``."""
    rest = len(things) - shown
    return ", ".join(things[:shown]) + (f" and {rest:,} more" if rest > 0 else "")


def counted(count: int, thing: str) -> str:
    """``1 call``, ``1,200 calls``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """``4.2 s``, ``75 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def by_purpose(requests: Mapping[Any, int]) -> str:
    """``list 4, first fetch 53``: how many requests were for what, without what none was for."""
    return ", ".join(f"{purpose.replace('_', ' ')} {count:,}" for purpose, count in requests.items() if count)


class ShownInLines:
    """A value that a shell shows as a few lines, each with a label, and a notebook as a table of them."""

    __slots__ = ()

    def lines(self) -> Iterable[tuple[str, str]]:
        """The label and text of each line; of each label the first few are shown."""
        return ()

    def __repr__(self) -> str:
        return "\n".join([type(self).__name__, *(f"  {label:10} {text}" for label, text in self._few_lines())])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{label}</th><td>{escape(text)}</td></tr>" for label, text in self._few_lines())
        return f"<table>{''.join(rows)}</table>"

    def _few_lines(self) -> Iterator[tuple[str, str]]:
        groups = defaultdict[str, list[str]](list)
        for label, text in self.lines():
            groups[label].append(shown(text if len(text) <= _LONG else f"{text[:_LONG]}…"))
        for label, texts in groups.items():
            rest = [f"and {len(texts) - _FEW:,} more"] if len(texts) > _FEW else []
            yield from ((label, text) for text in texts[:_FEW] + rest)
