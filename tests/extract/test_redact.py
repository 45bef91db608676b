"""Keys are taken out of a body in every spelling in which a server echoes text, and nothing else is."""

import html
import json
from urllib.parse import quote, quote_plus

import pytest

from etl.extract.redact import eraser

PLAIN = "0f8e7d6c5b4a39281706f5e4d3c2b1a0"
ODD = """a/b+c"d\\e<f>&g'h i%j=k~l"""


@pytest.mark.parametrize("key", [PLAIN, ODD])
@pytest.mark.parametrize(
    "echo",
    [
        str,
        json.dumps,
        lambda key: json.dumps(json.dumps({"headers": key})),
        lambda key: json.dumps(key).replace("/", r"\/"),
        lambda key: json.dumps(key).replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026"),
        lambda key: json.dumps(key).replace("<", r"\u003C").replace(">", r"\u003E").replace("&", r"\u0026"),
        quote,
        quote_plus,
        lambda key: "".join(quote(each, safe="").lower() if quote(each) != each else each for each in key),
        html.escape,
        lambda key: html.escape(key).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        lambda key: html.escape(key, quote=False),
        lambda key: json.dumps(html.escape(key)),
        lambda key: json.dumps(quote(key)),
        lambda key: quote(quote(key)),
        lambda key: html.escape(html.escape(key)),
        lambda key: "".join(f"\\u{ord(each):04x}" for each in key),
        lambda key: "".join(f"&#{ord(each)};" for each in key),
    ],
)
def test_key_is_found_however_it_is_escaped(key, echo):
    around, mark, end = eraser([key])(echo(key).encode()).partition(b"[key]")
    assert mark
    assert around + end in (b"", b'""', rb'"{\"headers\": \"\"}"')


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
