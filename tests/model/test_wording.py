"""How messages count, list and quote things."""

import pytest

from etl.model.wording import ShownInLines, first_few, nearest, quoted, shown

HARMLESS = "Ünïcode\N{NO-BREAK SPACE}ナイトリー\N{IDEOGRAPHIC SPACE}\\"


@pytest.mark.parametrize(("things", "text"), [(["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c"], "a, b and 1 more")])
def test_of_many_things_the_first_are_named(things, text):
    assert first_few(things) == text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CHECKOUT FLO", "Did you mean 'Checkout flow'?"),
        ("ratio", "Did you mean 'talk_ratio' or 'user_ratio'?"),
        ("zzz", "Choose from 'Checkout flow', 'talk_ratio', 'user_ratio'"),
    ],
)
def test_unknown_name_is_answered_with_what_may_be_meant(name, hint):
    assert nearest(name, ["user_ratio", "talk_ratio", "Checkout flow"][::-1]) == hint
    assert nearest(name, []) == "There are none to choose from"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("\x7f\x9b", r"\x7f\x9b"),
        ("\u2028\u202e\u2066", r"\u2028\u202e\u2066"),
        ("\ufffe\uffff", r"\ufffe\uffff"),
        ("\udc80", r"\udc80"),
        (HARMLESS, HARMLESS),
        ("\N{MAN}\N{ZERO WIDTH JOINER}\N{GIRL}\ufe0f", "\N{MAN}\N{ZERO WIDTH JOINER}\N{GIRL}\ufe0f"),
    ],
)
def test_control_characters_alone_are_escaped(text, printed):
    assert shown(text) == printed
    assert quoted(text) == f"'{printed}'"


class Hostile(ShownInLines):
    def lines(self):
        yield "dataset", "<b>&\x1b[2J\n" + "x" * 5000
        yield from (("problem", f"<{number}>") for number in range(9))


def test_a_value_shows_itself_in_a_few_lines_without_control_characters_and_its_html_is_escaped():
    lines = repr(Hostile()).splitlines()
    assert lines == [*str(Hostile()).splitlines()]
    assert lines[1].startswith(r"  dataset    <b>&\x1b[2J\nxxx")
    assert lines[0] == "Hostile"
    assert lines[2:] == [*(f"  problem    <{number}>" for number in range(3)), "  problem    and 6 more"]
    html = Hostile()._repr_html_()
    assert html.startswith(r"<table><tr><th>dataset</th><td>&lt;b&gt;&amp;\x1b[2J\nxxx")
    assert "<td>&lt;2&gt;</td>" in html
    assert max(len(html), *map(len, lines)) < 900
