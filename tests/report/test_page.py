"""The page is one file that anybody can open: well formed, without scripts or requests, and with all text escaped."""

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from itertools import product
from typing import Any

from etl.compare.comparison import change_texts, value_text
from etl.compare.nightly import Judged, Remark
from etl.inspect.status import StatusVerdict
from etl.report.charts import png
from etl.report.figures import Standing
from etl.report.gather import MOST_DETAILS, ReportContents
from etl.report.page import page, picture_of, pictures
from etl.settings.results import ReportSettings
from tests.report.rows import LATENCY, call, execution, figures, output

AT = datetime(2026, 11, 26, 7, tzinfo=UTC)
GOOD = StatusVerdict(is_good=True, text="Good: the last complete export was 5 h ago", next_step="")
JUDGED = Judged(run_tests=["Name", "Same"], metrics=7, nights=30)
VOID = {"meta", "link", "br", "line", "path", "rect", "polyline", "circle"}


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
        self.handle_data(" " if tag in ("th", "td", "small") else "")
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
        expected = r"https://h/c\d+$" if attributes.get("rel") == "noreferrer" else "#|data:,$|--fall: [0-9]+%$"
        assert all(re.match(expected, each) for each in links), (tag, links)
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"@import|url\(", "".join(elements.texts("style")))


def test_first_is_a_row_of_each_run_test_that_says_what_changed_by_how_much_and_since_when():
    slow, same = of_two_weeks("Slow"), of_two_weeks("Same", "same", worse=())
    elements = Elements(page(contents(slow, same, judged=JUDGED)))
    assert elements.texts("h1") == ["Simulation metrics 2026-11-02 to 2026-11-12"]
    first, second = elements.texts("tr")[1:3]
    changed = (
        r"Agent latency, mean \+9\d\.\d% since 2026-11-12 10\d ms → 20\d ms also worse: Task, pass rate 66\.7% → 66\.7%"
    )
    assert re.fullmatch(rf"Slow worse {changed} Agent latency, mean 20\d ms 120 unknown", first)
    assert re.fullmatch(r"Same no alarm Agent latency, mean 20\d ms 120 unknown", second)
    drawn = [each["aria-label"] for tag, each, _ in elements.found if tag == "svg" and each.get("class") == "spark"]
    line = "Agent latency, mean by night, 2 nights"
    assert drawn == [f"{line}, changed on 2026-11-12", line]
    assert elements.texts("h2") == ["Slow", "Same"]


def test_change_of_a_metric_is_told_with_the_same_figures_everywhere():
    slow = of_two_weeks("Slow")
    elements = Elements(page(contents(slow, judged=JUDGED)))
    metrics = [each for each in elements.texts("tr") if "worse since" in each]
    for worse, row in zip(slow.worse, metrics, strict=True):
        metric, found = worse.row.metric, worse.row.found
        before, after = (value_text(each, metric.unit) for each in (found.baseline, found.candidate))
        by, interval = change_texts(metric, found)
        assert row.startswith(f"{metric.title} {metric.name} worse since {worse.since}")
        assert row.endswith(f"{before} {after} {by} {interval}")
        assert f"{before} → {after}, {by} (95% interval {interval})" in elements.texts("figcaption")
        assert f"{before} to {after}" in worse.text
    texts = " ".join(text for _, _, text in elements.found)
    assert len({*re.findall(r"10\d ms → 20\d ms", texts)}) == 1
    assert "Before: 2026-11-02 09:00 (1 execution). After: 2026-11-12 09:00 (1 execution), since the worst" in texts
    assert "Listen first to call c111, the worst by “Agent latency, mean”." in texts


def test_rates_of_scenarios_are_told_in_figures_and_redder_where_they_fell_more_but_not_of_too_many():
    numbers = [(n, f"e{1 + n % 2}", f"S{n // 8}") for n in range(104)]
    calls = [call(n, of=of, day=10 * (n % 2), scenario_id=s, scenario_name=s) for n, of, s in numbers]
    evals = [output(n, of=of, name=f"E{e}", passed=n % 2 == 0 or n % 8 > 3) for n, of, _ in numbers for e in range(7)]
    elements = Elements(page(contents(figures(calls, evals, [execution("e1"), execution("e2", day=10)]))))
    assert {f"S0 4 → 4{' 100% → 50%' * 5}", "and 5 scenarios whose shares fell less"} <= {*elements.texts("tr")}
    assert [each["style"] for _, each, _ in elements.found if "style" in each] == ["--fall: 50%"] * 40


def test_what_was_judged_and_how_often_that_is_wrong_is_told_at_the_foot():
    (told,) = Elements(page(contents(of_two_weeks(worse=()), judged=JUDGED))).texts("p")[-1:]
    assert "7 metrics of 2 run tests, 30 nights. If nothing changes, expect about 1 false alarm a year, up to 4" in told


def test_what_else_the_nights_say_stands_in_the_row_of_each_run_test_that_it_is_of():
    told = [(["<A>"], "no calls since 2026-11-02"), (["<A>", "Slow"], "most fail"), (["Other"], "not shown")]
    remarks = [Remark(names, date(2026, 11, 2), text) for names, text in told]
    shown = of_two_weeks("Slow"), figures([call(1)], name="<A>")
    rows = Elements(page(contents(*shown, judged=replace(JUDGED, remarks=remarks)))).texts("tr")
    assert "pass rate 66.7% → 66.7% most fail Agent latency" in rows[1]
    assert rows[2] == "<A> no alarm no calls since 2026-11-02 most fail Failed calls 1 unknown"


def test_foot_says_how_fresh_the_export_is_and_what_is_missing():
    bad = StatusVerdict(is_good=False, text="Not good: 1 of 1 run test incomplete", next_step="metrics-etl run")
    missing = [f"lack {number}" for number in range(12)]
    elements = Elements(page(contents(of_two_weeks(), verdict=bad, missing=missing)))
    (foot,) = elements.texts("footer")
    assert "lack 9 and 2 more: metrics-etl status lists them Times are UTC." in foot
    assert elements.texts("p", **{"class": "bad"}) == ["Export: Not good: 1 of 1 run test incomplete"]
    assert elements.texts("header")[0].endswith(bad.text), "a page that is mailed after a failed night says so first"
    assert Elements(page(contents(of_two_weeks()))).texts("p", **{"class": "good"}) == [f"Export: {GOOD.text}"]


def test_why_calls_failed_and_which_version_spoke_is_told_where_it_is_known():
    own = {"ended_reason": "<busy>"}
    of_v1 = [replace(execution("e1"), agent_version="v1")]
    elements = Elements(page(contents(figures([call(1, **own), call(2, status="failed", **own)], [], of_v1))))
    assert {"Reason Before After", "<busy> 0 calls 1 call"} <= {*elements.texts("tr")}
    assert any(each.endswith("none <busy> v1") for each in elements.texts("tr"))


def test_figures_without_data_are_said_and_not_drawn():
    elements = Elements(page(contents(figures([], standing=Standing.NO_CALLS))))
    assert "svg" not in {tag for tag, _, _ in elements.found}
    nothing = {"No call was completed.", "Nothing to compare with yet: fewer than two finished executions."}
    assert nothing <= {*elements.texts("p")}
    assert elements.texts("tr")[1:] == ["Name no calls none so far 0 unknown"]
    alone = Elements(page(contents(figures([call(1, **{LATENCY: 5})], standing=Standing.NOT_YET))))
    assert "The mean of each night." in alone.texts("figcaption")
    (row,) = (each for each in alone.texts("tr") if each.startswith("Name"))
    assert row == "Name not judged yet fewer than 10 earlier nights Agent latency, mean 1 unknown"


def test_dataset_without_executions_on_these_days_makes_a_page_that_says_so():
    assert "The dataset holds no executions on these days." in Elements(page(contents())).texts("p")


def test_text_from_outside_is_escaped_with_its_control_characters():
    odd = "<script>alert(1)</script> & \"x\" 'y' \x1b[31m\u202e"
    own = dict.fromkeys(("ended_reason", "scenario_name"), odd) | {"scenario_id": "s", LATENCY: 5}
    calls = [call(n, of=f"e{1 + n % 2}", **own) for n in range(2)]
    evals = [output(n, of=f"e{1 + n % 2}", passed=False, name=odd) for n in range(2)]
    judges = [json.dumps({"c": {"name": odd, "model": model}}) for model in ("a", odd)]
    two = [replace(execution(f"e{n + 1}", day=10 * n), agent_version=f"{odd}{n}", judged_by=judges[n]) for n in (0, 1)]
    found = figures(calls, evals, two, name=odd, worse=["latency_mean"])
    judged = Judged(remarks=[Remark([odd], AT.date(), odd)])
    text = page(contents(found, dataset=odd, missing=[odd], judged=judged))
    assert png(picture_of(found))
    assert "script" not in {tag for tag, _, _ in Elements(text).found}
    assert not re.search("[\x1b\u202e]", text)
    assert r"&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;x&#34; &#39;y&#39; \x1b[31m\u202e" in text


def test_every_cell_of_a_table_says_what_stands_above_it():
    """A narrow screen shows no heads of columns."""
    elements = Elements(page(contents(of_two_weeks(), figures([call(1)], [output(1, passed=True)], key="one"))))
    unnamed = ("verdict", "change", "night")
    cells = [each for tag, each, _ in elements.found if tag == "td" and each.get("class") not in unnamed]
    heads = {*elements.texts("th", scope="col")} - {"Run test", "Metric", "Scenario", "Call"}
    assert {each.get("data-label") for each in cells} - {"Scenario"} == heads - {"Verdict", "What changed", "By night"}


def test_worst_call_links_to_the_platform_where_somebody_said_where_that_is():
    ids = [replace(execution("e/1"), run_test_id="r")]
    shown = contents(figures([call(1, of="e/1")], executions=ids))
    links: Any = (
        (None, []),
        ("https://h/{execution_id}?call={call_execution_id}", ["https://h/e%2F1?call=c1"]),
        ("https://h", ["https://h/dashboard/simulate/test/r/e%2F1"]),
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
    assert any(each.startswith(f"Below are the first {MOST_DETAILS} run tests.") for each in elements.texts("p"))
    ids = {attributes.get("id") for _, attributes, _ in elements.found}
    assert all(attributes["href"][1:] in ids for tag, attributes, _ in elements.found if tag == "a")


def test_run_test_at_its_extreme_takes_100_kib_of_the_page():
    """More nights, versions, judges, scenarios and evals than a page shows, with long names, and all got worse."""
    long, nights, evals = "long name " * 25, range(36), range(30)
    judges = [json.dumps({f"{e}": {"name": f"{e} {long}", "model": model * 30} for e in evals}) for model in "ab"]
    executions = [
        replace(execution(f"{n:036}", day=n), agent_version=f"{n} {long}", judged_by=judges[n % 2]) for n in nights
    ]
    calls, outputs = [], []
    for number, (night, scenario) in enumerate(product(nights, range(12))):
        own = {"of": f"{night:036}", "scenario_id": f"{scenario}", "scenario_name": f"{scenario} {long}"}
        reason = f"{number} {long}"[:200]
        calls.append(call(f"{number:035}", day=night, ended_reason=reason, **own, **{LATENCY: 999 + number}))
        names = [f"{e} {long}" for e in evals]
        outputs += [
            output(f"{number:035}", of=own["of"], name=name, passed=night == 0, output_score=1) for name in names
        ]
    worse = [row.metric.name for row in figures(calls, outputs, executions).details.changes][-8:]
    found = figures(calls, outputs, executions, worse=worse, name=long)
    html = page(contents(found))
    assert len(html.encode()) - len(page(contents()).encode()) <= 100 * 1024
    assert any(each.endswith("more metrics: metrics-etl compare lists them") for each in Elements(html).texts("th"))


def test_picture_is_made_of_each_run_test_that_has_a_chart():
    made = dict(pictures(contents(of_two_weeks(), figures([], key="empty"))))
    assert made.keys() == {"key"}
    assert made["key"].startswith(b"\x89PNG")
