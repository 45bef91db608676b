"""Remove the keys from what the server sends: one that echoes its requests sends the keys back. Pure.

A key is found verbatim, and escaped for JSON, a URL or HTML, once or several times, as servers echo text. A key in any
other form, such as base64, is not found: a server that encodes it so has it already.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from html.entities import codepoint2name

_PLACEHOLDER = b"[key]"


def eraser(keys: Iterable[str]) -> Callable[[bytes], bytes]:
    """A function that puts ``[key]`` in place of each of these keys in a body.

    A body without any of them is returned as it is, the same object. The function's ``repr`` shows no key.
    """
    # The longest first: one key may begin with another.
    longest_first = sorted(filter(None, keys), key=len, reverse=True)
    if not longest_first:
        return bytes
    marks = [b"\\", b"%", b"&", *(key.encode() for key in longest_first)]
    if any(" " in key for key in longest_first):
        marks.append(b"+")

    @cache
    def pattern() -> re.Pattern[bytes]:
        return re.compile("|".join(map(_spellings_of, longest_first)).encode())

    def erase(body: bytes) -> bytes:
        # Nearly no body holds any of these marks, and they are found a hundred times faster than the pattern, which
        # also takes 10 ms to compile.
        return pattern().sub(_PLACEHOLDER, body) if any(mark in body for mark in marks) else body

    return erase


def _spellings_of(key: str) -> str:
    """A pattern of all ways to write the key."""
    # Match a run of backslashes only from its first one: a match from each of them would take the square of its length.
    return _spellings(key[0], r"(?<!\\)") + "".join(map(_spellings, key[1:]))


def _spellings(character: str, before_backslash: str = "") -> str:
    """A pattern of all ways to write the character.

    Most ways begin with a literal, which lets ``re`` search fast.
    """
    verbatim = re.escape(character)
    code = f"{ord(character):02x}"
    entity = codepoint2name.get(ord(character), "apos" if character == "'" else code)
    ways = [
        rf"{before_backslash}\\\\*(?:(?i:u00{code})|{verbatim})",
        f"%(?:25)*(?i:{code})",
        f"&(?:amp;)*(?:#0*{ord(character)}|(?i:#x0*{code})|{entity});",
    ]
    # Verbatim goes first, but for a character that begins an escape: it would be taken for the whole of its own escape.
    ways.insert(len(ways) if character in "%&" else 0, verbatim)
    if character == " ":
        ways.append(r"\+")
    return f"(?:{'|'.join(ways)})"
