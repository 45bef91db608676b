"""The page is one file that anybody can open: well formed, without scripts or requests, and with all text escaped."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from typing import Any

from etl.compare.nightly import Judged, Remark
from etl.inspect.status import StatusVerdict
from etl.report.charts import png
from etl.report.gather import MOST_DETAILS, ReportContents
from etl.report.page import page, picture_of, pictures
from etl.settings.results import ReportSettings
from tests.report.rows import LATENCY, call, execution, figures, output

AT = datetime(2026, 11, 26, 7, tzinfo=UTC)
GOOD = StatusVerdict(is_good=True, text="Good: the last complete export was 5 h ago", next_step="metrics-etl verify")
JUDGED = Judged(run_tests=2, metrics=7, nights=30)
VOID = {"meta", "link", "br", "line", "path", "rect"}


def contents(*run_tests, **changes):
    return replace(ReportContents(dataset="data", read_at=AT, verdict=GOOD, missing=[], run_tests=run_tests), **changes)


class Elements(HTMLParser):
    """The elements of a page, each with its text; not well formed is an error."""

    def __init__(self, html):
        super().__init__()
        self.found: list[Any] = []
        self.open: list[Any] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.found.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def texts(self, tag, **attributes):
        return [
            " ".join(text.split())
            for name, there, text in self.found
            if name == tag and attributes.items() <= there.items()
        ]


def of_two_weeks(name="Name", key="key", worse=("latency_mean", "eval_task_pass_rate")):
    ms = [(n, 1 + n % 2, 100 + 100 * (n % 2)) for n in range(120)]
    calls = [call(n, of=f"e{of}", day=10 * (of - 1), **{LATENCY: each + n % 7}) for n, of, each in ms]
    evals = [output(n, passed=n % 3 > 0, of=f"e{of}") for n, of, _ in ms]
    return figures(calls, evals, [execution("e1"), execution("e2", day=10)], key=key, name=name, worse=worse)


def test_page_needs_no_script_and_sends_no_request():
    elements = Elements(page(contents(of_two_weeks()), ReportSettings(call_url="https://h/{call_execution_id}")))
    assert not {"script", "img", "iframe", "object", "base", "form"} & {tag for tag, _, _ in elements.found}
    for tag, attributes, _ in elements.found:
        sources = ("href", "src", "xlink:href", "action", "style")
        links = [value for name, value in attributes.items() if name in sources]
        expected = r"https://h/c\d+$" if attributes.get("rel") == "noreferrer" else "#|data:,$|width: [0-9.]+%$"
        assert all(re.match(expected, each) for each in links), (tag, links)
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"@import|url\(", "".join(elements.texts("style")))


def test_what_got_worse_is_the_first_thing_after_the_head_and_then_which_call_to_listen_to():
    slow, same = of_two_weeks("Slow"), of_two_weeks("Same", "same", worse=())
    links = ReportSettings(call_url="https://h/{call_execution_id}")
    elements = Elements(page(contents(slow, same, judged=JUDGED), links))
    assert elements.texts("h2")[:3] == ["What got worse", "Slow", "Same"]
    assert [text for tag, _, text in elements.found if tag == "li"] == [f"Slow: {each.text}" for each in slow.worse]
    latency = r"Agent latency, mean \+9\d\.\d% \(10\d ms to 20\d ms\) since 2026-11-12, 1 night, 95% interval "
    assert re.match(latency, slow.worse[0].text)
    assert elements.texts("a", href="https://h/c111") == ["c111"] * 3, "the slowest, among those the one that failed"
    assert elements.texts("p")[2].startswith("Listen first to c111: Slow, 2026-11-12, unknown scenario, 206 ms")
    assert {"latency_mean", "latency_p95"} <= {*elements.texts("code")}, "to copy into a limit"
    heads = [each for each in elements.texts("th", scope="row") if "since" in each]
    assert [each.partition("mean of")[0] for each in heads] == [
        "Agent latency, mean latency_mean worse since 2026-11-12",
        "Task: passed eval_task_pass_rate worse since 2026-11-12",
    ]
    assert not {"worse", "better"} & {*elements.texts("td")}


def test_what_was_judged_how_often_that_is_wrong_and_what_was_not_is_told():
    same = of_two_weeks(worse=())
    told = Elements(page(contents(same, judged=replace(JUDGED, not_yet=["New", "Newer"])))).texts("p")
    assert "Nothing now, judged by 30 nights." in told
    assert (
        "Judged after each night: 7 metrics of 2 run tests, 30 nights. If nothing changes, expect about 1 false alarm "
        "a year, up to 4 where one bad night follows another. Not judged yet, with fewer than 10 nights before: New, Newer."
    ) in told
    assert "Nothing can be judged yet." in Elements(page(contents(same))).texts("p")


def test_what_else_the_nights_say_stands_below_what_got_worse():
    remarks = [
        Remark("<A>", date(2026, 11, 2), "no calls since 2026-11-02"),
        Remark("", date(2026, 11, 3), "most fail"),
    ]
    items = Elements(page(contents(of_two_weeks(worse=()), judged=replace(JUDGED, remarks=remarks)))).texts("li")
    assert items[:2] == ["<A>: no calls since 2026-11-02", "most fail"]


def test_head_says_what_is_covered_how_fresh_it_is_and_what_is_missing():
    bad = StatusVerdict(is_good=False, text="Not good: 1 of 1 run test incomplete", next_step="metrics-etl run")
    missing = [f"lack {number}" for number in range(12)]
    elements = Elements(page(contents(of_two_weeks(), verdict=bad, missing=missing)))
    assert "2026-11-02 to 2026-11-12, 1 run test, 120 calls, from data" in elements.texts("p")
    assert elements.texts("p", **{"class": "bad"}) == ["Not good: 1 of 1 run test incomplete"]
    assert [each for each in elements.texts("li") if "lack" in each] == missing[:10]
    assert "and 2 more: metrics-etl status lists them" in elements.texts("li")
    assert Elements(page(contents(of_two_weeks()))).texts("p", **{"class": "good"}) == [GOOD.text]


def test_figures_without_data_are_said_and_not_drawn():
    elements = Elements(page(contents(figures([]))))
    assert "svg" not in {tag for tag, _, _ in elements.found}
    said = elements.texts("p")
    assert {
        "No eval passed or failed a call.",
        "No call was completed.",
        "Nothing to compare with yet: fewer than two finished executions.",
        "Nothing can be judged yet.",
    } <= set(said)
    assert "unknown" in elements.texts("td")


def test_dataset_without_executions_on_these_days_makes_a_page_that_says_so():
    texts = Elements(page(contents())).texts("p")
    assert "The dataset holds no executions on these days." in texts
    assert any(each.startswith("no calls, 0 run tests") for each in texts)


def test_text_from_outside_is_escaped_with_its_control_characters():
    odd = "<script>alert(1)</script> & \"x\" 'y' \x1b[31m\u202e"
    evals = [output(n, passed=False, name=odd) for n in range(2)]
    found = figures([call(n, scenario_name=odd, status=odd) for n in range(2)], evals, name=odd)
    text = page(contents(found, dataset=odd, missing=[odd]))
    assert png(picture_of(found))
    assert "script" not in {tag for tag, _, _ in Elements(text).found}
    assert not re.search("[\x1b\u202e]", text)
    assert r"&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;x&#34; &#39;y&#39; \x1b[31m\u202e" in text


def test_every_cell_of_a_table_says_what_stands_above_it():
    """A narrow screen shows no heads of columns."""
    elements = Elements(page(contents(of_two_weeks(), figures([call(1)], [output(1, passed=True)], key="one"))))
    cells = [attributes for tag, attributes, _ in elements.found if tag == "td" and attributes.get("class") != "bar"]
    heads = {*elements.texts("th", scope="col")} - {"Run test", "Metric", "Eval and scenario", "Call"}
    assert {each.get("data-label") for each in cells} == heads


def test_worst_call_links_to_the_platform_where_somebody_said_where_that_is():
    shown = contents(figures([call(1, of="e/1")], executions=[execution("e/1")]))
    both, one = "https://h/{execution_id}?call={call_execution_id}", "http://h/{execution_id}"
    links: Any = (
        (None, []),
        (both, ["https://h/e%2F1?call=c1"]),
        ({"Name": one}, ["http://h/e%2F1"]),
        ({"A": one}, []),
    )
    for call_url, expected in links:
        elements = Elements(page(shown, ReportSettings(call_url=call_url)))
        assert [each["href"] for _, each, _ in elements.found if each.get("rel") == "noreferrer"] == expected


def test_of_many_run_tests_the_worst_are_shown_and_all_are_listed():
    many = [figures([], key=f"k{n}", name=f"Run test {n}", has_details=n < MOST_DETAILS) for n in range(25)]
    elements = Elements(page(contents(*many)))
    headers = [each for each in elements.texts("th", scope="row") if each.startswith("Run test")]
    assert headers == [f"Run test {number}" for number in range(25)]
    assert len([each for each in elements.texts("h2") if each.startswith("Run test")]) == MOST_DETAILS
    assert any(each.startswith(f"Below are the first {MOST_DETAILS}.") for each in elements.texts("p"))
    ids = {attributes.get("id") for _, attributes, _ in elements.found}
    assert all(attributes["href"][1:] in ids for tag, attributes, _ in elements.found if tag == "a")


def test_picture_is_made_of_each_run_test_that_has_a_chart():
    made = dict(pictures(contents(of_two_weeks(), figures([], key="empty"))))
    assert made.keys() == {"key"}
    assert made["key"].startswith(b"\x89PNG")
