"""Keys are taken out of a body in every spelling in which a server echoes text, and nothing else is."""

import html
import json
import re
import string
from collections.abc import Callable
from urllib.parse import quote, quote_plus

from hypothesis import example, given
from hypothesis import strategies as st

from etl.extract.redact import eraser

PLAIN = "0f8e7d6c5b4a39281706f5e4d3c2b1a0"
ODD = """a/b+c"d\\e<f>&g'h i%j=k~l"""
SPELLINGS: dict[str, Callable[[str], str]] = {
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with slashes escaped": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    "JSON in \\u": lambda text: "".join(f"\\u{ord(each):04x}" for each in text),
    "JSON in \\U": lambda text: "".join(f"\\u{ord(each):04X}" for each in text),
    "URL": quote,
    "form": quote_plus,
    "URL in lower case": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "HTML": html.escape,
    "HTML but for quotes": lambda text: html.escape(text, quote=False),
    "HTML in numbers": lambda text: "".join(f"&#{ord(each)};" for each in text),
}


@given(
    st.sampled_from([PLAIN, ODD, "at 100%", "this&"])
    # One that begins like the end of an escape may take that for its own beginning.
    | st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), min_size=8).filter(
        lambda key: key[0] not in string.hexdigits
    ),
    st.sampled_from(list(SPELLINGS)),
    st.integers(0, 2),
    st.booleans(),
)
@example(":000000u", "JSON in \\u", 0, False)
def test_key_is_found_however_it_is_escaped(key, name, again, is_in_json):
    """Also where an escaped text is escaped again, but for a form, or stands in JSON."""
    text = SPELLINGS[name](key)
    for outer in [name.partition(" ")[0]] * (again * (name != "form")) + ["JSON"] * is_in_json:
        text = SPELLINGS[outer](text)
    assert eraser([key])(f"<{text}>".encode()) == b"<[key]>"


def test_both_keys_are_found_though_one_begins_with_the_other():
    assert eraser(["abc", "abcdef"])(b"abc abcdef") == b"[key] [key]"


def test_body_without_a_key_is_the_same_object():
    body = b'{"status": true}'
    assert eraser([PLAIN, ODD, ""])(body) is body


def test_long_run_of_backslashes_is_searched_in_one_go():
    """Tried at each of them in turn, half a million would take hours."""
    body = b"\\" * 500_000
    assert eraser([PLAIN, ODD])(body) == body
    assert eraser([PLAIN])(body + PLAIN.encode() + body) == b"[key]" + body


def test_function_shows_no_key():
    assert PLAIN not in repr(eraser([PLAIN]))
